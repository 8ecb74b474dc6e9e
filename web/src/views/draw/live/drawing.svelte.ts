/** Pictures that follow what one does, of which nothing is stored unless it is kept. */

import { untrack } from "svelte";
import { api, ApiError, type DrawFields, type Model } from "$lib/api";
import { events } from "$lib/events.svelte";
import { t } from "$lib/i18n.svelte";
import { randomSeed } from "$lib/request";
import { Stored } from "$lib/stored.svelte";
import { Latest, type Task } from "./latest";
import { stepRange } from "./fields";

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

/** What is drawn live. */
interface Subject {
  model: () => Model | undefined;
  /** The seed, where it is locked. */
  seed: () => number | undefined;
  lock: (seed: number) => void;
  /** Draw a picture once more as a job, which stores it. */
  keep: (fields: DrawFields, key: string) => Promise<unknown>;
}

const steps = new Stored<number>("live.steps", 0, (value): value is number => typeof value === "number");

export class LiveDrawing {
  /** The last picture that was drawn. */
  shown = $state.raw<Shown | null>(null);
  /** How much of the next one is done, or null while none is drawn. */
  share = $state<number | null>(null);
  /** Why the picture does not follow; the last one stays. */
  trouble = $state.raw<Trouble | null>(null);
  kept = $state(false);
  #seed = $state(randomSeed());
  #latest = new Latest<() => DrawFields>((task) => this.#draw(task));
  #asked = "";
  #timer: ReturnType<typeof setTimeout> | undefined;

  readonly model = $derived.by(() => this.subject.model());
  readonly range = $derived(this.model && stepRange(this.model));

  constructor(private readonly subject: Subject) {}

  get steps(): number {
    if (this.range === undefined) return 0;
    const { least, most, usual } = this.range;
    return Math.min(Math.max(steps.value || usual, least), most);
  }

  set steps(value: number) {
    steps.value = value;
  }

  get seed(): number {
    return this.subject.seed() ?? this.#seed;
  }

  /** Another picture of the same. */
  roll(): void {
    if (this.subject.seed() === undefined) this.#seed = randomSeed();
    else this.subject.lock(randomSeed());
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

  /** Draw what `made` gives when its turn comes, if `key` is another than before; `""` is nothing to draw. */
  want(key: string, made: () => DrawFields): void {
    if (key === this.#asked) return;
    this.#asked = key;
    // what is read to draw it is not what an effect that wants it depends on
    untrack(() => {
      if (key !== "") this.#latest.want(made);
      else {
        this.#tell(null);
        this.#latest.clear();
      }
    });
  }

  async keep(): Promise<void> {
    if (this.shown === null || this.kept) return;
    const { fields, key } = this.shown;
    await this.subject.keep(fields, key);
    if (this.shown?.key === key) this.kept = true;
  }

  async #draw({ value, signal }: Task<() => DrawFields>): Promise<boolean> {
    const began = performance.now();
    this.share = 0;
    try {
      const fields = value();
      const drawn = await api.drawUnstored(fields, signal, (share) => (this.share = share));
      const source = `data:image/${drawn.frames ? "webp" : "png"};base64,${drawn.content}`;
      // decoded before it is shown, so that nothing flickers
      const image = new Image();
      image.src = source;
      await image.decode();
      if (signal.aborted) return false;
      const { width, height } = drawn;
      const milliseconds = Math.round(performance.now() - began);
      this.shown = { source, width, height, fields, milliseconds, key: crypto.randomUUID() };
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
  #fail(error: ApiError, made: () => DrawFields): void {
    const busy = error.status === 429 || error.status >= 500;
    if (!busy && !error.offline) {
      this.#tell({ text: error.message, error: true }, PATIENCE);
      return;
    }
    const seconds = error.retryAfter ?? 1;
    const text = error.offline ? t("live.offline") : seconds > SHORT_PAUSE ? error.message : t("live.full");
    this.#tell({ text, error: false });
    this.#latest.pause();
    this.#latest.retry(made);
    if (busy) setTimeout(() => this.#latest.resume(), seconds * 1000);
  }
}
