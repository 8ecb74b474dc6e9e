/** Values that survive a reload, kept in the browser's storage. */

/** Where values are kept: nowhere in private windows that forbid it, and in tests. */
function storage(session: boolean): Storage | null {
  try {
    return (session ? globalThis.sessionStorage : globalThis.localStorage) ?? null;
  } catch {
    return null;
  }
}

interface Options {
  /** Whether other windows follow at once. */
  shared?: boolean;
  /** Whether it is this window's alone, and kept as long as it is open. */
  session?: boolean;
}

/** One value under one name. A kept value that `accept` refuses is forgotten. */
export class Stored<T> {
  #value: T = $state() as T;
  readonly #name: string;
  readonly #storage: Storage | null;

  constructor(
    name: string,
    private readonly initial: T,
    private readonly accept: (value: unknown) => value is T,
    { shared = true, session = false }: Options = {},
  ) {
    this.#name = `sfumato.${name}`;
    this.#storage = storage(session);
    this.#value = this.#read(this.#storage?.getItem(this.#name) ?? null);
    if (shared && !session && typeof window !== "undefined")
      window.addEventListener("storage", (event) => {
        if (event.key === this.#name) this.#value = this.#read(event.newValue);
      });
  }

  get value(): T {
    return this.#value;
  }

  set value(value: T) {
    this.#value = value;
    try {
      this.#storage?.setItem(this.#name, JSON.stringify(value));
    } catch {
      // the storage is full: the value lives as long as the window
    }
  }

  #read(text: string | null): T {
    if (text === null) return this.initial;
    try {
      const value: unknown = JSON.parse(text);
      return this.accept(value) ? value : this.initial;
    } catch {
      return this.initial;
    }
  }
}

export const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

export const isOneOf =
  <T extends string>(...values: readonly T[]) =>
  (value: unknown): value is T =>
    typeof value === "string" && (values as readonly string[]).includes(value);
