/** A mask as one byte a pixel, row by row: 255 is drawn anew, 0 is kept. */

export type Bytes = Uint8ClampedArray<ArrayBuffer>;

/** Runs of equal bytes: their length and their value in turn. What is kept for going back. */
export type Runs = Uint32Array;

const FULL = 255;

export function packed(mask: Bytes): Runs {
  const runs: number[] = [];
  let begin = 0;
  for (let at = 1; at <= mask.length; at++) {
    if (at < mask.length && mask[at] === mask[begin]) continue;
    runs.push(at - begin, mask[begin] ?? 0);
    begin = at;
  }
  return Uint32Array.from(runs);
}

export function unpacked(runs: Runs): Bytes {
  let length = 0;
  for (let at = 0; at < runs.length; at += 2) length += runs[at] ?? 0;
  const mask = new Uint8ClampedArray(length);
  let begin = 0;
  for (let at = 0; at < runs.length; at += 2) {
    const end = begin + (runs[at] ?? 0);
    mask.fill(runs[at + 1] ?? 0, begin, end);
    begin = end;
  }
  return mask;
}

export const inverted = (mask: Bytes): Bytes => mask.map((value) => FULL - value);

export const isEmpty = (mask: Bytes): boolean => mask.every((value) => value === 0);

/** The mask with all filled that is connected to a pixel and not wholly in it: what a closed stroke surrounds. */
export function flooded(mask: Bytes, width: number, x: number, y: number): Bytes {
  const filled = mask.slice();
  const height = filled.length / width;
  const open = (column: number, row: number) =>
    column >= 0 &&
    column < width &&
    row >= 0 &&
    row < height &&
    (filled[row * width + column] ?? FULL) < FULL;
  const waiting: [number, number][] = [[x, y]];
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    const [from, row] = next;
    if (!open(from, row)) continue;
    let left = from;
    let right = from;
    while (open(left - 1, row)) left--;
    while (open(right + 1, row)) right++;
    filled.fill(FULL, row * width + left, row * width + right + 1);
    for (const beside of [row - 1, row + 1])
      for (let column = left; column <= right; column++)
        // one of each run of the next row is enough
        if (open(column, beside) && !(column > left && open(column - 1, beside)))
          waiting.push([column, beside]);
  }
  return filled;
}
