/** A grid as a command to paste elsewhere. */

import type { DrawFields, GridAxis } from "$lib/api";
import { commandOf, quoted } from "../gallery/copies";

const OPTIONS = ["--x", "--y", "--z"];

/** A value of a list, as CSV has it. */
const listed = (value: string): string => (/[",]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);

/** The command that draws the grid; null where its options cannot say all of the request. */
export function gridCommand(fields: DrawFields, axes: readonly GridAxis[]): string | null {
  const given = axes.map(
    ({ field, values }, index) => `${OPTIONS[index]} ${quoted(`${field}=${values.map(listed).join(",")}`)}`,
  );
  return commandOf("grid", fields, given);
}
