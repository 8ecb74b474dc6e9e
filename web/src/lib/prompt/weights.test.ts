import { expect, it } from "vitest";
import { changedWeight } from "./weights";

const at = (text: string, start: number, steps: number, end = start) =>
  changedWeight({ text, start, end }, steps)?.text;

it("gives the word at the caret a weight, changes it, and takes it away", () => {
  expect(at("a red apple", 3, 1)).toBe("a (red:1.1) apple");
  expect(at("a (red:1.1) apple", 4, 1)).toBe("a (red:1.2) apple");
  expect(at("a (red:1.1) apple", 4, -1)).toBe("a red apple");
});

it("weighs what is selected", () => {
  expect(at("a red apple", 2, -1, 12)).toBe("a (red apple:0.9)");
});

it("keeps the words selected", () => {
  expect(changedWeight({ text: "a red apple", start: 3, end: 3 }, 1)).toEqual({
    text: "a (red:1.1) apple",
    start: 3,
    end: 6,
  });
});

it("leaves brackets that it would break", () => {
  expect(at("a (red apple", 2, 1, 12)).toBeUndefined();
});

it("knows words with accents, in all scripts, and emoji", () => {
  expect(at("ein schöner Apfel", 6, 1)).toBe("ein (schöner:1.1) Apfel");
  expect(at("a scho\u0308n cat", 4, 1)).toBe("a (scho\u0308n:1.1) cat");
  expect(at("a 👩🏽‍🚀 cat", 3, 1)).toBe("a (👩🏽‍🚀:1.1) cat");
  expect(at("猫 a", 1, 1)).toBe("(猫:1.1) a");
});
