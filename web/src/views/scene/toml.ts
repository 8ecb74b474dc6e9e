/** A scene as the file that `sfumato scene` reads. */

import type { DrawFields } from "$lib/api";
import { quoted } from "../gallery/copies";

type Table = Record<string, unknown>;

/** Fields that a background has for itself. */
const BACKGROUND = ["prompt", "negative", "style"];

/** A value as TOML writes it, whose texts are JSON's but for one character. */
function written(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(written).join(", ")}]`;
  if (typeof value === "object" && value !== null)
    return `{ ${Object.entries(value)
      .filter(([, each]) => each !== null)
      .map(([name, each]) => `${name} = ${written(each)}`)
      .join(", ")} }`;
  return JSON.stringify(value).replaceAll("\u007f", "\\u007f");
}

const lines = (table: Table): string[] =>
  Object.entries(table)
    .filter(([, value]) => value !== null && value !== undefined)
    .map(([name, value]) => `${name} = ${written(value)}`);

export function sceneFile({ elements = [], ...fields }: DrawFields): string {
  const all = Object.entries(fields);
  const part = (own: boolean) =>
    Object.fromEntries(all.filter(([name]) => BACKGROUND.includes(name) === own));
  return [
    ...lines(part(false)),
    "",
    "[background]",
    ...lines(part(true)),
    ...elements.flatMap((each) => ["", "[[elements]]", ...lines(each as unknown as Table)]),
    "",
  ].join("\n");
}

/** The commands that write the file and draw it. */
export function sceneCommand(fields: DrawFields, file: string): string {
  return `cat > scene.toml <<'END_OF_SCENE'\n${sceneFile(fields).trimStart()}END_OF_SCENE\nsfumato scene scene.toml -o ${quoted(file)}\n`;
}
