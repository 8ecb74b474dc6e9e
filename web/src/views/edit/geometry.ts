/** Where the picture lies on the stage, and how its frame grows. Points of the stage are in CSS pixels. */

export interface Point {
  x: number;
  y: number;
}

export interface Size {
  width: number;
  height: number;
}

/** Where the picture's upper left corner is on the stage, and how many CSS pixels one of its pixels takes. */
export interface View extends Point {
  scale: number;
}

export const SIDES = ["left", "top", "right", "bottom"] as const;
export type Side = (typeof SIDES)[number];
/** By how many pixels the picture is extended on each side. */
export type Edges = Record<Side, number>;

export const NO_EDGES: Edges = { left: 0, top: 0, right: 0, bottom: 0 };
export const MOST_EDGE = 1024;
const SMALLEST = 0.05;
const LARGEST = 40;
/** So much of the picture stays on the stage, however it is moved. */
const KEPT = 48;

const between = (low: number, value: number, high: number): number => Math.min(Math.max(value, low), high);

export const grown = (size: Size, edges: Edges): Size => ({
  width: size.width + edges.left + edges.right,
  height: size.height + edges.top + edges.bottom,
});

export const isGrown = (edges: Edges): boolean => SIDES.some((side) => edges[side] > 0);

/** The whole picture with its edges, as large as it goes, in the middle of the room. */
export function fitted(size: Size, room: Size, edges: Edges = NO_EDGES, margin = 16): View {
  const whole = grown(size, edges);
  const scale = between(
    SMALLEST,
    Math.min((room.width - 2 * margin) / whole.width, (room.height - 2 * margin) / whole.height),
    LARGEST,
  );
  return {
    scale,
    x: (room.width - whole.width * scale) / 2 + edges.left * scale,
    y: (room.height - whole.height * scale) / 2 + edges.top * scale,
  };
}

/** The view with the point of the picture that is at `at` kept there. */
export function zoomed(view: View, at: Point, factor: number): View {
  const scale = between(SMALLEST, view.scale * factor, LARGEST);
  const by = scale / view.scale;
  return { scale, x: at.x - (at.x - view.x) * by, y: at.y - (at.y - view.y) * by };
}

/** The view after two fingers went from `before` to `after`. */
export function pinched(view: View, before: readonly [Point, Point], after: readonly [Point, Point]): View {
  const apart = ([a, b]: readonly [Point, Point]) => Math.hypot(a.x - b.x, a.y - b.y);
  const middle = ([a, b]: readonly [Point, Point]) => ({ x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 });
  const from = middle(before);
  const to = middle(after);
  const near = zoomed(view, from, apart(after) / Math.max(apart(before), 1));
  return { ...near, x: near.x + to.x - from.x, y: near.y + to.y - from.y };
}

/** The view with some of the picture within the room. */
export function held(view: View, size: Size, room: Size): View {
  return {
    scale: view.scale,
    x: between(KEPT - size.width * view.scale, view.x, room.width - KEPT),
    y: between(KEPT - size.height * view.scale, view.y, room.height - KEPT),
  };
}

export const toPicture = (view: View, at: Point): Point => ({
  x: (at.x - view.x) / view.scale,
  y: (at.y - view.y) / view.scale,
});

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
