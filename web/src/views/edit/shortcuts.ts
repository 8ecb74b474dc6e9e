/** The keys of the editor. */

import type { Shortcut } from "$lib/keys.svelte";
import { zoomIn, zoomOut } from "$lib/view";
import type { Editor, Tool } from "./editor.svelte";

export const BRUSHES = { min: 2, max: 256 };

export function resize(editor: Editor, factor: number): void {
  const size = Math.round(editor.brush * factor);
  editor.brush = Math.min(Math.max(size, BRUSHES.min), BRUSHES.max);
}

export function shortcuts(editor: Editor): Shortcut[] {
  const take = (tool: Tool) => () => (editor.tool = tool);
  return [
    { key: "b", text: "edit.tool.brush", run: take("brush") },
    { key: "e", text: "edit.tool.eraser", run: take("eraser") },
    { key: "f", text: "edit.tool.fill", run: take("fill") },
    { key: "p", text: "edit.tool.paint", run: take("paint") },
    { key: "x", text: "edit.tool.extend", run: take("extend") },
    { key: "m", text: "edit.tool.move", run: take("move") },
    { key: "[", text: "edit.smaller", run: () => resize(editor, 0.8) },
    { key: "]", text: "edit.larger", run: () => resize(editor, 1.25) },
    { key: "i", text: "edit.invert", run: () => editor.mask?.invert() },
    { key: "Delete", text: "edit.clear", run: () => editor.layer?.clear() },
    { key: "ctrl+z", text: "action.undo", run: () => editor.layer?.undo() },
    { key: "ctrl+shift+z", text: "edit.redo", run: () => editor.layer?.redo() },
    { key: "+", text: "edit.zoomIn", run: () => zoomIn(editor) },
    { key: "-", text: "edit.zoomOut", run: () => zoomOut(editor) },
    { key: "0", text: "edit.fit", run: () => (editor.moved = false) },
    { key: "c", text: "edit.compare.hold", run: () => (editor.compares = editor.before !== null) },
    { key: "alt+l", text: "keys.live", typing: true, run: () => (editor.isLive = !editor.isLive) },
    { key: "ctrl+Enter", text: "draw.submit", typing: true, run: () => void editor.draw() },
  ];
}
