import { describe, expect, it } from "vitest";
import { isFiltered, parsed, withFilter, withState } from "./query";

describe("the search box", () => {
  it("tells words from what a picture was drawn with", () => {
    expect(parsed('red apple seed:7 style:noto tag:"for mum" is:favourite')).toEqual({
      search: "red apple",
      seed: 7,
      style: "noto",
      tag: "for mum",
      favourite: true,
    });
    expect(parsed("  ")).toEqual({ search: "" });
  });

  it("takes what it does not know for words", () => {
    expect(parsed("3:2 seed:x is:pretty camera:leica").search).toBe("3:2 seed:x is:pretty camera:leica");
  });

  it("reads while one types", () => {
    expect(parsed('tag:"for mu')).toEqual({ search: "", tag: "for mu" });
    expect(parsed("style:").search).toBe("style:");
  });

  it("is what the filters write", () => {
    const text = withFilter("apple", "model", "my model");
    expect(text).toBe('apple model:"my model"');
    expect(parsed(text).model).toBe("my model");
    expect(withFilter(text, "model", "embedded")).toBe("apple model:embedded");
    expect(withFilter(text, "model", null)).toBe("apple");
    const both = withState(withState("apple", "favourite", true), "deleted", true);
    expect(both).toBe("apple is:favourite is:deleted");
    expect(withState(both, "favourite", false)).toBe("apple is:deleted");
    expect(isFiltered(parsed(both))).toBe(true);
    expect(isFiltered(parsed(""))).toBe(false);
  });
});
