import { expect, it } from "vitest";
import { completions } from "./completion";

const names = {
  styles: ["emoji-3d", "icon-flat"],
  adapters: ["ink", "pink"],
  embeddings: ["easynegative"],
  wildcards: ["colour"],
};
const at = (text: string) =>
  completions(text, text.length, names).map(({ kind, insert, start }) => [kind, insert, start]);

it("completes adapters, wildcards, embeddings and styles", () => {
  expect(at("a cat <lora:in")).toEqual([
    ["adapter", "<lora:ink:1>", 6],
    ["adapter", "<lora:pink:1>", 6],
  ]);
  expect(at("a __co")).toEqual([["wildcard", "__colour__", 2]]);
  expect(at("easy")).toEqual([["embedding", "easynegative", 0]]);
  expect(at("a cat, emo")).toEqual([["style", "", 7]]);
  expect(at("a cat")).toEqual([]);
});

it("replaces what is left of the name behind the caret", () => {
  const text = "a <lora:pin:0.5> cat";
  const [found] = completions(text, "a <lora:pi".length, names);
  expect(found).toMatchObject({ name: "pink", start: 2, end: "a <lora:pin:0.5>".length });
});
