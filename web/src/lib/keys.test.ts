import { expect, it } from "vitest";
import { caps, written } from "./keys.svelte";

const press = (key: string, held: Partial<Parameters<typeof written>[0]> = {}) =>
  written({ key, ctrlKey: false, metaKey: false, altKey: false, shiftKey: false, ...held });

it("writes keys as shortcuts name them", () => {
  expect(press("?", { shiftKey: true })).toBe("?");
  expect(press("g")).toBe("g");
  expect(press("U", { shiftKey: true })).toBe("shift+u");
  expect(press("Enter", { metaKey: true })).toBe("ctrl+Enter");
  expect(press("Z", { ctrlKey: true, shiftKey: true })).toBe("ctrl+shift+z");
});

it("shows caps", () => {
  expect(caps("ctrl+ArrowUp")).toEqual(["Ctrl", "↑"]);
});
