/** Weights of a prompt changed by keys: `a (red:1.1) apple`. */

export interface Selection {
  text: string;
  start: number;
  end: number;
}

const STEP = 0.1;
/** Letters of all scripts, and emoji with what joins them. */
const WORD = /(?:[\p{L}\p{M}\p{N}\p{Extended_Pictographic}\p{Emoji_Modifier}_'-]|\u200d)+/gu;
const WEIGHTED = /\(([^()]*):(-?\d+(?:\.\d+)?)\)/g;

/** Make the selected words, or the word at the caret, count for more (`steps` 1) or less (-1). */
export function changedWeight({ text, start, end }: Selection, steps: number): Selection | null {
  for (const match of text.matchAll(WEIGHTED)) {
    const [whole, inner = "", weight = "1"] = match;
    if (start < match.index || end > match.index + whole.length) continue;
    return replaced(text, match.index, match.index + whole.length, inner, Number(weight) + steps * STEP);
  }
  if (start === end) {
    const caret = start;
    const word = [...text.matchAll(WORD)].find(
      ({ index, 0: found }) => index <= caret && caret <= index + found.length,
    );
    if (word === undefined) return null;
    start = word.index;
    end = start + word[0].length;
  }
  while (start < end && text.charAt(start) === " ") start++;
  while (end > start && text.charAt(end - 1) === " ") end--;
  const words = text.slice(start, end);
  if (words === "" || /[()]/.test(words)) return null;
  return replaced(text, start, end, words, 1 + steps * STEP);
}

function replaced(text: string, start: number, end: number, words: string, weight: number): Selection {
  const rounded = Math.round(weight * 100) / 100;
  const made = rounded === 1 ? words : `(${words}:${rounded})`;
  const from = start + (rounded === 1 ? 0 : 1);
  return { text: text.slice(0, start) + made + text.slice(end), start: from, end: from + words.length };
}
