/** Prompts that were drawn, presets, and what was sent last. */

import type { DrawFields } from "../api";
import { isRecord, Stored } from "../stored.svelte";
import { keepPictures, keptPictures } from "./kept-pictures";

const MOST_PROMPTS = 200;

const isTexts = (value: unknown): value is string[] =>
  Array.isArray(value) && value.every((each) => typeof each === "string");

/** What a preset leaves as it is. */
const OWN: readonly string[] = ["prompt", "seed", "image", "mask"] satisfies (keyof DrawFields)[];

const parted = (fields: DrawFields, own: boolean): DrawFields =>
  Object.fromEntries(Object.entries(fields).filter(([name]) => OWN.includes(name) === own));

/** Where the control pictures of a preset are kept. */
const picturesOf = (preset: string): string => `preset ${preset}`;

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

  /** Keep all under a name but the prompt, the seed and what is begun with. */
  async savePreset(name: string, fields: DrawFields): Promise<void> {
    const { controls, ...others } = parted(fields, false);
    const pictures = keepPictures(picturesOf(name), controls ? { controls } : null);
    // it is not listed before it is whole
    if (controls) await pictures;
    this.#presets.value = { ...this.#presets.value, [name]: others };
  }

  /** The fields of a preset, and of `fields` what presets do not hold. */
  async withPreset(name: string, fields: DrawFields): Promise<DrawFields> {
    const pictures = await keptPictures(picturesOf(name));
    return { ...this.#presets.value[name], ...pictures, ...parted(fields, true) };
  }

  /** Forget a preset; what is returned brings it back. */
  removePreset(name: string): () => void {
    const { [name]: fields = {}, ...others } = this.#presets.value;
    const pictures = keptPictures(picturesOf(name));
    this.#presets.value = others;
    void pictures.then(() => keepPictures(picturesOf(name), null));
    return () => void pictures.then((kept) => this.savePreset(name, { ...fields, ...kept }));
  }
}

export const history = new History();
