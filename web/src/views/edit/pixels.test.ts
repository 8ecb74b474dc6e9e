import { expect, it } from "vitest";
import { flooded, inverted, isEmpty, packed, unpacked, type Bytes } from "./pixels";

const mask = (...rows: string[]): Bytes =>
  Uint8ClampedArray.from([...rows.join("")].map((each) => ({ "#": 255, "+": 128 })[each] ?? 0));

it("packs a mask and brings it back", () => {
  const one = mask("..##", "#+..");
  expect(unpacked(packed(one))).toEqual(one);
  expect(packed(new Uint8ClampedArray(1_000_000)).length).toBe(2);
});

it("inverts a mask, and back", () => {
  const one = mask(".#+");
  expect([...inverted(one)]).toEqual([255, 0, 127]);
  expect(inverted(inverted(one))).toEqual(one);
});

it("knows an empty mask", () => {
  expect(isEmpty(mask("...."))).toBe(true);
  expect(isEmpty(mask("..+."))).toBe(false);
});

it("fills what a stroke surrounds with its soft inner edge, and nothing outside", () => {
  const ring = mask("......", ".####.", ".#++#.", ".#.+#.", ".####.", "......");
  const full = mask("......", ".####.", ".####.", ".####.", ".####.", "......");
  expect(flooded(ring, 6, 2, 3)).toEqual(full);
  expect(flooded(full, 6, 2, 2)).toEqual(full);
  expect(flooded(ring, 6, 0, 0).filter((value) => value === 0)).toHaveLength(1);
});

it("fills around corners", () => {
  const way = mask(".#...", ".#.#.", ".#.#.", "...#.");
  expect(isEmpty(inverted(flooded(way, 5, 0, 0)))).toBe(true);
});
