/** A picture file that was dropped, pasted or chosen, and what it says of how it was drawn. */

import { api, ApiError, type Inspection } from "./api";
import { number, t } from "./i18n.svelte";
import type { Key } from "./texts";
import { toasts } from "./toasts.svelte";

const MEBI = 2 ** 20;
/** In base64 it is less than what a server takes (its `--max-body`). */
const MOST_BYTES = 64 * MEBI;

interface Found {
  name: string;
  /** Its bytes, a data URL. */
  image: string;
  says: Inspection;
}

/** What a view does with a picture that is dropped on the page or pasted, and what is said while it is over it. */
interface Taker {
  text: Key;
  take: (file: File) => void;
}

class Inspecting {
  /** What was found, while it is shown. */
  found = $state.raw<Found | null>(null);
  taker = $state.raw<Taker>({ text: "gallery.drop", take: (file) => void this.read(file) });

  async read(file: File): Promise<void> {
    this.found = await inspected(file);
  }

  close(): void {
    this.found = null;
  }

  /** Have a view take what is dropped until the function that is returned is called. */
  use(taker: Taker): () => void {
    const before = this.taker;
    this.taker = taker;
    return () => (this.taker = before);
  }
}

/** What a picture file says of how it was drawn; `null` for one that is refused, which is told. */
export async function inspected(file: File): Promise<Found | null> {
  const { name } = file;
  try {
    if (!file.type.startsWith("image/")) throw new ApiError(t("inspect.noPicture", { name }), 415);
    if (file.size > MOST_BYTES) {
      const size = { name, size: number(file.size / MEBI, 0), most: number(MOST_BYTES / MEBI) };
      throw new ApiError(t("inspect.tooLarge", size), 413);
    }
    const image = await dataUrl(file);
    return { name, image, says: await api.inspect(image) };
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    const told = error.status === 400 || error.status === 422 ? `${name}: ${error.message}` : error.message;
    toasts.say(told, { danger: true });
    return null;
  }
}

/** Bytes as a data URL, as the API takes pictures. */
export function dataUrl(file: Blob): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result as string);
    reader.onerror = () => reject(reader.error ?? new Error("the file could not be read"));
    reader.readAsDataURL(file);
  });
}

export const inspecting = new Inspecting();
