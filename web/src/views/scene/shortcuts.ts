/** The keys of the scene; those of a box are heard where it has the focus. */

import type { Shortcut } from "$lib/keys.svelte";
import { zoomIn, zoomOut } from "$lib/view";
import type { SceneEditor } from "./editor.svelte";

interface Deeds {
  write: (number: number) => void;
  draw: () => Promise<void>;
}

export function shortcuts(editor: SceneEditor, { write, draw }: Deeds): Shortcut[] {
  const inHand = (deed: (number: number) => void) => () => {
    if (editor.selected !== null) deed(editor.selected);
  };
  return [
    { key: "n", text: "scene.add", run: () => write(editor.add()) },
    { key: "ArrowUp", text: "scene.keys.move", run: () => undefined },
    { key: "shift+ArrowUp", text: "scene.keys.resize", run: () => undefined },
    { key: "Enter", text: "scene.keys.write", run: inHand(write) },
    { key: "Delete", text: "scene.keys.remove", run: inHand((number) => editor.remove(number)) },
    { key: "PageUp", text: "scene.nearer", run: inHand((number) => editor.bring(number, 1)) },
    { key: "PageDown", text: "scene.farther", run: inHand((number) => editor.bring(number, -1)) },
    { key: "o", text: "scene.outlines", run: () => (editor.outlines = !editor.outlines) },
    { key: "ctrl+z", text: "action.undo", run: () => editor.undo() },
    { key: "ctrl+shift+z", text: "edit.redo", run: () => editor.redo() },
    { key: "+", text: "edit.zoomIn", run: () => zoomIn(editor) },
    { key: "-", text: "edit.zoomOut", run: () => zoomOut(editor) },
    { key: "0", text: "edit.fit", run: () => (editor.moved = false) },
    { key: "ctrl+Enter", text: "draw.submit", typing: true, run: () => void draw() },
  ];
}
