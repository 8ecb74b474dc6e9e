import { expect, it } from "vitest";
import { parsed, paths } from "./router.svelte";

it("reads every address that it writes", () => {
  expect(parsed(paths.draw)).toEqual({ place: "draw" });
  expect(parsed(paths.gallery)).toEqual({ place: "gallery" });
  expect(parsed(paths.teach)).toEqual({ place: "teach" });
  expect(parsed(paths.grid("a/b c"))).toEqual({ place: "grid", grid: "a/b c" });
  expect(parsed(paths.edit("a/b c"))).toEqual({ place: "edit", picture: "a/b c" });
  expect(parsed(paths.scene())).toEqual({ place: "scene", picture: null });
  expect(parsed(paths.scene("a/b c"))).toEqual({ place: "scene", picture: "a/b c" });
});
