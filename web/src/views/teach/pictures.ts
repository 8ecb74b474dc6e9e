/** Pictures to teach, as they are sent: those of a camera made smaller first. */

import { dataUrl } from "$lib/inspecting.svelte";

export interface Example {
  name: string;
  /** Its bytes, a data URL. */
  image: string;
}

/** Bytes up to which a file is sent as it is. */
const MOST_BYTES = 2 ** 21;
/** Pixels of the longer side of one that is not: more than any model learns from. */
const MOST_SIDE = 1536;

/** A file as it is sent; `null` for what the browser cannot read as a picture. */
export async function example(file: File): Promise<Example | null> {
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
