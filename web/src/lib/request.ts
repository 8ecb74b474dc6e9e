/** Requests as they are stored, and as a form holds them. */

import type { DrawFields } from "./api";
import defaults from "./request-defaults.json";

/** Fields that say where a request came from, not what is drawn. */
const NOT_TAKEN = ["origin"];

/** The fields of a stored request that differ from the defaults. */
export function fieldsOf(request: Record<string, unknown>): DrawFields {
  const usual = defaults as Record<string, unknown>;
  return Object.fromEntries(
    Object.entries(request).filter(
      ([name, value]) =>
        value !== null &&
        !NOT_TAKEN.includes(name) &&
        JSON.stringify(value) !== JSON.stringify(usual[name]) &&
        !(Array.isArray(value) && value.length === 0),
    ),
  );
}

/** The request of one picture, drawn again exactly: its own seed, alone. */
export function ofPicture(request: Record<string, unknown>, seed: number): DrawFields {
  const { count: _, ...fields } = fieldsOf(request);
  return { ...fields, seed };
}

/** Fields without a meaning where no clip is drawn. */
export const OF_CLIPS = [
  "fps",
  "interpolate",
  "loop",
  "motion",
  "travel",
  "context",
  "context_overlap",
  "motion_amount",
  "noise_augmentation",
] as const;

/** Fields of pictures that no clip has. */
export const NOT_OF_CLIPS = [
  "transparent",
  "sticker",
  "upscale",
  "upscaler",
  "upscale_strength",
  "upscale_steps",
  "multidiffusion",
  "overlap",
] as const;

/** Fields that the form has among its advanced controls. */
export const ADVANCED = [
  "dialect",
  "clip_skip",
  "variation_amount",
  "variation_seed",
  "guidance_rescale",
  "guidance_interval",
  "seamless",
  ...NOT_OF_CLIPS.filter((name) => name !== "transparent"),
  "token_merging",
  "cache_interval",
  "decoder",
  "allow_partial",
] as const;

export const randomSeed = (): number => crypto.getRandomValues(new Uint32Array(1))[0] ?? 0;

/** How much of another noise a variation has. */
export const VARIATION = 0.3;

/** Four pictures like one. */
export function variations(request: Record<string, unknown>, seed: number): DrawFields {
  return {
    ...ofPicture(request, seed),
    variation_seed: [randomSeed()],
    variation_amount: [VARIATION],
    count: 4,
  };
}

/** The same picture, `times` as large. */
export function enlarged(
  request: Record<string, unknown>,
  picture: { seed: number; width: number; height: number },
  times: number,
): DrawFields {
  return {
    ...ofPicture(request, picture.seed),
    upscale: times,
    width: picture.width * times,
    height: picture.height * times,
  };
}
