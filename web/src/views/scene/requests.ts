/** What is asked of the server for a scene, and the scene of a picture that was drawn. */

import type { DrawFields } from "$lib/api";
import { tidied } from "$lib/stores/form.svelte";
import { isRecord } from "$lib/stored.svelte";
import type { Box } from "./boxes";

type Element = NonNullable<DrawFields["elements"]>[number];
/** An element with what it says: all else is as the request's. */
export type SceneElement = Partial<Element> & Pick<Element, "prompt">;

/** An element's own fields; those that say nothing are left out. */
function elementFields(element: SceneElement): Element {
  const usual = (name: string, value: unknown) => (name === "depth" || name === "shadow") && value === 0;
  return Object.fromEntries(
    Object.entries(tidied(element as DrawFields)).filter(([name, value]) => !usual(name, value)),
  ) as unknown as Element;
}

/** The request that draws the scene. */
export function sceneRequest({ elements = [], harmonise, ...fields }: DrawFields): DrawFields {
  if (elements.length === 0) return tidied(fields);
  return tidied({ ...fields, harmonise, elements: elements.map(elementFields) } as DrawFields);
}

/** What an element takes over from the request of its scene, as the server has it. */
const SHARED = [
  "sampler",
  "spacing",
  "guidance_interval",
  "guidance_rescale",
  "fast",
  "dialect",
  "adapters",
  "embeddings",
  "allow_partial",
  "clip_skip",
  "decoder",
  "model",
  "steps",
  "guidance",
] as const satisfies readonly (keyof DrawFields)[];

/** The seed of an element of a scene that is drawn with this `seed`. */
export const seedOf = (element: SceneElement, number: number, seed: number): number =>
  element.seed ?? seed + number + 1;

/** The request of one element alone, on transparent ground, as a scene with this `seed` has it. */
export function aloneRequest(fields: DrawFields, number: number, seed: number): DrawFields {
  const element = fields.elements?.[number] as SceneElement | undefined;
  if (element === undefined) throw new RangeError(`there is no element ${number}`);
  const { prompt, negative, style, steps, guidance } = element;
  const shared = Object.fromEntries(SHARED.map((name) => [name, fields[name]])) as DrawFields;
  const own = tidied({ prompt, negative, style, steps, guidance } as DrawFields);
  return tidied({ ...shared, ...own, seed: seedOf(element, number, seed), transparent: true });
}

export const isScene = (request: Record<string, unknown>): boolean =>
  Array.isArray(request["elements"]) && request["elements"].length > 0;

/** A request's scene, without pictures that it began from, whose bytes the server leaves out; whether there were any. */
export function sceneOf(request: DrawFields): { fields: DrawFields; pictures: boolean } {
  const { image, mask, controls, strength: _, elements = [], ...fields } = request;
  const bare = elements.map((each) => elementFields({ ...each, mask: null }));
  const masked = elements.some((each) => isRecord(each.mask));
  return {
    fields: tidied({ ...fields, elements: bare } as DrawFields),
    pictures: masked || image != null || mask != null || (controls?.length ?? 0) > 0,
  };
}

/** An element's box; one without a box has the whole picture. */
export const boxOf = ({ box }: SceneElement): Box => (box as Box | null | undefined) ?? [0, 0, 1, 1];
