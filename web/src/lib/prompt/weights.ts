/** Weights of a prompt changed by keys: `a (red:1.1) apple`. */

export interface Selection {
  text: string;
  start: number;
  end: number;
}

const STEP = 0.1;
const WORD = /[\p{L}\p{N}_'-]/u;
const WEIGHTED = /\(([^()]*):(-?\d+(?:\.\d+)?)\)/g;

/** Make the selected words, or the word at the caret, count for more (`steps` 1) or less (-1). */
export function changedWeight({ text, start, end }: Selection, steps: number): Selection | null {
  for (const match of text.matchAll(WEIGHTED)) {
    const [whole, inner = "", weight = "1"] = match;
    if (start < match.index || end > match.index + whole.length) continue;
    return replaced(text, match.index, match.index + whole.length, inner, Number(weight) + steps * STEP);
  }
  if (start === end) {
    while (start > 0 && WORD.test(text.charAt(start - 1))) start--;
    while (end < text.length && WORD.test(text.charAt(end))) end++;
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
