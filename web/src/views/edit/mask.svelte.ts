/** The mask that is painted over a picture, in its pixels, with every stroke to be taken back. */

import type { Point } from "$lib/view";
import { flooded, inverted, isEmpty, packed, unpacked, type Bytes, type Runs } from "./pixels";

/** Seen well on most pictures; how much of it shines through is the style's. */
const COLOUR = { red: 61, green: 90, blue: 254 };
const MOST_STEPS_BACK = 100;

export class Mask {
  readonly canvas: HTMLCanvasElement;
  empty = $state(true);
  /** Counts the changes. */
  changes = $state(0);
  #context: CanvasRenderingContext2D;
  #back = $state.raw<readonly Runs[]>([]);
  #forward = $state.raw<readonly Runs[]>([]);
  #before: Runs | null = null;

  constructor(
    readonly width: number,
    readonly height: number,
  ) {
    this.canvas = document.createElement("canvas");
    this.canvas.width = width;
    this.canvas.height = height;
    const context = this.canvas.getContext("2d", { willReadFrequently: true });
    if (context === null) throw new Error("no canvas");
    this.#context = context;
    context.lineCap = "round";
  }

  get canUndo(): boolean {
    return this.#back.length > 0;
  }

  get canRedo(): boolean {
    return this.#forward.length > 0;
  }

  /** A mask that was kept. */
  static of(width: number, height: number, runs: Runs): Mask {
    const mask = new Mask(width, height);
    mask.#write(unpacked(runs));
    return mask;
  }

  /** What `of` makes it from. */
  get runs(): Runs {
    return packed(this.#read());
  }

  /** Begin a stroke: what is painted until `end` is one step back. */
  begin(): void {
    this.#before = packed(this.#read());
  }

  paint(from: Point, to: Point, radius: number, erase: boolean): void {
    const context = this.#context;
    context.globalCompositeOperation = erase ? "destination-out" : "source-over";
    context.strokeStyle = context.fillStyle = `rgb(${COLOUR.red} ${COLOUR.green} ${COLOUR.blue})`;
    context.lineWidth = 2 * radius;
    context.beginPath();
    if (from.x === to.x && from.y === to.y) {
      // a line without length is not drawn
      context.arc(to.x, to.y, radius, 0, 2 * Math.PI);
      context.fill();
    } else {
      context.moveTo(from.x, from.y);
      context.lineTo(to.x, to.y);
      context.stroke();
    }
  }

  end(): void {
    if (this.#before === null) return;
    this.#remember(this.#before);
    this.#before = null;
    this.empty = isEmpty(this.#read());
    this.changes++;
  }

  /** Take back the stroke that was begun. */
  abandon(): void {
    if (this.#before !== null) this.#write(unpacked(this.#before));
    this.#before = null;
  }

  fill(at: Point): void {
    this.#become((mask) => flooded(mask, this.width, Math.floor(at.x), Math.floor(at.y)));
  }

  invert(): void {
    this.#become(inverted);
  }

  clear(): void {
    if (!this.empty) this.#become((mask) => new Uint8ClampedArray(mask.length));
  }

  undo(): void {
    const before = this.#back.at(-1);
    if (before === undefined) return;
    this.#back = this.#back.slice(0, -1);
    this.#forward = [...this.#forward, packed(this.#read())];
    this.#write(unpacked(before));
  }

  redo(): void {
    const after = this.#forward.at(-1);
    if (after === undefined) return;
    this.#forward = this.#forward.slice(0, -1);
    this.#back = [...this.#back, packed(this.#read())];
    this.#write(unpacked(after));
  }

  /** As a request has it: white is drawn anew, black is kept. */
  picture(): HTMLCanvasElement {
    const canvas = document.createElement("canvas");
    canvas.width = this.width;
    canvas.height = this.height;
    const data = new ImageData(this.width, this.height);
    this.#read().forEach((value, index) => data.data.set([value, value, value, 255], 4 * index));
    canvas.getContext("2d")?.putImageData(data, 0, 0);
    return canvas;
  }

  #become(change: (mask: Bytes) => Bytes): void {
    const before = this.#read();
    this.#remember(packed(before));
    this.#write(change(before));
  }

  #remember(before: Runs): void {
    this.#back = [...this.#back, before].slice(-MOST_STEPS_BACK);
    this.#forward = [];
  }

  #read(): Bytes {
    const { data } = this.#context.getImageData(0, 0, this.width, this.height);
    const mask = new Uint8ClampedArray(data.length / 4);
    for (let at = 0; at < mask.length; at++) mask[at] = data[4 * at + 3] ?? 0;
    return mask;
  }

  #write(mask: Bytes): void {
    const { red, green, blue } = COLOUR;
    const data = new ImageData(this.width, this.height);
    for (let at = 0; at < mask.length; at++) data.data.set([red, green, blue, mask[at] ?? 0], 4 * at);
    this.#context.putImageData(data, 0, 0);
    this.empty = isEmpty(mask);
    this.changes++;
  }
}
