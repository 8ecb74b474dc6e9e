import { expect, it } from "vitest";
import { dragged, fittedWithEdges, NO_EDGES, outwards, radius } from "./geometry";

it("fits a picture with its edges into the middle of the room", () => {
  const edges = { ...NO_EDGES, left: 256 };
  const room = { width: 544, height: 544 };
  expect(fittedWithEdges({ width: 256, height: 256 }, room, edges, 16)).toEqual({ scale: 1, x: 272, y: 144 });
});

it("drags an edge outwards, never into the picture", () => {
  expect(dragged(NO_EDGES, "left", 63.6).left).toBe(64);
  expect(dragged({ ...NO_EDGES, top: 8 }, "top", -40).top).toBe(0);
  expect(outwards("left", { x: -7, y: 3 })).toBe(7);
  expect(outwards("bottom", { x: -7, y: 3 })).toBe(3);
});

it("draws thinner with a light pen, and as wide as the brush with all else", () => {
  expect(radius(20, "mouse", 0.5)).toBe(10);
  expect(radius(20, "pen", 1)).toBe(10);
  expect(radius(20, "pen", 0)).toBe(2.5);
});
