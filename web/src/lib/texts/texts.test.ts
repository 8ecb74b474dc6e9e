import { expect, it } from "vitest";
import { texts } from ".";

it("names the same values in every language", () => {
  const names = (text: string) => [...text.matchAll(/\{(\w+)\}/g)].map((match) => match[1]).sort();
  for (const [key, { en, de }] of Object.entries(texts)) {
    expect(en, key).not.toBe("");
    expect(names(de), key).toEqual(names(en));
  }
});
