/** Prompts that were drawn, presets, and what was sent last. */

import type { DrawFields } from "../api";
import { isRecord, Stored } from "../stored.svelte";

const MOST_PROMPTS = 200;

const isTexts = (value: unknown): value is string[] =>
  Array.isArray(value) && value.every((each) => typeof each === "string");

/** What a preset leaves as it is. */
const OWN: readonly string[] = ["prompt", "seed", "image", "mask"] satisfies (keyof DrawFields)[];

const parted = (fields: DrawFields, own: boolean): DrawFields =>
  Object.fromEntries(Object.entries(fields).filter(([name]) => OWN.includes(name) === own));

class History {
  #prompts = new Stored<string[]>("prompts", [], isTexts);
  #presets = new Stored<Record<string, DrawFields>>(
    "presets",
    {},
    (value): value is Record<string, DrawFields> => isRecord(value) && Object.values(value).every(isRecord),
  );
  #attempt: { fields: DrawFields; key: string } | null = null;

  /** The newest first. */
  get prompts(): readonly string[] {
    return this.#prompts.value;
  }

  get presets(): Readonly<Record<string, DrawFields>> {
    return this.#presets.value;
  }

  /** The idempotency key of a request: the same until it was accepted. */
  keyFor(fields: DrawFields): string {
    if (this.#attempt?.fields !== fields) this.#attempt = { fields, key: crypto.randomUUID() };
    return this.#attempt.key;
  }

  /** A request was accepted. */
  sent({ prompt }: DrawFields): void {
    this.#attempt = null;
    if (!prompt) return;
    const others = this.#prompts.value.filter((each) => each !== prompt);
    this.#prompts.value = [prompt, ...others].slice(0, MOST_PROMPTS);
  }

  /** Keep all under a name but the prompt, the seed and pictures. */
  savePreset(name: string, fields: DrawFields): void {
    this.#presets.value = { ...this.#presets.value, [name]: parted(fields, false) };
  }

  /** The fields of a preset, and of `fields` what presets do not hold. */
  withPreset(name: string, fields: DrawFields): DrawFields {
    return { ...this.#presets.value[name], ...parted(fields, true) };
  }

  removePreset(name: string): void {
    const { [name]: _, ...others } = this.#presets.value;
    this.#presets.value = others;
  }

  restorePresets(presets: Readonly<Record<string, DrawFields>>): void {
    this.#presets.value = presets;
  }
}

export const history = new History();
