import { expect, it } from "vitest";
import type { PromptReading } from "$lib/api";
import { stretches, tokenCount } from "./reading.svelte";

function reading(text: string, ...tokens: [start: number, end: number, weight: number][]): PromptReading {
  const found = tokens.map(([start, end, weight]) => ({ text: "", start, end, weight, embedding: null }));
  const phrases = [{ chunks: [{ tokens: found, room: 75 }], left_out: 0 }];
  const terms = [{ weight: 1, at: [0], contents: [{ phrases }] }];
  return { text, dialect: "sfumato", pictures: 1, expansions: [], adapters: [], tree: [], terms };
}

it("cuts where weights change, and counts an emoji as one character", () => {
  const text = "😀 (ä:1.3) 𝔘";
  const found = stretches(text, reading(text, [0, 1, 1], [3, 4, 1.3], [10, 11, 1]), null);
  expect(found).toEqual([
    { text: "😀 (", weight: 1, wrong: false },
    { text: "ä", weight: 1.3, wrong: false },
    { text: ":1.3) 𝔘", weight: 1, wrong: false },
  ]);
});

it("marks the character that is wrong, and none of a text that was not read yet", () => {
  const error = { message: "never closed", text: "😀😀 [a:b", position: 3 };
  const marked = (text: string) => stretches(text, null, error).filter(({ wrong }) => wrong);
  expect(marked("😀😀 [a:b")).toEqual([{ text: "[", weight: 1, wrong: true }]);
  expect(marked("😀😀 [a:b]")).toEqual([]);
});

it("marks the last character for an error at the end", () => {
  const error = { message: "the end", text: "a (", position: 3 };
  expect(stretches("a (", null, error).at(-1)).toEqual({ text: "(", weight: 1, wrong: true });
});

it("counts the tokens of every chunk of the longest phrase", () => {
  const tokens = (count: number) =>
    new Array(count).fill({ text: "", start: 0, end: 1, weight: 1, embedding: null });
  const phrase = (counts: number[], left_out = 0) => ({
    chunks: counts.map((count) => ({ tokens: tokens(count), room: 75 })),
    left_out,
  });
  const contents = [{ phrases: [phrase([8]), phrase([75, 3], 2)] }, { phrases: [phrase([70])] }];
  const longest = { ...reading(""), terms: [{ weight: 1, at: [0], contents }] };
  expect(tokenCount(longest)).toEqual({ chunks: [75, 3], room: 75, leftOut: 2 });
});
