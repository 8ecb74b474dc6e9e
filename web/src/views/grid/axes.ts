/** Axes of a grid as one sets them up. Their values are read by the server, as the command reads them. */

import type { AxisText } from "$lib/api";
import { fieldName } from "$lib/fields";
import { t } from "$lib/i18n.svelte";
import { library } from "$lib/stores/library.svelte";
import { isRecord } from "$lib/stored.svelte";
import { texts, type Key } from "$lib/texts";

export interface Draft {
  /** A field of a request; `prompt~`, `negative~` for words in them, `lora~` for an adapter's weight; or none. */
  field: string;
  /** The word that is looked for, or the adapter. */
  word: string;
  /** What is typed. */
  text: string;
  /** What is ticked. */
  chosen: string[];
}

export const MOST_AXES = 3;
export const NO_AXIS: Draft = { field: "", word: "", text: "", chosen: [] };
export const OFTEN = ["prompt~", "steps", "guidance", "sampler", "seed", "style", "model", "lora~"];
export const OTHERS = [
  ...["prompt", "negative", "negative~", "spacing", "width", "height", "fast", "guidance_rescale"],
  ...["variation_seed", "variation_amount", "strength", "image_guidance", "upscale", "upscaler"],
  ...["upscale_strength", "upscale_steps", "clip_skip", "seamless", "decoder", "transparent", "sticker"],
];
/** No value: as without the field. */
export const NONE = "none";
const SWITCHES = ["fast", "transparent"];
const TEXTS = ["prompt", "negative"];

export const isDraft = (value: unknown): value is Draft =>
  isRecord(value) &&
  ["field", "word", "text"].every((name) => typeof value[name] === "string") &&
  Array.isArray(value["chosen"]) &&
  value["chosen"].every((each) => typeof each === "string");

/** A field in words. */
export function nameOf(field: string): string {
  const key = `grid.field.${field}`;
  return key in texts ? t(key as Key) : fieldName(field);
}

/** Whether a word or an adapter has to be named before its values. */
export const needsWord = (field: string): boolean => field.endsWith("~");

/** The values that a field may have where they are a list to tick. */
export function choicesOf(field: string): string[] | null {
  if (SWITCHES.includes(field)) return ["false", "true"];
  const names = (list: readonly { name: string }[]) => list.map(({ name }) => name);
  switch (field) {
    case "sampler":
      return names(library.samplers);
    case "spacing":
      return names(library.spacings);
    case "upscaler":
      return names(library.upscalers);
    case "model":
      return names(library.models);
    case "style":
      return [NONE, ...names(library.styles)];
    case "seamless":
      return [NONE, "x", "y", "xy"];
    case "decoder":
      return ["full", "tiny"];
    default:
      return null;
  }
}

/** A value of a list in words. */
export function choiceName(field: string, value: string): string {
  if (value === NONE) return t("grid.without");
  return SWITCHES.includes(field) ? t(value === "true" ? "setting.on" : "setting.off") : value;
}

export function hintOf(field: string): Key {
  if (needsWord(field) && field !== "lora~") return "grid.wordsHint";
  return TEXTS.includes(field) ? "grid.textsHint" : "grid.valuesHint";
}

/** What is sent of a draft; null while something of it is still to be said. */
export function axisText(draft: Draft): AxisText | null {
  const { field, word, text, chosen } = draft;
  const choices = choicesOf(field);
  if (field === "" || (needsWord(field) && word.trim() === "")) return null;
  if (choices === null)
    return text.trim() === "" ? null : { field: field + (needsWord(field) ? word.trim() : ""), values: text };
  const values = choices.filter((each) => chosen.includes(each));
  return values.length === 0 ? null : { field, values };
}
