import { expect, it } from "vitest";
import { nextFrame, renamed, stopsOf, without } from "./travel";

it("lists the stops by their frames", () => {
  expect(stopsOf({ "12": "b", "4": "a" })).toEqual([
    { frame: 4, text: "a" },
    { frame: 12, text: "b" },
  ]);
  expect(without({ "12": "b", "4": "a" }, 12)).toEqual({ "4": "a" });
});

it("moves a stop to a frame of the clip that is free", () => {
  expect(renamed({ "4": "a" }, 4, 7, 8)).toEqual({ "7": "a" });
  expect(renamed({ "4": "a" }, 4, 8, 8)).toBeNull();
  expect(renamed({ "4": "a" }, 4, NaN, 8)).toBeNull();
  expect(renamed({ "4": "a", "5": "b" }, 4, 5, 8)).toBeNull();
});

it("offers frames until none is left", () => {
  expect(nextFrame({}, 16)).toBe(8);
  expect(nextFrame({ "8": "a" }, 16)).toBe(12);
  expect(nextFrame({ "1": "a" }, 2)).toBe(0);
  expect(nextFrame({ "0": "a", "1": "b" }, 2)).toBeNull();
  expect(nextFrame({ "20": "late" }, 16)).toBe(15);
});
