/** The page's language: the reader's choice, else the browser's. */

import { isOneOf, Stored } from "./stored.svelte";
import { texts, type Key, type Language } from "./texts";

export const LANGUAGES: Record<Language, string> = { en: "English", de: "Deutsch" };

const chosen = new Stored<Language | "auto">("language", "auto", isOneOf("auto", "en", "de"));

const preferred = (): Language =>
  typeof navigator !== "undefined" && navigator.language.startsWith("de") ? "de" : "en";

export const language = {
  get current(): Language {
    return chosen.value === "auto" ? preferred() : chosen.value;
  },
  set current(value: Language) {
    chosen.value = value;
  },
};

/**
 * The text of a key in the page's language, its `{names}` filled in.
 * A key `x` with an entry `x.one` takes that one where `count` is 1.
 */
export function t(key: Key, values: Record<string, string | number> = {}): string {
  const single = `${key}.one`;
  const found = values["count"] === 1 && single in texts ? texts[single as Key] : texts[key];
  return found[language.current].replace(/\{(\w+)\}/g, (whole, name: string) => {
    const value = values[name];
    return value === undefined ? whole : typeof value === "number" ? number(value) : value;
  });
}

/** A number as the language writes it. */
export function number(value: number, digits = 2): string {
  return new Intl.NumberFormat(language.current, { maximumFractionDigits: digits }).format(value);
}

/** A share from 0 to 1 as the language writes it. */
export function percent(share: number): string {
  return new Intl.NumberFormat(language.current, { style: "percent" }).format(share);
}

/** A point in time (seconds since 1970) as the language writes it. */
export function moment(seconds: number): string {
  return new Intl.DateTimeFormat(language.current, { dateStyle: "medium", timeStyle: "short" }).format(
    seconds * 1000,
  );
}

/** A length of time, given in seconds, as roughly as one says it. */
export function duration(seconds: number): string {
  const whole = Math.max(Math.round(seconds), 1);
  if (whole < 100) return t("time.seconds", { count: whole });
  const minutes = Math.round(whole / 60);
  if (minutes < 100) return t("time.minutes", { count: minutes });
  return t("time.hours", { count: Math.floor(minutes / 60), minutes: minutes % 60 });
}
