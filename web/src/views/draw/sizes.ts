/** Sizes of pictures by their ratios, as large as the model knows. */

import type { Key } from "$lib/texts";

export const RATIOS = ["1:1", "4:3", "3:2", "16:9", "3:4", "2:3", "9:16"] as const;

export interface Size {
  width: number;
  height: number;
}

/** A size of this ratio with the area of `native`, its sides multiples of `factor`. */
export function sizeOf(ratio: string, native: Size, factor: number): Size {
  const [across = 1, up = 1] = ratio.split(":").map(Number);
  const area = native.width * native.height;
  const fit = (side: number) => Math.max(factor, Math.round(side / factor) * factor);
  return { width: fit(Math.sqrt((area * across) / up)), height: fit(Math.sqrt((area * up) / across)) };
}

const MOST_AREA = 1.3;
const LONGEST = 2;

/** What is to be said of a size that the model does not know. */
export function sizeAdvice(width: number, height: number, native: Size): Key | null {
  if (Math.max(width, height) > LONGEST * Math.min(width, height)) return "advice.long";
  if (width * height > MOST_AREA * native.width * native.height) return "advice.large";
  return null;
}
