import { afterEach, expect, it } from "vitest";
import { language } from "$lib/i18n.svelte";
import { chipsOf } from "./chips";

afterEach(() => (language.current = "en"));

it("says of templates what is done with them, in the page's language", () => {
  const text = () => chipsOf({ prompt: "a cat", templates: "off" }).map((chip) => chip.text);
  expect(text()).toEqual(["Templates: As they are written"]);
  language.current = "de";
  expect(text()).toEqual(["Schablonen: Wie sie dastehen"]);
});
