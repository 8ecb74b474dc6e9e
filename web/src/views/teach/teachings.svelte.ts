/** What is taught on the server, looked at while the view is open: often while something is learned. */

import { api, type Teaching } from "$lib/api";
import { events } from "$lib/events.svelte";
import { library } from "$lib/stores/library.svelte";

const PAUSE = 1000;

export const isOpen = ({ state }: Teaching): boolean => state === "queued" || state === "running";

class Teachings {
  /** The newest first; `null` until the server has said. */
  all = $state.raw<readonly Teaching[] | null>(null);
  #timer: ReturnType<typeof setTimeout> | undefined;
  #watched = false;

  /** Look until the function that is returned is called. */
  watch(): () => void {
    this.#watched = true;
    const stop = events.onOpen(() => void this.look());
    return () => {
      this.#watched = false;
      clearTimeout(this.#timer);
      stop();
    };
  }

  async look(): Promise<void> {
    clearTimeout(this.#timer);
    const before = this.all ?? [];
    // while the server does not answer, what is known stays
    const found = await api.teachings().catch(() => null);
    if (found === null) return;
    this.all = found;
    const done = ({ id, state }: Teaching) =>
      state === "done" && before.some((each) => each.id === id && isOpen(each));
    // what was learned can be drawn with at once
    if (found.some(done)) void library.refresh().catch(() => undefined);
    if (this.#watched && found.some(isOpen)) this.#timer = setTimeout(() => void this.look(), PAUSE);
  }
}

export const teachings = new Teachings();
