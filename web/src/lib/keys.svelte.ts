/** Keys of the page: each view registers its own while it is shown, and `?` lists them all. */

import type { Key } from "./texts";

export interface Shortcut {
  /** As in `?`, `g`, `Escape`, `ctrl+Enter`; Ctrl is ⌘ on a Mac. */
  key: string;
  text: Key;
  run: (event: KeyboardEvent) => void;
  /** Whether it works while one types. */
  typing?: boolean;
}

const isMac = typeof navigator !== "undefined" && /Mac|iPhone|iPad/.test(navigator.userAgent);

/** How a key press is written in a `Shortcut`. Letters are small; Shift is said with letters and with keys that have a name. */
export function written(
  event: Pick<KeyboardEvent, "key" | "ctrlKey" | "metaKey" | "altKey" | "shiftKey">,
): string {
  const named = event.key.length > 1;
  const parts = [
    event.ctrlKey || event.metaKey ? "ctrl" : "",
    event.altKey ? "alt" : "",
    event.shiftKey && (named || /^[a-z]$/i.test(event.key)) ? "shift" : "",
    named ? event.key : event.key.toLowerCase(),
  ];
  return parts.filter(Boolean).join("+");
}

/** A shortcut as its caps say it, one string a key. */
export function caps(key: string): string[] {
  const names: Record<string, string> = {
    ctrl: isMac ? "⌘" : "Ctrl",
    alt: isMac ? "⌥" : "Alt",
    shift: "⇧",
    ArrowUp: "↑",
    ArrowDown: "↓",
    ArrowLeft: "←",
    ArrowRight: "→",
    Escape: "Esc",
    " ": "Space",
  };
  const parts = key === "+" ? [key] : key.split("+");
  return parts.map((part) => names[part] ?? (part.length === 1 ? part.toUpperCase() : part));
}

const isTyping = (target: EventTarget | null): boolean =>
  target instanceof HTMLElement &&
  (target.isContentEditable ||
    target.matches("textarea, select, input:not([type=checkbox], [type=radio], [type=range])"));

class Keys {
  /** What cleans up after an effect would read an older value of a state: the list itself is none. */
  #registered: readonly Shortcut[] = [];
  #shortcuts = $state.raw<readonly Shortcut[]>([]);

  get all(): readonly Shortcut[] {
    return this.#shortcuts;
  }

  /** Have these keys work until the function that is returned is called: `$effect(() => keys.use([...]))`. */
  use(shortcuts: readonly Shortcut[]): () => void {
    this.#become([...this.#registered, ...shortcuts]);
    return () => this.#become(this.#registered.filter((each) => !shortcuts.includes(each)));
  }

  #become(shortcuts: readonly Shortcut[]): void {
    this.#registered = shortcuts;
    this.#shortcuts = shortcuts;
  }

  press(event: KeyboardEvent): void {
    if (event.defaultPrevented || event.isComposing) return;
    const name = written(event);
    const typing = isTyping(event.target);
    // a dialog or a menu that is open has the keys for itself
    const modal = document.querySelector("dialog[open], :popover-open") !== null;
    // the last one registered goes first: a view's key hides the page's
    const found = this.#registered.findLast((each) => each.key === name && (each.typing === true || !typing));
    if (found === undefined || modal) return;
    event.preventDefault();
    found.run(event);
  }
}

export const keys = new Keys();
