/** Live drawing: a picture that follows the form, and of which nothing is stored unless it is kept. */

import { api, ApiError, type DrawFields } from "$lib/api";
import { events } from "$lib/events.svelte";
import { t } from "$lib/i18n.svelte";
import { randomSeed } from "$lib/request";
import { router } from "$lib/router.svelte";
import { form } from "$lib/stores/form.svelte";
import { history } from "$lib/stores/history.svelte";
import { jobs } from "$lib/stores/jobs.svelte";
import { library } from "$lib/stores/library.svelte";
import { Stored } from "$lib/stored.svelte";
import { Latest, type Task } from "./latest";
import { liveFields, stepRange } from "./fields";

/** What is wrong is told after so many milliseconds: who types has words that are half written. */
const PATIENCE = 600;
/** A longer pause than this is told in the server's own words. */
const SHORT_PAUSE = 60;

interface Shown {
  source: string;
  width: number;
  height: number;
  fields: DrawFields;
  milliseconds: number;
  /** The idempotency key of the job that keeps it. */
  key: string;
}

interface Trouble {
  text: string;
  /** Whether the request is at fault, and not the server. */
  error: boolean;
}

class Live {
  /** The last picture that was drawn. */
  shown = $state.raw<Shown | null>(null);
  /** How much of the next one is done, or null while none is drawn. */
  share = $state<number | null>(null);
  /** Why the picture does not follow; the last one stays. */
  trouble = $state.raw<Trouble | null>(null);
  kept = $state(false);
  #seed = $state(randomSeed());
  #steps = new Stored<number>("live.steps", 0, (value): value is number => typeof value === "number");
  #latest = new Latest<DrawFields>((task) => this.#draw(task));
  #asked = "";
  #timer: ReturnType<typeof setTimeout> | undefined;

  readonly model = $derived(library.model(form.get("model")));
  readonly range = $derived(this.model && stepRange(this.model));

  /** Whether it is on: in the address, so that it survives a reload and other windows are none of its business. */
  get on(): boolean {
    return router.query.has("live");
  }

  get steps(): number {
    if (this.range === undefined) return 0;
    const { least, most, usual } = this.range;
    return Math.min(Math.max(this.#steps.value || usual, least), most);
  }

  set steps(value: number) {
    this.#steps.value = value;
  }

  get seed(): number {
    return form.get("seed") ?? this.#seed;
  }

  /** The form as it is drawn with all steps: with the seed of the live picture. */
  get full(): DrawFields {
    return { seed: this.seed, ...form.fields };
  }

  toggle(): void {
    router.search({ live: this.on ? null : "1" });
  }

  /** Another picture of the same words. */
  roll(): void {
    if (form.get("seed") === undefined) this.#seed = randomSeed();
    else form.set({ seed: randomSeed() });
  }

  /** Be ready to draw until the function that is returned is called. */
  start(): () => void {
    const stop = events.onOpen(() => this.#latest.resume());
    return () => {
      stop();
      this.#asked = "";
      this.#latest.clear();
      this.#tell(null);
      this.shown = null;
    };
  }

  /** Draw what the form says now, if that is something new: in an effect, with every change. */
  follow(): void {
    const model = this.model;
    if (model === undefined) return;
    const fields = liveFields(form.fields, model, this.steps, this.seed);
    const asked = fields.prompt?.trim() ? JSON.stringify(fields) : "";
    if (asked === this.#asked) return;
    this.#asked = asked;
    if (asked !== "") this.#latest.want(fields);
    else {
      this.#tell(null);
      this.#latest.clear();
    }
  }

  /** Draw the picture once more as a job, which stores it. */
  async keep(): Promise<void> {
    if (this.shown === null || this.kept) return;
    const { fields, key } = this.shown;
    await jobs.draw(fields, key);
    history.sent(fields);
    if (this.shown.key === key) this.kept = true;
  }

  async #draw({ value, signal }: Task<DrawFields>): Promise<boolean> {
    const began = performance.now();
    this.share = 0;
    try {
      const drawn = await api.drawUnstored(value, signal, (share) => (this.share = share));
      const source = `data:image/png;base64,${drawn.content}`;
      // decoded before it is shown, so that nothing flickers
      const image = new Image();
      image.src = source;
      await image.decode();
      if (signal.aborted) return false;
      const { width, height } = drawn;
      const milliseconds = Math.round(performance.now() - began);
      this.shown = { source, width, height, fields: value, milliseconds, key: crypto.randomUUID() };
      this.kept = false;
      this.#tell(null);
      return true;
    } catch (error) {
      if (signal.aborted) return false;
      if (!(error instanceof ApiError)) throw error;
      this.#fail(error, value);
      return false;
    } finally {
      this.share = null;
    }
  }

  #tell(trouble: Trouble | null, after = 0): void {
    clearTimeout(this.#timer);
    if (after === 0) this.trouble = trouble;
    else this.#timer = setTimeout(() => (this.trouble = trouble), after);
  }

  /** A server that cannot now is waited for; what is wrong with the request is told. */
  #fail(error: ApiError, value: DrawFields): void {
    const busy = error.status === 429 || error.status >= 500;
    if (!busy && !error.offline) {
      this.#tell({ text: error.message, error: true }, PATIENCE);
      return;
    }
    const seconds = error.retryAfter ?? 1;
    const text = error.offline ? t("live.offline") : seconds > SHORT_PAUSE ? error.message : t("live.full");
    this.#tell({ text, error: false });
    this.#latest.pause();
    this.#latest.retry(value);
    if (busy) setTimeout(() => this.#latest.resume(), seconds * 1000);
  }
}

export const live = new Live();
