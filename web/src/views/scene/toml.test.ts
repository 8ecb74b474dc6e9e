import { expect, it } from "vitest";
import { sceneCommand, sceneFile } from "./toml";

const fields = {
  prompt: 'a "table"',
  seed: 5,
  adapters: [{ name: "ink", weight: 0.8, text_weight: null }],
  elements: [{ prompt: "a pear", box: [0, 0.25, 0.5, 1], style: ["noto"] }],
} as never;

it("writes the scene as a file", () => {
  expect(sceneFile(fields)).toBe(
    [
      "seed = 5",
      'adapters = [{ name = "ink", weight = 0.8 }]',
      "",
      "[background]",
      'prompt = "a \\"table\\""',
      "",
      "[[elements]]",
      'prompt = "a pear"',
      "box = [0, 0.25, 0.5, 1]",
      'style = ["noto"]',
      "",
    ].join("\n"),
  );
});

it("has the command read the file", () => {
  const command = sceneCommand({ prompt: "it's", elements: [] } as never, "a b.png");
  expect(command).toContain('prompt = "it\'s"\n');
  expect(command).toMatch(/\nsfumato scene scene\.toml -o 'a b\.png'\n$/);
});
