/** How the server reads the prompt that is being typed. */

import { api, ApiError, type PromptReading } from "$lib/api";
import type { Form } from "$lib/stores/form.svelte";

const PAUSE = 250;
const TEMPLATE = /[{}]|__/;

export interface PromptError {
  message: string;
  /** What was read. */
  text: string;
  position: number | null;
}

export class Reading {
  /** Of the text as typed: its characters are those of the box. */
  typed = $state.raw<PromptReading | null>(null);
  /** With styles and templates, where there are any. */
  filled = $state.raw<PromptReading | null>(null);
  error = $state.raw<PromptError | null>(null);

  /** Of the form's own text, or of `another` that is drawn with the form's model. */
  constructor(
    form: Form,
    field: "prompt" | "negative" = "prompt",
    another?: () => { prompt: string; style: string[] },
  ) {
    $effect(() => {
      const { prompt, style } = another?.() ?? {
        prompt: form.get(field) ?? "",
        style: form.get("style") ?? [],
      };
      const { model, dialect, count, templates } = form.fields;
      const given = {
        prompt,
        negative: field === "negative",
        ...(model && { model }),
        ...(dialect && { dialect }),
      };
      if (prompt === "") {
        this.#take(null, null);
        return;
      }
      const aborted = new AbortController();
      const timer = setTimeout(() => {
        const readings = [api.readPrompt({ ...given, templates: "off" }, aborted.signal)];
        if (style.length || (templates !== "off" && TEMPLATE.test(prompt)))
          readings.push(
            api.readPrompt(
              { ...given, style, ...(templates && { templates }), ...(count && { count }) },
              aborted.signal,
            ),
          );
        Promise.all(readings)
          .then(([typed, filled]) => this.#take(typed ?? null, filled ?? null))
          .catch((error: unknown) => {
            if (!(error instanceof ApiError) || error.offline) return;
            this.#take(this.typed, null, {
              message: error.message,
              text: prompt,
              position: error.position,
            });
          });
      }, PAUSE);
      return () => {
        clearTimeout(timer);
        aborted.abort();
      };
    });
  }

  #take(typed: PromptReading | null, filled: PromptReading | null, error: PromptError | null = null) {
    this.typed = typed;
    this.filled = filled;
    this.error = error;
  }
}

/** A stretch of the prompt and what it weighs; 1 is as written. */
export interface Stretch {
  text: string;
  weight: number;
  wrong: boolean;
}

/** The prompt cut where weights change, and where the error is. */
export function stretches(text: string, reading: PromptReading | null, error: PromptError | null): Stretch[] {
  // the server counts an emoji as one character, where a string has two
  const characters = Array.from(text);
  const weights = new Array<number>(characters.length).fill(1);
  if (error === null && reading !== null && reading.text === text)
    for (const term of reading.terms)
      for (const content of term.contents)
        for (const phrase of content.phrases)
          for (const chunk of phrase.chunks)
            for (const { start, end, weight } of chunk.tokens)
              if (start !== null && end !== null) weights.fill(weight * term.weight, start, end);
  const position = error?.text === text ? (error.position ?? -1) : -1;
  const wrong = Math.min(position, characters.length - 1);
  const found: Stretch[] = [];
  characters.forEach((character, index) => {
    const weight = weights[index] ?? 1;
    const last = found.at(-1);
    if (last && last.weight === weight && last.wrong === (index === wrong)) last.text += character;
    else found.push({ text: character, weight, wrong: index === wrong });
  });
  return found;
}

/** Tokens of every chunk of the longest phrase, and how many are not read. */
export function tokenCount(reading: PromptReading): { chunks: number[]; room: number; leftOut: number } {
  const phrases = reading.terms.flatMap((term) => term.contents.flatMap((content) => content.phrases));
  const counted = phrases.map((phrase) => ({
    chunks: phrase.chunks.map((chunk) => chunk.tokens.length),
    room: phrase.chunks[0]?.room ?? 0,
    leftOut: phrase.left_out,
  }));
  const size = (chunks: number[]) => chunks.reduce((sum, each) => sum + each, 0);
  return counted.reduce((most, each) => (size(each.chunks) > size(most.chunks) ? each : most), {
    chunks: [0],
    room: counted[0]?.room ?? 0,
    leftOut: 0,
  });
}
