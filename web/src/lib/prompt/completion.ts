/** What a prompt can be completed with, where the caret is. */

export interface Names {
  styles: readonly string[];
  adapters: readonly string[];
  embeddings: readonly string[];
  wildcards: readonly string[];
}

export interface Completion {
  kind: "style" | "adapter" | "embedding" | "wildcard";
  name: string;
  /** What takes the place of the text from `start` to `end`. */
  insert: string;
  start: number;
  end: number;
}

const MOST = 8;
const SHORTEST = 2;

export function completions(text: string, caret: number, names: Names): Completion[] {
  const before = text.slice(0, caret);
  const found: Completion[] = [];
  const add = (
    kind: Completion["kind"],
    all: readonly string[],
    part: string,
    start: number,
    insert: (n: string) => string,
    rest = /$^/,
  ) => {
    // what is left of the name behind the caret goes with it
    const end = caret + (rest.exec(text.slice(caret))?.[0].length ?? 0);
    const wanted = part.toLowerCase();
    const ranked = all
      .filter((name) => name.toLowerCase().includes(wanted) && name !== part)
      .sort(
        (a, b) => Number(b.toLowerCase().startsWith(wanted)) - Number(a.toLowerCase().startsWith(wanted)),
      );
    found.push(...ranked.map((name) => ({ kind, name, insert: insert(name), start, end })));
  };
  const adapter = /<(?:lora:)?([^<>:]*)$/.exec(before);
  const wildcard = /__([\p{L}\p{M}\p{N}_/-]*)$/u.exec(before);
  const word = /[\p{L}\p{M}\p{N}_-]+$/u.exec(before);
  if (adapter)
    add(
      "adapter",
      names.adapters,
      adapter[1] ?? "",
      adapter.index,
      (name) => `<lora:${name}:1>`,
      /^[^<>\n]*>/,
    );
  else if (wildcard)
    add(
      "wildcard",
      names.wildcards,
      wildcard[1] ?? "",
      wildcard.index,
      (name) => `__${name}__`,
      /^[^\s_]*__/,
    );
  else if (word && word[0].length >= SHORTEST) {
    add("embedding", names.embeddings, word[0], word.index, (name) => name);
    add(
      "style",
      names.styles.filter((name) => name.startsWith(word[0].toLowerCase())),
      word[0],
      word.index,
      () => "",
    );
  }
  return found.slice(0, MOST);
}
