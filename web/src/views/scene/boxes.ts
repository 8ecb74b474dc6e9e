/** Boxes of a scene's elements, as fractions of the picture, and their order in depth. */

import { between, type Point, type Size } from "$lib/view";

/** Left, top, right, bottom. */
export type Box = [number, number, number, number];

/** Corners and sides by which a box is resized, as on a compass. */
export const HANDLES = ["nw", "n", "ne", "e", "se", "s", "sw", "w"] as const;
export type Handle = (typeof HANDLES)[number];

export const WHOLE: Box = [0, 0, 1, 1];
/** A side of fewer pixels has no room for an object. */
export const SHORTEST = 16;

/** Exact to a tenth of a pixel in pictures of any size. */
const rounded = (box: Box): Box => box.map((each) => Math.round(each * 1e5) / 1e5) as Box;

/** The box between two points of the picture; what is outside of it is cut off. */
export function spanned(from: Point, to: Point, size: Size): Box {
  const across = [from.x, to.x].map((each) => between(0, each / size.width, 1)).sort((a, b) => a - b);
  const up = [from.y, to.y].map((each) => between(0, each / size.height, 1)).sort((a, b) => a - b);
  return rounded([across[0] ?? 0, up[0] ?? 0, across[1] ?? 1, up[1] ?? 1]);
}

/** The box moved by so many pixels, within the picture. */
export function shifted([left, top, right, bottom]: Box, by: Point, size: Size): Box {
  const x = between(-left, by.x / size.width, 1 - right);
  const y = between(-top, by.y / size.height, 1 - bottom);
  return rounded([left + x, top + y, right + x, bottom + y]);
}

/** The box after one of its handles went so many pixels: within the picture, and never too small. */
export function resized(box: Box, handle: Handle, by: Point, size: Size): Box {
  let [left, top, right, bottom] = box;
  const x = by.x / size.width;
  const y = by.y / size.height;
  const width = Math.min(SHORTEST / size.width, 1);
  const height = Math.min(SHORTEST / size.height, 1);
  if (handle.includes("w")) left = between(0, left + x, Math.max(right - width, 0));
  if (handle.includes("e")) right = between(Math.min(left + width, 1), right + x, 1);
  if (handle.includes("n")) top = between(0, top + y, Math.max(bottom - height, 0));
  if (handle.includes("s")) bottom = between(Math.min(top + height, 1), bottom + y, 1);
  return rounded([left, top, right, bottom]);
}

/** A box in whole pixels: its upper left corner and its size. */
export function inPixels([left, top, right, bottom]: Box, { width, height }: Size): Point & Size {
  const x = Math.round(left * width);
  const y = Math.round(top * height);
  return { x, y, width: Math.round(right * width) - x, height: Math.round(bottom * height) - y };
}

export function fromPixels({ x, y, width, height }: Point & Size, size: Size): Box {
  return rounded([x / size.width, y / size.height, (x + width) / size.width, (y + height) / size.height]);
}

export type BoxProblem = "small" | "outside";

export function problemOf(box: Box, size: Size): BoxProblem | null {
  if (box.some((each) => each < 0 || each > 1)) return "outside";
  const { width, height } = inPixels(box, size);
  return Math.min(width, height) < SHORTEST ? "small" : null;
}

interface Deep {
  depth?: number;
}

/** The numbers of elements, from the farthest to the nearest. */
export function depthOrder(elements: readonly Deep[]): number[] {
  const depth = (number: number) => elements[number]?.depth ?? 0;
  return elements.map((_, number) => number).sort((a, b) => depth(a) - depth(b) || a - b);
}

/** The elements with depths that put them in this order: their own order, by which seeds count, stays. */
export function inDepthOrder<T extends Deep>(elements: readonly T[], order: readonly number[]): T[] {
  return elements.map((each, number) => ({ ...each, depth: order.indexOf(number) }));
}

/** An order after the one at `from` went to `to`. */
export function reordered(order: readonly number[], from: number, to: number): number[] {
  const rest = order.filter((_, index) => index !== from);
  const moved = order[from];
  if (moved !== undefined) rest.splice(between(0, to, rest.length), 0, moved);
  return rest;
}
