/** Prompts that show what the embedded model can draw, and what it drew (`web/draw_pictures.py`). */

const pictures = import.meta.glob<string>("../../pictures/examples/*.webp", {
  eager: true,
  query: "?url",
  import: "default",
});

export const examples = [
  { file: "apple", prompt: "a red apple, 3d render" },
  { file: "rocket", prompt: "a rocket, minimal flat emoji" },
  { file: "fox", prompt: "a fox, noto emoji" },
  { file: "house", prompt: "a house with a tree, flat color icon" },
].map(({ file, prompt }) => ({ prompt, picture: pictures[`../../pictures/examples/${file}.webp`] ?? "" }));
