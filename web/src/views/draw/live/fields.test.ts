import { expect, it } from "vitest";
import type { Model } from "$lib/api";
import { leftOut, liveFields, stepRange } from "./fields";

const quick = { name: "embedded", few_steps: true, decoders: ["full", "tiny"] } as unknown as Model;
const slow = {
  name: "slow",
  few_steps: false,
  decoders: ["full"],
  defaults: { steps: 20 },
} as unknown as Model;

it("draws one picture in few steps by the quickest decoder, with a seed that stays", () => {
  const form = { prompt: "a cat", count: 4, steps: 30, guidance: 3, templates: "combinatorial" as const };
  expect(liveFields(form, quick, 2, 7)).toEqual({
    prompt: "a cat",
    steps: 2,
    seed: 7,
    fast: true,
    decoder: "tiny",
  });
  expect(leftOut(form, quick)).toEqual(["steps", "guidance"]);
});

it("keeps a locked seed, and guidance where nothing draws fast", () => {
  expect(liveFields({ prompt: "a cat", guidance: 3, seed: 1 }, slow, 8, 7)).toEqual({
    prompt: "a cat",
    guidance: 3,
    seed: 1,
    steps: 8,
  });
  expect(leftOut({ guidance: 3 }, slow)).toEqual([]);
});

it("takes more steps of a picture that is begun with, so that as many are drawn", () => {
  const image = { sha256: "" } as never;
  const steps = (fields: object) => liveFields({ prompt: "a cat", image, ...fields }, quick, 2, 7).steps;
  expect(steps({})).toBe(3);
  expect(steps({ strength: 0.4 })).toBe(5);
  expect(steps({ strength: 0 })).toBe(20);
  expect(steps({ mask: image })).toBe(2);
});

it("offers as few steps as the model can do with", () => {
  expect(stepRange(quick)).toEqual({ least: 1, most: 4, usual: 2 });
  expect(stepRange(slow)).toEqual({ least: 4, most: 16, usual: 8 });
  const turbo = { few_steps: false, defaults: { steps: 4 } } as unknown as Model;
  expect(stepRange(turbo)).toEqual({ least: 1, most: 8, usual: 4 });
});
