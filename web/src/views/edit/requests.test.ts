import { expect, it } from "vitest";
import { NO_EDGES } from "./geometry";
import { again, beginsWithPictures, editRequest, wayOf, type Given, type Wishes } from "./requests";

const wishes: Wishes = { prompt: "a star", fill: "keep", feather: 0 };
const given: Given = {
  size: { width: 256, height: 256 },
  edges: NO_EDGES,
  image: "data:image",
  mask: "data:mask",
  model: { name: "embedded", width: 256, height: 256 },
};
const common = { prompt: "a star", image: "data:image", model: "embedded" };

it("edges go before the mask, and the mask before words", () => {
  expect(wayOf(false, { ...NO_EDGES, top: 1 }, true)).toBe("extend");
  expect(wayOf(false, NO_EDGES, true)).toBe("mask");
  expect(wayOf(true, NO_EDGES, true)).toBe("instruct");
  expect(wayOf(true, NO_EDGES, false)).toBe("over");
});

it("says of a mask only what is wished", () => {
  expect(editRequest("mask", wishes, given)).toEqual({ ...common, mask: "data:mask" });
  const more = { ...wishes, strength: 0.6, fill: "blur", feather: 8, crop: 16 };
  const said = { ...common, mask: "data:mask", strength: 0.6, fill: "blur", feather: 8, crop: 16 };
  expect(editRequest("mask", more, given)).toEqual(said);
});

it("draws only around the mask in a picture that is larger than the model's", () => {
  const large = { ...given, size: { width: 900, height: 600 } };
  expect(editRequest("mask", wishes, large)).toEqual({ ...common, mask: "data:mask", crop: 32 });
});

it("says nothing of a mask or of strength where they do not count", () => {
  const edges = { ...NO_EDGES, right: 64 };
  const wish = { ...wishes, strength: 0.5, feather: 4 };
  expect(editRequest("extend", wish, { ...given, edges })).toEqual({ ...common, extend: edges });
  expect(editRequest("instruct", wish, given)).toEqual(common);
  expect(editRequest("over", wish, given)).toEqual({ ...common, strength: 0.5 });
});

it("draws a record again with another noise", () => {
  const record = {
    prompt: "a cat",
    seed: 7,
    count: 4,
    templates: "random",
    image: null,
    controls: [],
    elements: [],
  };
  expect(beginsWithPictures(record)).toBe(false);
  expect(beginsWithPictures({ ...record, image: { sha256: "0" } })).toBe(true);
  const said = { prompt: "a cat", seed: 7, templates: "off", variation_seed: [3], variation_amount: [0.2] };
  expect(again(record, { variation_seed: [3], variation_amount: [0.2] })).toEqual(said);
});
