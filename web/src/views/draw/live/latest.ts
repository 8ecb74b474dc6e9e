/** Runs one task at a time, always for the latest value: what came between is left out. */

/** A task that ends within so many milliseconds is not given up for a newer value. */
const NEARLY = 250;
/** Results come at least this often, in times that one takes, however quickly values follow each other. */
const MOST_WAIT = 2;
/** The part of the time of a task within which no second one is given up: a hand paints quicker than a server cancels. */
const RESPITE = 0.5;

export interface Task<T> {
  value: T;
  signal: AbortSignal;
}

export class Latest<T> {
  #next: { value: T } | null = null;
  #running: { abort: AbortController; began: number } | null = null;
  /** When the first value came that no result is there for. */
  #since: number | null = null;
  #usual = NEARLY;
  #gaveUp = -Infinity;
  #paused = false;

  constructor(
    /** Resolves to whether there is a result; a rejection stops nothing and is its own affair. */
    private readonly task: (task: Task<T>) => Promise<boolean>,
    private readonly now: () => number = () => performance.now(),
  ) {}

  /** Have the task done for a value. One that runs for an older value is given up, unless it is nearly done. */
  want(value: T): void {
    this.#next = { value };
    this.#since ??= this.now();
    if (this.#running === null) void this.#run();
    else if (this.#givesUp(this.#running.began)) {
      this.#gaveUp = this.now();
      this.#running.abort.abort();
    }
  }

  /** Have the task done again for a value that it failed for, unless there is a newer one. */
  retry(value: T): void {
    this.#next ??= { value };
  }

  /** Begin nothing until `resume`; the latest value is kept. */
  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    if (this.#running === null) void this.#run();
  }

  /** Forget everything, and give up what runs. */
  clear(): void {
    this.#next = this.#since = null;
    this.#running?.abort.abort();
  }

  #givesUp(began: number): boolean {
    const now = this.now();
    const nearly = Math.abs(began + this.#usual - now) <= NEARLY;
    const overdue = now - (this.#since ?? now) >= MOST_WAIT * this.#usual;
    const hasty = now - this.#gaveUp < RESPITE * this.#usual;
    return !nearly && !overdue && !hasty;
  }

  async #run(): Promise<void> {
    while (this.#next !== null && !this.#paused) {
      const { value } = this.#next;
      const began = this.now();
      const abort = new AbortController();
      this.#next = null;
      this.#running = { abort, began };
      const came = await this.task({ value, signal: abort.signal }).catch(() => false);
      if (came) {
        this.#usual = this.now() - began;
        this.#since = this.#next === null ? null : this.now();
      }
      this.#running = null;
    }
  }
}
