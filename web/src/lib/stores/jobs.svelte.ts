/** Jobs of this server, the newest first: those of every window, and of before a restart. */

import { SvelteMap } from "svelte/reactivity";
import { api, type DrawFields, type Job, type JobState, type Picture } from "../api";
import { events, type Progress } from "../events.svelte";

const PAGE = 20;
/** Milliseconds in which new jobs are gathered before they are fetched. */
const PAUSE = 50;

export const hasEnded = (state: JobState): boolean => state !== "queued" && state !== "running";

/** The layer behind all elements of a scene. */
const BACKGROUND = "background";

/** What is one row of the queue: a job, or all jobs of a grid. */
export interface QueueRow {
  id: string;
  grid: boolean;
  jobs: readonly Job[];
}

export interface Drawing extends Progress {
  /** The last previews by the layers that they show; that of the whole picture is `""`. */
  layers: Readonly<Record<string, string>>;
  /** When the first evaluation was reported, and how many were done then: what the time left is reckoned from. */
  since: number;
  from: number;
}

class Jobs {
  all = $state.raw<readonly Job[]>([]);
  loaded = $state(false);
  /** Whether older ones may follow. */
  more = $state(true);
  /** How far the running jobs are, by their names. */
  readonly drawing = new SvelteMap<string, Drawing>();
  #fetching: Promise<void> | null = null;
  /** Priorities that are sent when those before them have arrived. */
  #unsent: Record<string, number> = {};
  /** What is on its way, until it is answered. */
  #sent: Record<string, number> = {};
  /** Ends what is on its way when the page goes, which then sends all of it. */
  #leaving = new AbortController();
  #sending: Promise<void> | null = null;
  #looking = false;

  /** Jobs of which nothing is drawn yet, in the order in which they will be. */
  waiting = $derived(inOrder(this.all.filter((job) => this.waits(job))));
  queue = $derived(queueOf(this.waiting));

  /** How much of what is being drawn is done, from 0 to 1, of grids with all their pictures; null while nothing is. */
  share = $derived.by(() => {
    const running = this.all.filter(({ id }) => this.drawing.has(id));
    const groups = new Set(running.map(({ group }) => group ?? null));
    const counted = this.all.filter(
      (job) => this.drawing.has(job.id) || (job.group && groups.has(job.group)),
    );
    const count = counted.reduce((sum, job) => sum + job.count, 0);
    const done = counted.reduce((sum, job) => {
      const drawing = this.drawing.get(job.id);
      return sum + job.pictures.length + (drawing ? drawing.done / Math.max(drawing.total, 1) : 0);
    }, 0);
    return running.length === 0 ? null : Math.min(done / count, 1);
  });

  /** Seeds that several of them have. */
  sharedSeeds = $derived.by(() => {
    const seeds = this.all.map(({ request }) => Number(request["seed"])).sort((a, b) => a - b);
    return new Set(seeds.filter((seed, index) => seed === seeds[index - 1]));
  });

