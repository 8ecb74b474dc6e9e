/** What happens on the server, as it happens, and whether the server is there at all. */

import { reachability, type JobState, type Picture } from "./api";

export interface Progress {
  number: number;
  done: number;
  total: number;
  /** A WebP file in base64: of the whole picture, or of the layer of a scene that is named. */
  preview?: string;
  layer?: string;
}

export interface ServerEvents {
  /** With its `group` where it is a new job of a grid. */
  state: { job: string; group?: string; state: JobState; priority?: number; error?: string | null };
  progress: { job: string; progress: Progress };
  picture: { job: string; picture: Picture };
  picture_changed: { job: string; picture: Picture };
}

type Kind = keyof ServerEvents;
type Handlers = { [K in Kind]: Set<(event: ServerEvents[K]) => void> };

const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 5000;
const ADDRESS = "/api/v1/events?previews=true";

class Events {
  /** `starting` until the first answer; `offline` while the server does not answer. */
  state = $state<"starting" | "online" | "offline">("starting");
  #source: EventSource | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #pause = FIRST_PAUSE;
  #handlers: Handlers = {
    state: new Set(),
    progress: new Set(),
    picture: new Set(),
    picture_changed: new Set(),
  };
  #onOpen = new Set<() => void>();

  /** Listen until the function that is returned is called. */
  start(): () => void {
    reachability.heard = (answered) => {
      if (!answered) this.#lose();
    };
    const wake = () => {
      if (this.state === "offline") this.retry();
    };
    window.addEventListener("online", wake);
    document.addEventListener("visibilitychange", wake);
    this.#open();
    return () => {
      window.removeEventListener("online", wake);
      document.removeEventListener("visibilitychange", wake);
      reachability.heard = () => undefined;
      this.#close();
    };
  }

  on<K extends Kind>(kind: K, handler: (event: ServerEvents[K]) => void): () => void {
    this.#handlers[kind].add(handler);
    return () => this.#handlers[kind].delete(handler);
  }

  /** Called whenever the connection is made, at first and again: what was missed meanwhile is to be fetched. */
  onOpen(handler: () => void): () => void {
    this.#onOpen.add(handler);
    if (this.state === "online") handler();
    return () => this.#onOpen.delete(handler);
  }

  /** Try now, not after the pause. */
  retry(): void {
    this.#pause = FIRST_PAUSE;
    this.#open();
  }

  #open(): void {
    this.#close();
    const source = new EventSource(ADDRESS);
    this.#source = source;
    source.onopen = () => {
      this.#pause = FIRST_PAUSE;
      this.state = "online";
      for (const handler of this.#onOpen) handler();
    };
    source.onerror = () => this.#lose();
    for (const kind of Object.keys(this.#handlers) as Kind[])
      source.addEventListener(kind, (message: MessageEvent<string>) => {
        const event: unknown = JSON.parse(message.data);
        for (const handler of this.#handlers[kind]) (handler as (event: unknown) => void)(event);
      });
  }

  #lose(): void {
    this.#close();
    this.state = "offline";
    this.#timer = setTimeout(() => this.#open(), this.#pause);
    this.#pause = Math.min(this.#pause * 2, LONGEST_PAUSE);
  }

  #close(): void {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
  }
}

export const events = new Events();
