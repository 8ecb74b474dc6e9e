import { expect, it } from "vitest";
import {
  depthOrder,
  fromPixels,
  inDepthOrder,
  inPixels,
  problemOf,
  reordered,
  resized,
  shifted,
  spanned,
  type Box,
} from "./boxes";

const SIZE = { width: 400, height: 200 };
const BOX: Box = [0.25, 0.25, 0.5, 0.75];

it("spans a box between two points, whichever comes first, and cuts off what is outside", () => {
  const corners = [
    { x: 100, y: 50 },
    { x: 200, y: 150 },
  ] as const;
  expect(spanned(corners[0], corners[1], SIZE)).toEqual(BOX);
  expect(spanned(corners[1], corners[0], SIZE)).toEqual(BOX);
  expect(spanned({ x: -50, y: 150 }, { x: 100, y: 999 }, SIZE)).toEqual([0, 0.75, 0.25, 1]);
});

it("moves a box as far as the picture goes, and keeps its size", () => {
  expect(shifted(BOX, { x: 40, y: -20 }, SIZE)).toEqual([0.35, 0.15, 0.6, 0.65]);
  expect(shifted(BOX, { x: -999, y: 999 }, SIZE)).toEqual([0, 0.5, 0.25, 1]);
});

it("resizes a box by a corner or a side, never beyond the picture or to nothing", () => {
  expect(resized(BOX, "se", { x: 100, y: 20 }, SIZE)).toEqual([0.25, 0.25, 0.75, 0.85]);
  expect(resized(BOX, "n", { x: 100, y: -999 }, SIZE)).toEqual([0.25, 0, 0.5, 0.75]);
  expect(resized(BOX, "w", { x: 999, y: 0 }, SIZE)).toEqual([0.46, 0.25, 0.5, 0.75]);
  expect(resized(BOX, "e", { x: -999, y: 0 }, SIZE)).toEqual([0.25, 0.25, 0.29, 0.75]);
});

it("says a box in pixels and back", () => {
  expect(inPixels(BOX, SIZE)).toEqual({ x: 100, y: 50, width: 100, height: 100 });
  expect(fromPixels(inPixels(BOX, SIZE), SIZE)).toEqual(BOX);
});

it("finds boxes that are outside or too small", () => {
  expect(problemOf(BOX, SIZE)).toBeNull();
  expect(problemOf([-0.1, 0, 0.5, 0.5], SIZE)).toBe("outside");
  expect(problemOf([0, 0, 0.03, 0.5], SIZE)).toBe("small");
  expect(problemOf([0.5, 0, 0.2, 0.5], SIZE)).toBe("small");
});

it("orders elements by depth, equal ones as they came, and gives an order as depths", () => {
  const elements = [{ depth: 2 }, {}, { depth: 2 }, { depth: -1 }];
  expect(depthOrder(elements)).toEqual([3, 1, 0, 2]);
  expect(inDepthOrder(elements, [1, 3, 2, 0]).map(({ depth }) => depth)).toEqual([3, 0, 2, 1]);
  expect(depthOrder(inDepthOrder(elements, [1, 3, 2, 0]))).toEqual([1, 3, 2, 0]);
  expect(reordered([3, 1, 0, 2], 0, 2)).toEqual([1, 0, 3, 2]);
  expect(reordered([3, 1, 0, 2], 3, -5)).toEqual([2, 3, 1, 0]);
});
