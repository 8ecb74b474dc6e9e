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
    toasts.say(told(error), { danger: true, retry: later ? () => void attempt(deed) : null });
    return false;
  }
}

/** What went wrong, in the page's language where the page knows more than the server. */
export function told(error: ApiError): string {
  if (error.offline) return t("offline.title");
  if (error.status === 429) return t("draw.full", { count: error.retryAfter ?? 1 });
  return error.message;
}
