/** A picture file that was dropped, pasted or chosen, and what it says of how it was drawn. */

import { api, ApiError, type Inspection } from "./api";
import { t } from "./i18n.svelte";
import { toasts } from "./toasts.svelte";

class Inspecting {
  /** What was found, while it is shown. */
  found = $state.raw<{ name: string; image: string; says: Inspection } | null>(null);

  async read(file: File): Promise<void> {
    if (!file.type.startsWith("image/")) {
      toasts.say(t("inspect.noPicture", { name: file.name }), { danger: true });
      return;
    }
    try {
      const image = await dataUrl(file);
      this.found = { name: file.name, image, says: await api.inspect(image) };
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      toasts.say(error.offline ? t("offline.title") : error.message, { danger: true });
    }
  }

  close(): void {
    this.found = null;
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
