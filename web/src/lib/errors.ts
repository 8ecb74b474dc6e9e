/** What the server says against something, in the page's language where the table of texts has it. */

import { duration, t } from "./i18n.svelte";
import { texts, type Key } from "./texts";

export interface ServerError {
  /** The server's own sentence, in English. */
  message: string;
  code?: string | null | undefined;
  values?: Record<string, string> | null | undefined;
  /** After which it may be tried again. */
  seconds?: number | null | undefined;
}

export function worded({ message, code, values, seconds }: ServerError): string {
  const key = `error.${code}`;
  if (!(key in texts)) return message;
  const wait = seconds ?? 1;
  const read = Object.entries(values ?? {}).map(([name, value]): [string, string | number] => [
    name,
    /^\d+$/.test(value) ? Number(value) : value,
  ]);
  return t(key as Key, { ...Object.fromEntries(read), seconds: wait, time: duration(wait) });
}

/** What may have failed, as the server tells it. */
export interface Failed {
  error?: string | null | undefined;
  /** Its name, for the table of texts. */
  error_code?: string | null | undefined;
  error_values?: Record<string, string> | null | undefined;
}

/** Why a job failed. */
export const reason = (job: Failed): string =>
  worded({
    message: job.error ?? t("job.failed"),
    code: job.error_code,
    values: job.error_values,
  });

/** What of a job or its event tells why it failed. */
export const failureOf = ({ error, error_code, error_values }: Failed): Required<Failed> => ({
  error: error ?? null,
  error_code: error_code ?? null,
  error_values: error_values ?? null,
});
