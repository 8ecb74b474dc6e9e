/** Where a picture lies on a surface that is larger or smaller than it. Points of the surface are in CSS pixels. */

export interface Point {
  x: number;
  y: number;
}

export interface Size {
  width: number;
  height: number;
}

/** Where the picture's upper left corner is on the surface, and how many CSS pixels one of its pixels takes. */
export interface View extends Point {
  scale: number;
}

/** What lies on a surface: `view` is fitted to the surface's `room` until it is `moved`. */
export interface Viewed {
  readonly size: Size;
  view: View;
  room: Size;
  moved: boolean;
}

const SMALLEST = 0.05;
const LARGEST = 40;
/** So much of the picture stays on the surface, however it is moved. */
const KEPT = 48;
const ZOOM = 1.25;

export const between = (low: number, value: number, high: number): number =>
  Math.min(Math.max(value, low), high);

/** The whole picture, as large as it goes, in the middle of the room. */
export function fitted(size: Size, room: Size, margin = 16): View {
  const scale = between(
    SMALLEST,
    Math.min((room.width - 2 * margin) / size.width, (room.height - 2 * margin) / size.height),
    LARGEST,
  );
  return {
    scale,
    x: (room.width - size.width * scale) / 2,
    y: (room.height - size.height * scale) / 2,
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

function zoom(viewed: Viewed, factor: number): void {
  const { width, height } = viewed.room;
  viewed.view = zoomed(viewed.view, { x: width / 2, y: height / 2 }, factor);
  viewed.moved = true;
}

export const zoomIn = (viewed: Viewed): void => zoom(viewed, ZOOM);
export const zoomOut = (viewed: Viewed): void => zoom(viewed, 1 / ZOOM);
