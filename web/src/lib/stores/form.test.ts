import { describe, expect, it } from "vitest";
import { Form, tidied } from "./form.svelte";

describe("the form", () => {
  it("holds only what differs from the model's wishes", () => {
    expect(tidied({ prompt: "a cat", negative: "", steps: null, style: [] })).toEqual({ prompt: "a cat" });
  });

  it("takes changes back and brings them again", () => {
    const form = new Form("test");
    form.set({ prompt: "a cat" });
    form.set({ steps: 4 });
    form.set({ steps: 8 }); // at once: one step with the one before
    form.undo();
    expect(form.fields).toEqual({ prompt: "a cat" });
    form.redo();
    expect(form.fields).toEqual({ prompt: "a cat", steps: 8 });
    form.undo();
    form.undo();
    expect(form.fields).toEqual({});
    expect(form.canUndo).toBe(false);
  });
});
