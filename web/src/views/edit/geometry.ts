/** How the frame of the picture grows, and how thick a stroke is. */

import { between, fitted, type Point, type Size, type View } from "$lib/view";

export const SIDES = ["left", "top", "right", "bottom"] as const;
export type Side = (typeof SIDES)[number];
/** By how many pixels the picture is extended on each side. */
export type Edges = Record<Side, number>;

export const NO_EDGES: Edges = { left: 0, top: 0, right: 0, bottom: 0 };
export const MOST_EDGE = 1024;

export const grown = (size: Size, edges: Edges): Size => ({
  width: size.width + edges.left + edges.right,
  height: size.height + edges.top + edges.bottom,
});

export const isGrown = (edges: Edges): boolean => SIDES.some((side) => edges[side] > 0);

/** The whole picture with its edges, as large as it goes, in the middle of the room. */
export function fittedWithEdges(size: Size, room: Size, edges: Edges, margin: number): View {
  const { scale, x, y } = fitted(grown(size, edges), room, margin);
  return { scale, x: x + edges.left * scale, y: y + edges.top * scale };
}

/** The edges after a side was dragged outwards by so many pixels of the picture. */
export function dragged(edges: Edges, side: Side, pixels: number): Edges {
  return { ...edges, [side]: between(0, Math.round(edges[side] + pixels), MOST_EDGE) };
}

/** The way outwards on a side, of a way on the stage. */
export const outwards = (side: Side, way: Point): number =>
  ({ left: -way.x, right: way.x, top: -way.y, bottom: way.y })[side];

/** The radius of a brush; a pen that presses less draws thinner. */
export const radius = (diameter: number, kind: string, pressure: number): number =>
  (diameter / 2) * (kind === "pen" ? 0.25 + 0.75 * pressure : 1);
