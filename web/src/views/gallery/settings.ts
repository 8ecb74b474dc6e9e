/** How a picture was drawn, as names and values to read. */

import { fieldName, fieldText } from "$lib/fields";
import { t } from "$lib/i18n.svelte";
import { fieldsOf } from "$lib/request";

export interface Setting {
  name: string;
  label: string;
  value: string;
}

type Fields = Record<string, unknown>;

const FIRST = ["seed", "steps", "guidance", "sampler", "spacing", "style", "model", "adapters"] as const;
/** Shown elsewhere, or said by others. */
const NOT_SHOWN = new Set(["prompt", "negative", "width", "height", "count", "templates", "origin"]);

/** The settings of a request, those that everybody asks for first. */
export function settingsOf(request: Fields): Setting[] {
  const fields: Fields = { ...fieldsOf(request) };
  const style = (request["origin"] as Fields | null | undefined)?.["style"];
  if (Array.isArray(style) && style.length > 0) fields["style"] = style;
  if (fields["upscale"] === 1) delete fields["upscale"];
  if (request["model"] !== undefined) fields["model"] = request["model"];
  const found: Setting[] = [];
  if (fields["width"] && fields["height"])
    found.push({
      name: "size",
      label: t("setting.size"),
      value: `${String(fields["width"])} × ${String(fields["height"])}`,
    });
  for (const name of FIRST)
    if (fields[name] !== undefined)
      found.push({ name, label: fieldName(name), value: fieldText(name, fields[name]) });
  for (const [name, value] of Object.entries(fields))
    // what is off is not told, as nothing is of fields that are not set
    if (value !== false && !NOT_SHOWN.has(name) && !(FIRST as readonly string[]).includes(name))
      found.push({ name, label: fieldName(name), value: fieldText(name, value) });
  return found;
}

export interface Difference {
  name: string;
  label: string;
  values: [string, string];
}

/** What differs between two requests, their prompts among it. */
export function differences(one: Fields, other: Fields): Difference[] {
  const prompts = (request: Fields): Setting[] => [
    { name: "prompt", label: t("draw.prompt"), value: String(request["prompt"] ?? "") },
    { name: "negative", label: t("picture.negative"), value: String(request["negative"] ?? "") },
  ];
  const both = [one, other].map((request) => [...prompts(request), ...settingsOf(request)]);
  const labels = new Map(both.flat().map(({ name, label }) => [name, label]));
  const value = (settings: Setting[] | undefined, name: string) =>
    settings?.find((each) => each.name === name)?.value || "–";
  return [...labels]
    .map(([name, label]): Difference => ({
      name,
      label,
      values: [value(both[0], name), value(both[1], name)],
    }))
    .filter(({ values: [a, b] }) => a !== b);
}
