import { expect, it } from "vitest";
import { withoutRecord } from "./png";

function chunk(type: string, content: string): number[] {
  const text = (value: string) => [...value].map((each) => each.charCodeAt(0));
  return [0, 0, 0, content.length, ...text(type), ...text(content), 1, 2, 3, 4];
}

it("leaves a PNG's picture and drops what it tells", () => {
  const head = [137, 80, 78, 71, 13, 10, 26, 10];
  const ends = [chunk("IHDR", "header"), chunk("IDAT", "pixels"), chunk("IEND", "")];
  const telling = [chunk("tEXt", "sfumato\0{}"), chunk("iTXt", "x"), chunk("eXIf", "y")];
  const file = [head, ends[0], ...telling, ends[1], ends[2]].flat() as number[];
  expect([...withoutRecord(new Uint8Array(file))]).toEqual([head, ...ends].flat());
});
