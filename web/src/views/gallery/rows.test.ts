import { describe, expect, it } from "vitest";
import { beside, heightOf, proportion, rowAt, rowsOf, type Size } from "./rows";

const GAP = 4;
const shapes: Size[] = [
  { width: 256, height: 256 },
  { width: 384, height: 192 },
  { width: 192, height: 320 },
  { width: 512, height: 64 },
];
const many = Array.from({ length: 1000 }, (_, index) => shapes[(index * 7) % shapes.length] as Size);

describe("justified rows", () => {
  it.each([320, 720, 1440])("hold every picture once and fill a window %i pixels wide", (width) => {
    const rows = rowsOf(many, width, 180, GAP);
    expect(rows.flatMap(({ first, end }) => many.slice(first, end))).toEqual(many);
    for (const [index, row] of rows.entries()) {
      const widths = many.slice(row.first, row.end).map((size) => proportion(size) * row.height);
      const total = widths.reduce((sum, each) => sum + each, GAP * (widths.length - 1));
      if (index < rows.length - 1) expect(total).toBeCloseTo(width, 6);
      expect(total).toBeLessThanOrEqual(width + 1e-6);
      expect(row.top).toBeCloseTo(index === 0 ? 0 : heightOf(rows.slice(0, index)) + GAP, 6);
    }
  });

  it("are about as high as asked for", () => {
    const heights = rowsOf(many, 1440, 180, GAP).map((row) => row.height);
    expect(Math.min(...heights)).toBeGreaterThan(120);
    expect(Math.max(...heights)).toBeLessThan(260);
  });

  it("do not blow up a few pictures", () => {
    expect(rowsOf(shapes.slice(0, 1), 1440, 180, GAP)).toEqual([{ first: 0, end: 1, top: 0, height: 180 }]);
    expect(rowsOf([], 1440, 180, GAP)).toEqual([]);
    expect(heightOf([])).toBe(0);
  });

  it("are found by a pixel", () => {
    const rows = rowsOf(many, 720, 180, GAP);
    rows.forEach((row, index) => {
      expect(rowAt(rows, row.top)).toBe(index);
      expect(rowAt(rows, row.top + row.height)).toBe(index);
    });
    expect(rowAt(rows, -10)).toBe(0);
    expect(rowAt(rows, 1e9)).toBe(rows.length - 1);
  });

  it("lead from a picture to the one below it and back", () => {
    const squares = Array.from({ length: 12 }, () => ({ width: 1, height: 1 }));
    const rows = rowsOf(squares, 404, 100, 0);
    expect(rows[0]).toMatchObject({ first: 0, end: 4 });
    expect(beside(rows, squares, 1, 1, 0)).toBe(5);
    expect(beside(rows, squares, 5, -1, 0)).toBe(1);
    expect(beside(rows, squares, 1, -1, 0)).toBe(1);
  });
});
