/** Short messages at the edge of the page, some of which can be undone. */

export interface Toast {
  id: number;
  text: string;
  danger: boolean;
  undo: (() => void) | null;
}

const SECONDS = 6;

class Toasts {
  all = $state<Toast[]>([]);
  #next = 0;
  #timers = new Map<number, ReturnType<typeof setTimeout>>();

  /** Say something; with `undo` it can be taken back while it is shown. */
  say(text: string, { danger = false, undo = null as (() => void) | null } = {}): void {
    const id = this.#next++;
    this.all.push({ id, text, danger, undo });
    this.resume(id);
  }

  dismiss(id: number): void {
    clearTimeout(this.#timers.get(id));
    this.#timers.delete(id);
    this.all = this.all.filter((each) => each.id !== id);
  }

  /** While one reads a message or is about to undo, it stays. */
  pause(id: number): void {
    clearTimeout(this.#timers.get(id));
  }

  resume(id: number): void {
    clearTimeout(this.#timers.get(id));
    this.#timers.set(
      id,
      setTimeout(() => this.dismiss(id), SECONDS * 1000),
    );
  }
}

export const toasts = new Toasts();
