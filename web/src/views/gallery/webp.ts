/** WebP files without what they say of how they were drawn. */

import { joined } from "./bytes";

/** "RIFF", the length of what follows, "WEBP". */
const HEAD_BYTES = 12;
/** Type and length of a chunk. */
const CHUNK_HEAD_BYTES = 8;
const TELLING = new Set(["EXIF", "XMP "]);
/** The flags of the chunk VP8X that say that there is EXIF and XMP. */
const TELLING_FLAGS = 0x0c;

/** The same picture or clip without EXIF and XMP. */
export function withoutRecord(webp: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const view = new DataView(webp.buffer, webp.byteOffset, webp.byteLength);
  const kept = [webp.slice(0, HEAD_BYTES)];
  for (let at = HEAD_BYTES; at + CHUNK_HEAD_BYTES <= webp.length;) {
    const length = view.getUint32(at + 4, true);
    // chunks begin at even places
    const end = at + CHUNK_HEAD_BYTES + length + (length % 2);
    const type = String.fromCharCode(...webp.subarray(at, at + 4));
    const chunk = webp.slice(at, end);
    if (type === "VP8X") chunk[CHUNK_HEAD_BYTES] = (chunk[CHUNK_HEAD_BYTES] ?? 0) & ~TELLING_FLAGS;
    if (!TELLING.has(type)) kept.push(chunk);
    at = end;
  }
  const whole = joined(kept);
  new DataView(whole.buffer).setUint32(4, whole.length - 8, true);
  return whole;
}
