/** A grid as a command to paste elsewhere. */

import type { DrawFields, GridAxis } from "$lib/api";
import { commandOf, quoted } from "../gallery/copies";

const OPTIONS = ["--x", "--y", "--z"];

/** As CSV has it where `special` is in it. */
const listed = (text: string, special: RegExp): string =>
  special.test(text) ? `"${text.replaceAll('"', '""')}"` : text;

/** The command that draws the grid; null where its options cannot say all of the request. */
export function gridCommand(fields: DrawFields, axes: readonly GridAxis[]): string | null {
  const given = axes.map(({ field, values }, index) => {
    const list = values.map((value) => listed(value, /[",]/)).join(",");
    return `${OPTIONS[index]} ${quoted(`${listed(field, /[="]/)}=${list}`)}`;
  });
  return commandOf("grid", fields, given);
}
