/** The steps of an edit: the picture that was begun with, and what was made of it. Kept while the window is open. */

import { isRecord } from "$lib/stored.svelte";

export interface Step {
  /** A picture of the server's, or the name of a file that was opened here. */
  id: string;
  /** What it was made from. */
  from: string | null;
}

const NAME = "sfumato.edit";
/** Addresses of files that were opened here: `/edit/new` is a place to open one. */
const OPENED = "new";

const isStep = (value: unknown): value is Step => isRecord(value) && typeof value["id"] === "string";

function kept(): Step[] {
  try {
    const value: unknown = JSON.parse(sessionStorage.getItem(NAME) ?? "[]");
    return Array.isArray(value) ? value.filter(isStep).filter((step) => !step.id.startsWith(OPENED)) : [];
  } catch {
    return [];
  }
}

class Steps {
  all = $state.raw<readonly Step[]>(kept());
  #files = new Map<string, string>();

  /** The address of the bytes of a file that was opened here, `null` if this window has none of the name. */
  file(id: string): string | null {
    return this.#files.get(id) ?? null;
  }

  isFile(id: string): boolean {
    return id.startsWith(OPENED);
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

  #become(steps: readonly Step[]): void {
    this.all = steps;
    try {
      sessionStorage.setItem(NAME, JSON.stringify(steps));
    } catch {
      // they live as long as the page
    }
  }
}

export const steps = new Steps();
