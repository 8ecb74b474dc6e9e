import { afterEach, beforeEach, expect, it } from "vitest";
import sentences from "./error-sentences.json";
import { noted, reason, worded } from "./errors";
import { language } from "./i18n.svelte";
import requestDefaults from "./request-defaults.json";
import { texts } from "./texts";

beforeEach(() => (language.current = "de"));
afterEach(() => (language.current = "en"));

it("says what the server says in the page's language", () => {
  expect(worded("steps is 0: must be at least 1 (allowed: 1 to 1000)")).toBe("Schritte: von 1 bis 1.000.");
  expect(worded("the queue has room; 7 jobs")).toContain("auf Englisch");
  expect(worded("7 jobs are waiting, of 7 that may; try again later", 5)).toContain("In 5 Sekunden");
  expect(reason({ error: "there is no adapter 'ink' in the server's folder" })).toContain("kein LoRA „ink“");
  expect(reason({})).toBe("Fehlgeschlagen");
});

it("says a sentence inside another too", () => {
  expect(worded("axis steps, value '0': steps is 0: must be at least 1 (allowed: 1 to 1000)")).toBe(
    "0: Schritte: von 1 bis 1.000.",
  );
  expect(noted("the LoRA ink: it is not in the server's folder")).toBe(
    "LoRA ink: liegt nicht im Ordner des Servers",
  );
});

it("leaves settings of other programs as they are", () => {
  expect(noted("Hires steps: 5, Hires prompt: blue")).toBe("Hires steps: 5, Hires prompt: blue");
});

it("has words for every form, and names the values that it has", () => {
  for (const [code, form] of Object.entries(sentences)) {
    expect(texts, code).toHaveProperty([`error.${code}`]);
    expect(() => new RegExp(form), code).not.toThrow();
  }
});

it("has a name for every field of a request", () => {
  for (const field of Object.keys(requestDefaults)) expect(texts).toHaveProperty([`setting.${field}`]);
});
