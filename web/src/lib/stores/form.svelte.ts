/** What the composer holds: the fields of a request that differ from the model's wishes. Every change can be undone. */

import type { DrawFields } from "../api";
import { isRecord, Stored } from "../stored.svelte";
import { keepPictures, keptPictures } from "./kept-pictures";

const MOST_STEPS_BACK = 100;
/** Changes of one field within so many milliseconds are one step back. */
const TOGETHER = 1000;

/** Pictures are kept apart: they are too large for the browser's storage. */
const PICTURES: readonly (keyof DrawFields)[] = ["image", "mask", "controls"];

const parted = (fields: DrawFields, pictures: boolean): DrawFields =>
  Object.fromEntries(
    Object.entries(fields).filter(([name]) => PICTURES.includes(name as keyof DrawFields) === pictures),
  );

/** `fields` without those that say nothing. */
export function tidied(fields: DrawFields): DrawFields {
  const says = (value: unknown) =>
    value !== undefined && value !== null && value !== "" && !(Array.isArray(value) && value.length === 0);
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => says(value)));
}

export class Form {
  #fields = $state.raw<DrawFields>({});
  #back = $state.raw<readonly DrawFields[]>([]);
  #forward = $state.raw<readonly DrawFields[]>([]);
  #last: { part: string; at: number } | null = null;
  #stored: Stored<DrawFields>;

  constructor(private readonly name = "form") {
    this.#stored = new Stored<DrawFields>(name, {}, (value): value is DrawFields => isRecord(value), {
      shared: false, // what one window writes does not change under the hands of another
    });
    this.#fields = this.#stored.value;
    const begun = this.#fields;
    void keptPictures(name).then((pictures) => {
      // what was changed meanwhile counts, and with it whether there is a picture
      if (PICTURES.every((each) => this.#fields[each] === begun[each]))
        this.#fields = { ...pictures, ...this.#fields };
    });
  }

  /** The fields that say something. */
  get fields(): DrawFields {
    return this.#fields;
  }

  get canUndo(): boolean {
    return this.#back.length > 0;
  }

  get canRedo(): boolean {
    return this.#forward.length > 0;
  }

  get<K extends keyof DrawFields>(name: K): DrawFields[K] | undefined {
    return this.#fields[name];
  }

  /** Change some fields; `undefined` gives one back to the model. Changes of one `part` follow each other as one. */
  set(
    change: { [K in keyof DrawFields]?: DrawFields[K] | undefined },
    part = Object.keys(change).join(),
  ): void {
    const now = Date.now();
    const goesOn = this.#last?.part === part && now - this.#last.at < TOGETHER;
    this.#last = { part, at: now };
    this.#become(tidied({ ...this.#fields, ...change } as DrawFields), goesOn);
  }

  /** Take over other fields in place of all that are here. */
  replace(fields: DrawFields): void {
    this.#last = null;
    this.#become(tidied(fields), false);
  }

  undo(): void {
    const before = this.#back.at(-1);
    if (before === undefined) return;
    this.#back = this.#back.slice(0, -1);
    this.#forward = [...this.#forward, this.#fields];
    this.#keep(before);
  }

  redo(): void {
    const after = this.#forward.at(-1);
    if (after === undefined) return;
    this.#forward = this.#forward.slice(0, -1);
    this.#back = [...this.#back, this.#fields];
    this.#keep(after);
  }

  #become(fields: DrawFields, goesOn: boolean): void {
    if (!goesOn) this.#back = [...this.#back, this.#fields].slice(-MOST_STEPS_BACK);
    this.#forward = [];
    this.#keep(fields);
  }

  #keep(fields: DrawFields): void {
    const changed = PICTURES.some((each) => fields[each] !== this.#fields[each]);
    this.#fields = fields;
    this.#stored.value = parted(fields, false);
    if (changed) void keepPictures(this.name, parted(fields, true));
  }
}

export const form = new Form();
