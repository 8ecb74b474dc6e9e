/** What is painted onto a picture in colours, in its pixels, with every stroke to be taken back. */

import type { Point } from "$lib/view";

/** A stroke: its colour, `null` rubs out, and the places that it goes through, each with the brush's radius. */
export interface Stroke {
  colour: string | null;
  points: readonly (readonly [x: number, y: number, radius: number])[];
}

export const isStroke = (value: unknown): value is Stroke =>
  typeof value === "object" && value !== null && Array.isArray((value as Stroke).points);

export class Paint {
  readonly canvas: HTMLCanvasElement;
  /** Counts what is painted, also within a stroke. */
  changes = $state(0);
  #strokes = $state.raw<readonly Stroke[]>([]);
  #back = $state.raw<readonly (readonly Stroke[])[]>([]);
  #forward = $state.raw<readonly (readonly Stroke[])[]>([]);
  #context: CanvasRenderingContext2D;
  #current: { colour: string | null; points: [number, number, number][] } | null = null;

  constructor(width: number, height: number, strokes: readonly Stroke[] = []) {
    this.canvas = document.createElement("canvas");
    this.canvas.width = width;
    this.canvas.height = height;
    const context = this.canvas.getContext("2d");
    if (context === null) throw new Error("no canvas");
    this.#context = context;
    context.lineCap = "round";
    if (strokes.length > 0) this.#become(strokes);
  }

  get strokes(): readonly Stroke[] {
    return this.#strokes;
  }

  get empty(): boolean {
    return this.#strokes.length === 0;
  }

  get canUndo(): boolean {
    return this.#back.length > 0;
  }

  get canRedo(): boolean {
    return this.#forward.length > 0;
  }

  /** Begin a stroke: what is painted until `end` is one step back. */
  begin(colour: string | null): void {
    this.#current = { colour, points: [] };
  }

  /** Go on with the stroke, which is as thick as it is here. */
  paint(to: Point, radius: number): void {
    if (this.#current === null) return;
    const { colour, points } = this.#current;
    const before = points.at(-1);
    points.push([to.x, to.y, radius]);
    this.#line(colour, before, [to.x, to.y, radius]);
    this.changes++;
  }

  end(): void {
    if (this.#current === null) return;
    const strokes = [...this.#strokes, this.#current];
    this.#current = null;
    this.#remember();
    this.#strokes = strokes;
    this.changes++;
  }

  /** Take back the stroke that was begun. */
  abandon(): void {
    this.#current = null;
    this.#become(this.#strokes);
  }

  clear(): void {
    if (this.empty) return;
    this.#remember();
    this.#become([]);
  }

  undo(): void {
    const before = this.#back.at(-1);
    if (before === undefined) return;
    this.#back = this.#back.slice(0, -1);
    this.#forward = [...this.#forward, this.#strokes];
    this.#become(before);
  }

  redo(): void {
    const after = this.#forward.at(-1);
    if (after === undefined) return;
    this.#forward = this.#forward.slice(0, -1);
    this.#back = [...this.#back, this.#strokes];
    this.#become(after);
  }

  #remember(): void {
    this.#back = [...this.#back, this.#strokes];
    this.#forward = [];
  }

  #become(strokes: readonly Stroke[]): void {
    this.#context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    for (const { colour, points } of strokes)
      points.forEach((point, index) => this.#line(colour, points[index - 1], point));
    this.#strokes = strokes;
    this.changes++;
  }

  #line(
    colour: string | null,
    from: Stroke["points"][number] | undefined,
    [x, y, radius]: Stroke["points"][number],
  ): void {
    const context = this.#context;
    context.globalCompositeOperation = colour === null ? "destination-out" : "source-over";
    context.strokeStyle = context.fillStyle = colour ?? "#000";
    context.lineWidth = 2 * radius;
    context.beginPath();
    if (from === undefined || (from[0] === x && from[1] === y)) {
      // a line without length is not drawn
      context.arc(x, y, radius, 0, 2 * Math.PI);
      context.fill();
    } else {
      context.moveTo(from[0], from[1]);
      context.lineTo(x, y);
      context.stroke();
    }
  }
}
