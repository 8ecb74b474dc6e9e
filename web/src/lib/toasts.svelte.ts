/** Short messages at the edge of the page, with what can be done about them. */

interface Deeds {
  undo?: (() => void) | null;
  retry?: (() => void) | null;
}

export interface Toast extends Deeds {
  id: number;
  text: string;
  danger: boolean;
}

const SECONDS = 6;

class Toasts {
  all = $state.raw<readonly Toast[]>([]);
  #next = 0;
  #timers = new Map<number, ReturnType<typeof setTimeout>>();

  /**
   * Say something; while it is shown it can be taken back by `undo` and tried again by `retry`. What went wrong,
   * `danger`, is shown until it is closed.
   */
  say(text: string, { danger = false, ...deeds }: { danger?: boolean } & Deeds = {}): void {
    const id = this.#next++;
    // what is said again takes the place of what was said
    this.all = [...this.all.filter((each) => each.text !== text), { id, text, danger, ...deeds }];
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
    if (this.all.some((each) => each.id === id && each.danger)) return;
    this.#timers.set(
      id,
      setTimeout(() => this.dismiss(id), SECONDS * 1000),
    );
  }
}

export const toasts = new Toasts();
