/** PNG files without what they say of how they were drawn. */

import { joined } from "./bytes";

const SIGNATURE_BYTES = 8;
/** Length, type and checksum of a chunk. */
const FRAME_BYTES = 12;
const TELLING = new Set(["tEXt", "zTXt", "iTXt", "eXIf", "tIME"]);

/** The same picture without text, EXIF and time. */
export function withoutRecord(png: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const view = new DataView(png.buffer, png.byteOffset, png.byteLength);
  const kept = [png.subarray(0, SIGNATURE_BYTES)];
  for (let at = SIGNATURE_BYTES; at + FRAME_BYTES <= png.length;) {
    const end = at + FRAME_BYTES + view.getUint32(at);
    const type = String.fromCharCode(...png.subarray(at + 4, at + 8));
    if (!TELLING.has(type)) kept.push(png.subarray(at, end));
    at = end;
  }
  return joined(kept);
}
