import { expect, it } from "vitest";
import { library } from "$lib/stores/library.svelte";
import { axisText, NO_AXIS, OFTEN, OTHERS } from "./axes";
import { gridCommand } from "./command";

it("sends what is typed as it is, and what is ticked in the order of its list", () => {
  library.samplers = ["ddim", "euler", "heun"].map((name) => ({ name, aliases: [] }));
  expect(axisText({ ...NO_AXIS, field: "steps", text: "1-10 (+3), 20" })).toEqual({
    field: "steps",
    values: "1-10 (+3), 20",
  });
  expect(axisText({ ...NO_AXIS, field: "sampler", text: "5", chosen: ["heun", "ddim", "gone"] })).toEqual({
    field: "sampler",
    values: ["ddim", "heun"],
  });
  expect(axisText({ ...NO_AXIS, field: "prompt~", word: " red ", text: "blue" })).toEqual({
    field: "prompt~red",
    values: "blue",
  });
});

it("sends nothing of an axis that is not said yet", () => {
  expect(axisText(NO_AXIS)).toBeNull();
  expect(axisText({ ...NO_AXIS, field: "steps", text: " " })).toBeNull();
  expect(axisText({ ...NO_AXIS, field: "lora~", text: "0.4" })).toBeNull();
  expect(axisText({ ...NO_AXIS, field: "sampler", text: "ddim" })).toBeNull();
  expect(OTHERS.filter((each) => OFTEN.includes(each))).toEqual([]);
});

it("is written as the command that draws the same grid", () => {
  const axis = (field: string, ...values: string[]) => ({ field, values, labels: values });
  expect(
    gridCommand({ prompt: "a red apple", seed: 7 }, [
      axis("prompt~red", "dark, blurry", 'so "called"'),
      axis("steps", "4", "8"),
      axis("lora~ink", "-0.5"),
    ]),
  ).toBe(
    `sfumato grid 'a red apple' --seed 7 --x 'prompt~red="dark, blurry","so ""called"""' --y steps=4,8 --z 'lora~ink=-0.5'`,
  );
  expect(gridCommand({ prompt: "a=b" }, [axis("prompt~a=b", "c=d", "e")])).toBe(
    `sfumato grid a=b --x '"prompt~a=b"=c=d,e'`,
  );
  expect(gridCommand({ prompt: "-", style: ["noto"] }, [axis("seed", "1")])).toBe(
    "sfumato grid --style noto --x seed=1 -- -",
  );
  expect(gridCommand({ prompt: "a", image: { data: "…" } as never }, [axis("seed", "1")])).toBeNull();
});
