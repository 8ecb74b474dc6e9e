/** Names of a request's fields, in the page's language. */

import { number, t } from "./i18n.svelte";
import { texts, type Key } from "./texts";

const plain = (name: string): string => {
  const key = `setting.${name}`;
  return key in texts ? t(key as Key) : name.replaceAll("_", " ");
};

/** A field in words; of one inside another, as `elements.0.prompt`, all of the way to it; of `prompt~word` both. */
export function fieldName(field: string): string {
  const [name = "", word] = field.split("~");
  const found = name
    .split(/[.[\]]+/)
    .filter((part) => part !== "")
    .map((part) => (/^\d+$/.test(part) ? String(Number(part) + 1) : plain(part)))
    .join(" ");
  return word === undefined ? found : `${found} (${word})`;
}

/** The value of a field, in words and numbers. */
export function fieldText(name: string, value: unknown): string {
  if (typeof value === "boolean") return t(value ? "setting.on" : "setting.off");
  if (typeof value === "number") return name.endsWith("seed") ? String(value) : number(value, 4);
  if (typeof value === "string") return value.length > 200 ? t("setting.picture") : value;
  if (Array.isArray(value)) return value.map((each) => fieldText(name, each)).join(", ");
  // an adapter has a name, a control its network's
  const { model, name: called = model, weight, data } = value as Record<string, unknown>;
  if (called !== undefined)
    return weight === undefined ? String(called) : `${String(called)} ${String(weight)}`;
  if (data !== undefined) return t("setting.picture");
  return Object.entries(value as Record<string, unknown>)
    .filter(([, each]) => each !== null)
    .map(([key, each]) => `${plain(key)} ${fieldText(key, each)}`)
    .join(", ");
}
