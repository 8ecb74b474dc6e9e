/** What differs from the model's wishes, in a few words each. */

import type { DrawFields } from "$lib/api";
import { fieldName, fieldText } from "$lib/fields";
import { number, t } from "$lib/i18n.svelte";
import { library } from "$lib/stores/library.svelte";
import { OF_CLIPS } from "$lib/request";
import type { Key } from "$lib/texts";

export interface Chip {
  /** The fields that it stands for. */
  fields: (keyof DrawFields)[];
  name: string;
  text: string;
}

const FLAGS: Partial<Record<keyof DrawFields, Key>> = {
  fast: "chip.fast",
  transparent: "chip.transparent",
  loop: "chip.loop",
  image: "chip.image",
  mask: "chip.mask",
};
const NUMBERS: Partial<Record<keyof DrawFields, Key>> = {
  steps: "chip.steps",
  guidance: "chip.guidance",
  count: "chip.count",
  strength: "chip.strength",
  upscale: "chip.upscale",
  frames: "chip.frames",
  fps: "chip.fps",
  interpolate: "chip.interpolate",
  seed: "chip.seed",
};
/** Fields without a meaning where that one is not given. */
const WITH: Partial<Record<keyof DrawFields, readonly (keyof DrawFields)[]>> = {
  image: ["mask", "strength", "inversion", "extend", "image_guidance"],
  frames: OF_CLIPS,
};
const NAMES = ["sampler", "spacing", "dialect", "model", "motion"] as const;
/** Fields that are said elsewhere, or by a chip of another one. */
const SAID = ["prompt", "negative", "origin", "count", "variation_seed"];

export function chipsOf(fields: DrawFields): Chip[] {
  const found: Chip[] = [];
  const usual = library.model(fields.model)?.defaults;
  const add = (name: string, text: string, ...of: (keyof DrawFields)[]) =>
    found.push({ name, text, fields: of });
  if (fields.width || fields.height)
    add(
      "size",
      `${fields.width ?? usual?.width ?? "–"} × ${fields.height ?? usual?.height ?? "–"}`,
      "width",
      "height",
    );
  for (const [name, key] of Object.entries(NUMBERS) as [keyof DrawFields, Key][]) {
    const value = fields[name];
    if (typeof value === "number")
      add(
        name,
        t(key, { count: name === "seed" ? String(value) : value, value: number(value) }),
        name,
        ...(WITH[name] ?? []),
      );
  }
  for (const [name, key] of Object.entries(FLAGS) as [keyof DrawFields, Key][])
    if (fields[name]) add(name, t(key), name, ...(WITH[name] ?? []));
  for (const name of NAMES) if (fields[name]) add(name, String(fields[name]), name);
  if (fields.templates)
    add("templates", `${fieldName("templates")}: ${t(`templates.${fields.templates}`)}`, "templates");
  if (fields.style?.length) add("style", fields.style.join(", "), "style");
  for (const { name, weight } of fields.adapters ?? [])
    add(`adapter ${name}`, `${name} ${number(weight)}`, "adapters");
  for (const [index, { model, weight }] of (fields.controls ?? []).entries())
    add(`control ${index}`, `${model} ${number(weight)}`, "controls");
  if (fields.elements?.length)
    add("elements", t("chip.elements", { count: fields.elements.length }), "elements", "harmonise");
  if (fields.variation_amount?.length)
    add("variation", t("chip.variation"), "variation_amount", "variation_seed");
  const said = new Set<string>([...SAID, ...found.flatMap((chip) => chip.fields)]);
  for (const [name, value] of Object.entries(fields) as [keyof DrawFields, unknown][])
    if (!said.has(name) && value != null && value !== false)
      add(name, name === "travel" ? fieldName(name) : `${fieldName(name)} ${fieldText(name, value)}`, name);
  if (fields.negative) add("negative", t("chip.negative", { text: fields.negative }), "negative");
  return found;
}
