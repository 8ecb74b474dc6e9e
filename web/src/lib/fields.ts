/** Names of a request's fields, in the page's language. */

import { t } from "./i18n.svelte";
import { texts, type Key } from "./texts";

const plain = (name: string): string => {
  const key = `setting.${name}`;
  return key in texts ? t(key as Key) : name.replaceAll("_", " ");
};

/** A field in words; of one inside another, as `elements.0.prompt`, all of the way to it. */
export const fieldName = (field: string): string =>
  field
    .split(/[.[\]]+/)
    .filter((part) => part !== "")
    .map((part) => (/^\d+$/.test(part) ? String(Number(part) + 1) : plain(part)))
    .join(" ");
