/** Justified rows: pictures of any proportions in rows that are all as wide as the window. */

export interface Size {
  width: number;
  height: number;
}

/** A row: the pictures from `first` up to, not with, `end`; pixels from the top of the first row. */
export interface Row {
  first: number;
  end: number;
  top: number;
  height: number;
}

/** Proportions beyond which a picture is shown cut, so that it leaves room for others. */
const LONGEST = 3;

export const proportion = ({ width, height }: Size): number =>
  Math.min(Math.max(width / height, 1 / LONGEST), LONGEST);

/** Rows about `target` pixels high. The last one is left as it comes. */
export function rowsOf(sizes: readonly Size[], width: number, target: number, gap: number): Row[] {
  const rows: Row[] = [];
  let first = 0;
  let top = 0;
  let sum = 0; // of the proportions in the row
  const close = (end: number, total: number, most: number) => {
    const height = Math.min((width - gap * (end - first - 1)) / total, most);
    rows.push({ first, end, top, height });
    top += height + gap;
    first = end;
  };
  sizes.forEach((size, index) => {
    const ratio = proportion(size);
    const room = width - gap * (index - first);
    if ((sum + ratio) * target < room) {
      sum += ratio;
      return;
    }
    // the row is nearer to the target with this picture, or without it
    const less = sum > 0 ? (room + gap) / sum : Infinity;
    const more = room / (sum + ratio);
    if (less / target < target / more) {
      close(index, sum, Infinity);
      sum = ratio;
      if (ratio * target >= width) {
        close(index + 1, sum, Infinity);
        sum = 0;
      }
    } else {
      close(index + 1, sum + ratio, Infinity);
      sum = 0;
    }
  });
  if (first < sizes.length) close(sizes.length, sum, target);
  return rows;
}

/** How high all rows are together. */
export function heightOf(rows: readonly Row[]): number {
  const last = rows.at(-1);
  return last === undefined ? 0 : last.top + last.height;
}

/** The index of the row that holds the pixel `y`, or the nearest one. */
export function rowAt(rows: readonly Row[], y: number): number {
  let low = 0;
  let high = rows.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if ((rows[middle]?.top ?? 0) <= y) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** The picture above or below the one at `index`: the one whose middle is nearest. */
export function beside(
  rows: readonly Row[],
  sizes: readonly Size[],
  index: number,
  by: 1 | -1,
  gap: number,
): number {
  const at = rows.findIndex((row) => index >= row.first && index < row.end);
  const row = rows[at];
  const next = rows[at + by];
  if (row === undefined || next === undefined) return index;
  const middles = (of: Row) => {
    let left = 0;
    return sizes.slice(of.first, of.end).map((size) => {
      const width = proportion(size) * of.height;
      left += width + gap;
      return left - gap - width / 2;
    });
  };
  const middle = middles(row)[index - row.first] ?? 0;
  const distances = middles(next).map((each) => Math.abs(each - middle));
  return next.first + distances.indexOf(Math.min(...distances));
}
