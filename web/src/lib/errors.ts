/**
 * What the server says, in the page's language: its sentences are English, and the table of texts has words for those
 * whose form is known (`error-sentences.json`, made of the server's own table of error codes by `make page-types`).
 */

import sentences from "./error-sentences.json";
import { fieldName } from "./fields";
import { duration, language, t } from "./i18n.svelte";
import { texts, type Key } from "./texts";

const TABLE = Object.entries(sentences).map(([code, form]) => [code, new RegExp(form)] as const);

/** What of a sentence is itself a sentence. */
const SENTENCE = "why";
/** A list of choices: "'a', 'b' or 'c'". */
const CHOICES = "choices";
const FIELDS = ["field", "other_field"];

function valueOf(name: string, value: string): string | number {
  if (name === SENTENCE) return worded(value);
  if (FIELDS.includes(name)) return fieldName(value);
  if (name === CHOICES) return value.replaceAll(" or ", ", ");
  const bare = value.replace(/^(['"])(.*)\1$/, "$2");
  return /^[\d,]*\d$/.test(bare) ? Number(bare.replaceAll(",", "")) : bare;
}

/** A sentence in the page's language; null where the table has no words for it. */
function translated(sentence: string, seconds: number | null): string | null {
  for (const [code, form] of TABLE) {
    const found = form.exec(sentence);
    const key = `error.${code}`;
    if (!found || !(key in texts)) continue;
    const values = Object.entries(found.groups ?? {})
      .filter(([, value]) => value !== undefined)
      .map(([name, value]): [string, string | number] => [name, valueOf(name, value)]);
    const wait = seconds ?? 1;
    return t(key as Key, { ...Object.fromEntries(values), seconds: wait, time: duration(wait) });
  }
  return null;
}

/** Why something is refused or failed. `seconds`: after which it may be tried again, where the server says so. */
export const worded = (sentence: string, seconds: number | null = null): string =>
  translated(sentence, seconds) ??
  (language.current === "en" ? sentence : t("failure.unknown", { text: sentence }));

/** What is noted of something; a setting of another program, as "Clip skip: 2", stays as it is. */
export const noted = (sentence: string): string => translated(sentence, null) ?? sentence;

/** Why a job failed. */
export const reason = ({ error }: { error?: string | null | undefined }): string =>
  error ? worded(error) : t("job.failed");
