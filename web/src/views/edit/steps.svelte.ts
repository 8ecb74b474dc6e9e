/** The steps of an edit: the picture that was begun with, and what was made of it. Kept while the window is open. */

import { isRecord, Stored } from "$lib/stored.svelte";
import type { Size } from "$lib/view";
import type { Edges } from "./geometry";

export interface Step {
  /** A picture of the server's, or the name of a file that was opened here. */
  id: string;
  /** What it was made from. */
  from: string | null;
}

/** A job whose pictures are the next steps. */
interface Pending {
  job: string;
  from: string;
  /** By how much it is larger. */
  edges: Edges;
}

/** Addresses of files that were opened here: `/edit/new` is a place to open one. */
const OPENED = "new";
/** An empty canvas, which a reload makes anew. */
const EMPTY = /^empty-(\d{1,4})x(\d{1,4})$/;

export const emptyCanvas = ({ width, height }: Size): string => `empty-${width}x${height}`;

/** The address of a white picture of the size that its name says, `null` for other names. */
function whiteAs(id: string): string | null {
  const [, width = "", height = ""] = EMPTY.exec(id) ?? [];
  if (!Number(width) || !Number(height)) return null;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [Number(width), Number(height)];
  const context = canvas.getContext("2d");
  if (context === null) return null;
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  return canvas.toDataURL();
}

const isStep = (value: unknown): value is Step => isRecord(value) && typeof value["id"] === "string";
const areSteps = (value: unknown): value is readonly Step[] => Array.isArray(value) && value.every(isStep);
const isPending = (value: unknown): value is Pending | null =>
  value === null ||
  (isRecord(value) &&
    [value["job"], value["from"]].every((each) => typeof each === "string") &&
    isRecord(value["edges"]));

class Steps {
  #kept = new Stored<readonly Step[]>("edit", [], areSteps, { session: true });
  #pending = new Stored<Pending | null>("edit.pending", null, isPending, { session: true });
  // files that were opened here are gone with the page
  all = $state.raw<readonly Step[]>(this.#kept.value.filter(({ id }) => !id.startsWith(OPENED)));
  #files = new Map<string, string>();

  /** The address of a picture that the server does not have, `null` if this window has none of the name. */
  file(id: string): string | null {
    return this.#files.get(id) ?? whiteAs(id);
  }

  isFile(id: string): boolean {
    return id.startsWith(OPENED) || EMPTY.test(id);
  }

  /** A name for a file, under which it can be edited. */
  open(file: Blob): string {
    const id = `${OPENED}-${this.#files.size + 1}`;
    this.#files.set(id, URL.createObjectURL(file));
    return id;
  }

  /** Begin with a picture, unless it is one of the steps. */
  begin(id: string): void {
    if (this.all.every((step) => step.id !== id)) this.#become([{ id, from: null }]);
  }

  add(ids: readonly string[], from: string): void {
    const fresh = ids.filter((id) => this.all.every((step) => step.id !== id));
    this.#become([...this.all, ...fresh.map((id) => ({ id, from }))]);
  }

  /** What a step was made from. */
  before(id: string): string | null {
    return this.all.find((step) => step.id === id)?.from ?? null;
  }

  get pending(): Pending | null {
    return this.#pending.value;
  }

  set pending(pending: Pending | null) {
    this.#pending.value = pending;
  }

  #become(steps: readonly Step[]): void {
    this.all = steps;
    this.#kept.value = steps;
  }
}

export const steps = new Steps();