  /** Follow the server until the function that is returned is called. */
  start(): () => void {
    const stops = [
      events.onOpen(() => void this.refresh().catch(() => undefined)),
      events.on("state", ({ job, state, priority, ...event }) => {
        if (hasEnded(state)) this.drawing.delete(job);
        const known = this.find(job);
        // who ended is fetched whole; those that another window submitted come many at a time
        if (hasEnded(state)) void this.#fetch(job);
        else if (known === undefined) this.#look();
        if (known !== undefined)
          this.#put({
            ...known,
            state,
            // what is told of an order that is being sent is of the one before
            priority: this.#sending !== null ? known.priority : (priority ?? known.priority),
            ...(event.error && { error: event.error }),
          });
      }),
      events.on("progress", ({ job, progress }) => this.#progress(job, progress)),
      events.on("picture", ({ job, picture }) => {
        const known = this.find(job);
        if (known !== undefined) this.#put({ ...known, pictures: withPicture(known.pictures, picture) });
      }),
      events.on("picture_changed", ({ picture }) => this.changed(picture)),
    ];
    const leave = () => {
      if (Object.keys(this.#unsent).length === 0) return;
      // one order and not two, which could arrive in the wrong order
      this.#leaving.abort();
      this.#leaving = new AbortController();
      void api.prioritise({ ...this.#sent, ...this.#taken() }).catch(() => undefined);
    };
    window.addEventListener("pagehide", leave);
    return () => {
      window.removeEventListener("pagehide", leave);
      stops.forEach((stop) => stop());
    };
  }

  find(job: string): Job | undefined {
    return this.all.find((each) => each.id === job);
  }

  /** Whether its turn has not come: also in a worker, which holds many jobs at once. */
  waits(job: Job): boolean {
    return !hasEnded(job.state) && job.pictures.length === 0 && !this.drawing.has(job.id);
  }

  async draw(request: DrawFields, key?: string): Promise<Job> {
    const job = await api.draw(request, key);
    this.#put(this.find(job.id) ?? job);
    return job;
  }

  /** Draw what the request of a job makes, as the server has it. */
  async drawFrom(job: string, made: (request: Job["request"]) => DrawFields): Promise<Job> {
    return this.draw(made((await api.job(job)).request));
  }

  async cancel(job: string): Promise<void> {
    this.#put(await api.cancel(job));
    this.drawing.delete(job);
  }

  /** Have the waiting jobs drawn in this order. */
  async reorder(order: readonly Job[]): Promise<void> {
    const changed = priorities(order).filter(([job, priority]) => job.priority !== priority);
    // shown at once, and sent one order after another
    for (const [job, priority] of changed) {
      this.#put({ ...job, priority });
      this.#unsent[job.id] = priority;
    }
    this.#sending ??= this.#send().finally(() => (this.#sending = null));
    await this.#sending;
  }

  async #send(): Promise<void> {
    try {
      while (Object.keys(this.#unsent).length > 0) {
        this.#sent = this.#taken();
        await api.prioritise(this.#sent, this.#leaving.signal);
        this.#sent = {};
      }
    } catch (error) {
      this.#taken();
      await this.refresh().catch(() => undefined);
      throw error;
    }
  }

  #taken(): Record<string, number> {
    const taken = this.#unsent;
    this.#unsent = {};
    return taken;
  }

  /** Fetch the newest jobs and those that are not over, however old. */
  async refresh(): Promise<void> {
    const [newest, open] = await Promise.all([
      api.jobs({ limit: PAGE }),
      api.jobs({ state: ["queued", "running"], limit: 200 }),
    ]);
    const fresh = new Map([...newest, ...open].map((job) => [job.id, job]));
    // what was open here and is not among the open ones has ended, or was never accepted
    const kept = this.all.filter((job) => !fresh.has(job.id) && hasEnded(job.state));
    this.all = sorted([...fresh.values(), ...kept]);
    for (const id of this.drawing.keys()) if (fresh.get(id)?.state !== "running") this.drawing.delete(id);
    if (!this.loaded) this.more = newest.length === PAGE;
    this.loaded = true;
  }

  /** Fetch older jobs. */
  older(): Promise<void> {
    this.#fetching ??= this.#older().finally(() => (this.#fetching = null));
    return this.#fetching;
  }

  /** A picture was changed: show it so. */
  changed(picture: Picture): void {
    const job = this.find(picture.job);
    if (job === undefined) return;
    const pictures = job.pictures.map((each) => (each.id === picture.id ? picture : each));
    this.#put({ ...job, pictures });
  }

  async #older(): Promise<void> {
    const last = this.all.at(-1);
    if (!this.more || last === undefined) return;
    const found = await api.jobs({ before: last.id, limit: PAGE });
    this.more = found.length === PAGE;
    this.all = sorted([...this.all, ...found.filter((job) => this.find(job.id) === undefined)]);
  }

  /** Fetch what is new, soon and once. */
  #look(): void {
    if (this.#looking) return;
    this.#looking = true;
    setTimeout(() => {
      this.#looking = false;
      void this.refresh().catch(() => undefined);
    }, PAUSE);
  }

  async #fetch(job: string): Promise<void> {
    try {
      this.#put(await api.job(job));
    } catch {
      // it comes with the next refresh
    }
  }

  #progress(job: string, progress: Progress): void {
    const known = this.drawing.get(job);
    // the next picture has times of its own, and so has a job that begins anew after a crash
    const before = known !== undefined && progress.done < known.done ? undefined : known;
    const layers = {
      ...(known?.number === progress.number ? known.layers : {}),
      ...(progress.preview !== undefined && { [progress.layer ?? ""]: progress.preview }),
    };
    const preview = layers[""] ?? layers[BACKGROUND];
    this.drawing.set(job, {
      ...progress,
      layers,
      ...(preview === undefined ? {} : { preview }),
      since: before?.since ?? performance.now(),
      from: before?.from ?? progress.done,
    });
  }

  #put(job: Job): void {
    this.all = this.find(job.id)
      ? this.all.map((each) => (each.id === job.id ? job : each))
      : sorted([job, ...this.all]);
  }
}

const byRank = (a: Job, b: Job): number => a.rank - b.rank || a.created - b.created;

const inOrder = (jobs: Job[]): Job[] => jobs.sort((a, b) => b.priority - a.priority || byRank(a, b));

/** Jobs that wait as rows, each where its first one stands. */
export function queueOf(waiting: readonly Job[]): QueueRow[] {
  // eslint-disable-next-line svelte/prefer-svelte-reactivity -- it lives within this call
  const rows = new Map<string, Job[]>();
  for (const job of waiting) {
    const id = job.group ?? job.id;
    const row = rows.get(id);
    if (row === undefined) rows.set(id, [job]);
    else row.push(job);
  }
  return [...rows].map(([id, jobs]) => ({ id, grid: jobs[0]?.group != null, jobs }));
}

const MOST_PRIORITY = 10;

/**
 * The lowest priorities from 0 that have jobs drawn in this order. Each has its own; where they are too many,
 * those that follow one another by rank share one.
 */
export function priorities(order: readonly Job[]): [Job, number][] {
  const each = order.length <= MOST_PRIORITY + 1;
  let priority = 0;
  return order
    .map((job, index): [Job, Job | undefined] => [job, order[index + 1]])
    .reverse()
    .map(([job, after]): [Job, number] => {
      if (after !== undefined && (each || byRank(job, after) > 0))
        priority = Math.min(priority + 1, MOST_PRIORITY);
      return [job, priority];
    })
    .reverse();
}

const sorted = (jobs: Job[]): Job[] => jobs.sort((a, b) => b.created - a.created);

export function withPicture(pictures: readonly Picture[], picture: Picture): Picture[] {
  const others = pictures.filter((each) => each.id !== picture.id);
  return [...others, picture].sort((a, b) => a.number - b.number);
}

/** Seconds until a picture of a running job is drawn, or null where it cannot be said yet. */
export function secondsLeft(drawing: Drawing, now: number): number | null {
  const done = drawing.done - drawing.from;
  if (done <= 0) return null;
  return ((now - drawing.since) / 1000 / done) * (drawing.total - drawing.done);
}

export const jobs = new Jobs();
