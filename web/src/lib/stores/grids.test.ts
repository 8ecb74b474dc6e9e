import { expect, it } from "vitest";
import type { Grid } from "../api";
import { labelsAt, secondsToGo, standing } from "./grids.svelte";

const axis = (field: string, ...labels: string[]) => ({ field, labels, values: labels });
const drawn = (created: number) => ({ state: "done", picture: { created } });
const grid = {
  axes: [axis("steps", "a", "b"), axis("sampler", "c", "d"), axis("seed", "e", "f")],
  cells: [
    ...[drawn(100), drawn(104), drawn(102)],
    ...[{ state: "failed" }, { state: "cancelled" }, { state: "running" }, { state: "queued" }].map(
      (cell) => ({
        ...cell,
        picture: null,
      }),
    ),
    { state: null, picture: null },
  ],
} as unknown as Grid;

it("says how a grid stands and reckons how long it takes", () => {
  expect(standing(grid)).toEqual({ drawn: 3, failed: 1, missing: 2, open: 2 });
  expect(secondsToGo(grid)).toBe(4);
  expect(secondsToGo({ ...grid, cells: grid.cells.slice(0, 3) })).toBeNull();
});

it("names cells by columns, rows and pages", () => {
  expect(labelsAt(grid, 0)).toEqual(["a", "c", "e"]);
  expect(labelsAt(grid, 6)).toEqual(["a", "d", "f"]);
});
