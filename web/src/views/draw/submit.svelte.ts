/** Deeds that the server may refuse. */

import { ApiError } from "$lib/api";
import { t } from "$lib/i18n.svelte";
import { toasts } from "$lib/toasts.svelte";

/** Do something; what the server says against it is shown, and it can be tried again. Whether it was done. */
export async function attempt(deed: () => Promise<unknown>): Promise<boolean> {
  try {
    await deed();
    return true;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    const later = error.offline || error.status === 429;
    // what is told stays true when it is there again
    toasts.say(error.offline ? t("offline.notSent") : error.message, {
      danger: true,
      retry: later ? () => void attempt(deed) : null,
    });
    return false;
  }
}
