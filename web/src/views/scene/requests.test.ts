import { expect, it } from "vitest";
import { aloneRequest, isScene, sceneOf, sceneRequest } from "./requests";

const apple = { prompt: "a red apple", box: [0, 0, 0.5, 1], depth: 1, negative: "", shadow: 0.3, seed: null };
const pear = { prompt: "a pear", box: [0.5, 0, 1, 1], depth: 0, shadow: 0, style: [], mask: null, name: "" };
const fields = { prompt: "a table", seed: 5, steps: 4, elements: [apple, pear], harmonise: 0 } as never;

it("says of an element only what it has of its own", () => {
  expect(sceneRequest(fields)).toEqual({
    prompt: "a table",
    seed: 5,
    steps: 4,
    harmonise: 0,
    elements: [
      { prompt: "a red apple", box: [0, 0, 0.5, 1], depth: 1, shadow: 0.3 },
      { prompt: "a pear", box: [0.5, 0, 1, 1] },
    ],
  });
});

it("says nothing of harmonising where there is nothing to harmonise", () => {
  expect(sceneRequest({ prompt: "a table", harmonise: 0.4 })).toEqual({ prompt: "a table" });
});

it("draws an element alone as the scene has it", () => {
  expect(aloneRequest(fields, 1, 5)).toEqual({ prompt: "a pear", steps: 4, seed: 7, transparent: true });
});

it("has the scene of a record, and tells of pictures that it lacks", () => {
  const { fields: found, pictures } = sceneOf(fields);
  expect(found.elements?.[1]).toEqual({ prompt: "a pear", box: [0.5, 0, 1, 1] });
  expect(pictures).toBe(false);
  expect(sceneOf({ prompt: "x", elements: [{ ...pear, mask: { sha256: "0" } }] } as never).pictures).toBe(
    true,
  );
  expect(isScene({ elements: [pear] })).toBe(true);
  expect(isScene({ elements: [] })).toBe(false);
});
