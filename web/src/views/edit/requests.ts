/** What is asked of the server for an edit. */

import type { DrawFields } from "$lib/api";
import { tidied } from "$lib/stores/form.svelte";
import type { Size } from "$lib/view";
import { isGrown, type Edges } from "./geometry";

/** Into the mask, beyond the edges, by instruction, or over the whole picture. */
export type Way = "mask" | "extend" | "instruct" | "over";

export interface Wishes {
  prompt: string;
  /** `undefined`: as the server has it. */
  strength?: number | undefined;
  fill: string;
  feather: number;
  /** Pixels around the mask that are drawn with it; `undefined`: the whole picture, where its size is the model's. */
  crop?: number | undefined;
  steps?: number | undefined;
  seed?: number | undefined;
  guidance?: number | undefined;
  imageGuidance?: number | undefined;
}

export interface Given {
  size: Size;
  edges: Edges;
  /** Data URLs. */
  image: string;
  mask: string | null;
  model: { name: string; width: number; height: number };
}

/** A margin around the mask in pictures of another size than the model's, which are not to be made smaller. */
const MARGIN = 32;

export function wayOf(empty: boolean, edges: Edges, instructs: boolean): Way {
  if (isGrown(edges)) return "extend";
  if (!empty) return "mask";
  return instructs ? "instruct" : "over";
}

export function editRequest(way: Way, wishes: Wishes, given: Given): DrawFields {
  const { prompt, strength, steps, seed, guidance } = wishes;
  const { image, model, size } = given;
  const common = { prompt, image: image as never, model: model.name, steps, seed };
  const fields: Record<Way, object> = {
    extend: { extend: given.edges },
    mask: {
      mask: given.mask,
      strength,
      fill: wishes.fill === "keep" ? undefined : wishes.fill,
      feather: wishes.feather || undefined,
      crop: wishes.crop ?? (isOwnSize(size, model) ? undefined : MARGIN),
    },
    instruct: { guidance, image_guidance: wishes.imageGuidance },
    over: { strength },
  };
  return tidied({ ...common, ...fields[way] } as DrawFields);
}

const isOwnSize = (size: Size, model: Size): boolean =>
  size.width === model.width && size.height === model.height;

/** Fields that say nothing of the picture that is made from it, or that its record has of its own. */
const ONCE = ["count", "origin", "templates", "style"];

/** Whether a record's request has pictures, whose bytes the server leaves out of it. */
export const beginsWithPictures = ({ image, controls, elements }: Record<string, unknown>): boolean =>
  image !== null || [controls, elements].some((list) => Array.isArray(list) && list.length > 0);

/** The request of a picture's record, drawn once more with other values. */
export function again(record: Record<string, unknown>, change: DrawFields): DrawFields {
  const kept = Object.fromEntries(Object.entries(record).filter(([name]) => !ONCE.includes(name)));
  return tidied({ ...kept, templates: "off", ...change } as DrawFields);
}
