import { expect, it } from "vitest";
import { withoutRecord } from "./webp";

const text = (value: string): number[] => [...value].map((each) => each.charCodeAt(0));

function chunk(type: string, content: number[]): number[] {
  return [...text(type), content.length, 0, 0, 0, ...content, ...(content.length % 2 ? [0] : [])];
}

function file(...chunks: number[][]): number[] {
  const content = [...text("WEBP"), ...chunks.flat()];
  return [...text("RIFF"), content.length, 0, 0, 0, ...content];
}

it("leaves a WebP's frames and drops what it tells", () => {
  const frames = [
    chunk("ANIM", [0, 0, 0, 0, 0, 0]),
    chunk("ANMF", text("one")),
    chunk("ANMF", text("other")),
  ];
  const whole = file(
    chunk("VP8X", [0x1e, 0, 0, 0]),
    ...frames,
    chunk("EXIF", text("tells")),
    chunk("XMP ", text("more")),
  );
  expect([...withoutRecord(new Uint8Array(whole))]).toEqual(file(chunk("VP8X", [0x12, 0, 0, 0]), ...frames));
});
