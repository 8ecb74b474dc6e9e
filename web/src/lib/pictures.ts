/** Pictures that requests begin with: as they are sent, and as they are shown. */

import { inputThumbnailUrl } from "./api";
import { dataUrl } from "./inspecting.svelte";

export interface SentPicture {
  name: string;
  /** Its bytes, a data URL. */
  image: string;
}

/** Bytes up to which a file is sent as it is. */
const MOST_BYTES = 2 ** 21;
/** Pixels of the longer side of one that is not: more than any model learns from, and most draw. */
const MOST_SIDE = 1536;

/** A file as it is sent, that of a camera smaller; `null` for what the browser cannot read as a picture. */
export async function sentPicture(file: File): Promise<SentPicture | null> {
  try {
    const picture = await createImageBitmap(file);
    const { width, height } = picture;
    const scale = MOST_SIDE / Math.max(width, height);
    const blob = file.size > MOST_BYTES && scale < 1 ? await smaller(picture, scale) : file;
    picture.close();
    return { name: file.name, image: await dataUrl(blob) };
  } catch {
    return null;
  }
}

async function smaller(picture: ImageBitmap, scale: number): Promise<Blob> {
  const canvas = new OffscreenCanvas(Math.round(picture.width * scale), Math.round(picture.height * scale));
  const context = canvas.getContext("2d");
  if (context === null) throw new Error("no canvas");
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  // a WebP keeps what is transparent
  return canvas.convertToBlob({ type: "image/webp", quality: 0.95 });
}

/** Where a request's picture is seen: given as a data URL, with its bytes in base64, or by its hash alone. */
export function pictureUrl(picture: unknown): string {
  if (typeof picture === "string") return picture;
  const { sha256, data } = picture as { sha256: string; data?: string | null };
  return data ? `data:;base64,${data.replaceAll("-", "+").replaceAll("_", "/")}` : inputThumbnailUrl(sha256);
}
