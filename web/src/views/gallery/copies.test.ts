import { describe, expect, it } from "vitest";
import { command, curl, fileName, program, python, quoted, sameAgain } from "./copies";

describe("same again", () => {
  it("is what was typed, with the picture's own seed", () => {
    const job = { prompt: "a {cat|dog}", count: 3, seed: 3, steps: 4, templates: "random", negative: "" };
    const drawn = { prompt: "a cat", negative: "" };
    expect(sameAgain(job, drawn, 5)).toEqual({ prompt: "a {cat|dog}", steps: 4, seed: 5 });
  });

  it("is as it was filled in where combinations came in turn", () => {
    const job = { prompt: "a {cat|dog}", count: 2, seed: 3, templates: "combinatorial", style: ["noto"] };
    const drawn = { prompt: "a dog, noto emoji", negative: "" };
    expect(sameAgain(job, drawn, 4)).toEqual({ prompt: "a dog, noto emoji", templates: "off", seed: 4 });
  });

  it("has the picture's own variation", () => {
    const job = { prompt: "a cat", seed: 3, variation_seed: [10], variation_amount: [0.3], count: 4 };
    expect(sameAgain(job, { variation_seed: [12] }, 3)).toMatchObject({ variation_seed: [12], seed: 3 });
  });
});

describe("copies", () => {
  it("quote what a shell would read otherwise", () => {
    expect(quoted("noto")).toBe("noto");
    expect(quoted("it's $HOME")).toBe("'it'\\''s $HOME'");
  });

  it("as a command", () => {
    const fields = {
      prompt: "a red apple",
      seed: 7,
      style: ["a", "b c"],
      fast: true,
      multidiffusion: false,
      variation_seed: [1, 2],
      adapters: [{ name: "ink", weight: 0.8 }],
    };
    expect(command(fields as never, "x.png")).toBe(
      "sfumato generate 'a red apple' --seed 7 --style a --style 'b c' --fast --no-multidiffusion " +
        "--variation-seed 1 --variation-seed 2 --lora ink:0.8",
    );
    expect(command({ prompt: "-x", seed: 1 }, "x.png")).toBe("sfumato generate --seed 1 -- -x");
    expect(command({ prompt: "x", negative: "-y" }, "x.png")).toBe("sfumato generate x --negative=-y");
  });

  it("name the picture where options cannot say it", () => {
    expect(command({ prompt: "x", image: "…" } as never, "a b.png")).toBe("sfumato replay 'a b.png'");
  });

  it("as Python", () => {
    expect(python({ a: [true, null, 0.5, 'q"'] })).toBe('{"a": [True, None, 0.5, "q\\""]}');
    expect(program({ prompt: "x", seed: 7, fast: true }, "x-7.png", "http://h")).toContain(
      'image = studio.generate("x", seed=7, fast=True)\n',
    );
    expect(program({ prompt: "x", frames: 16 }, "x-7.webp", "http://h")).toContain(
      'video = studio.animate("x", frames=16)\nvideo.save("x-7.webp")\n',
    );
  });

  it("as curl", () => {
    expect(curl({ prompt: "it's" }, "http://h")).toBe(
      `curl http://h/api/v1/jobs --json '{"request":{"prompt":"it'\\''s"}}'`,
    );
  });

  it("name files by the prompt", () => {
    expect(fileName({ prompt: "Ein Äpfel/1, rot!", seed: 7 })).toBe("ein-äpfel-1-rot-7.png");
    expect(fileName({ prompt: "…", seed: 7, frames: null })).toBe("picture-7.png");
    expect(fileName({ prompt: "a clip", seed: 7, frames: 16 })).toBe("a-clip-7.webp");
  });
});
