/** What the search box says: words of prompts, and `seed:7 style:noto is:favourite` among them. */

/** The query of `GET /api/v1/pictures`. */
export interface Query {
  search: string;
  seed?: number;
  model?: string;
  sampler?: string;
  style?: string;
  tag?: string;
  favourite?: boolean;
  deleted?: boolean;
}

export const NAMES = ["model", "sampler", "style", "tag", "seed"] as const;
export type Name = (typeof NAMES)[number];
export type State = "favourite" | "deleted";

/** `name:value`, `name:"a value"`, or a word; also while its last quote is still to come. */
const TERM = /(?:(\w+):)?(?:"([^"]*)"?|([^\s"]+))/g;

interface Term {
  text: string;
  name: string;
  value: string;
}

function terms(text: string): Term[] {
  return [...text.matchAll(TERM)].map((match) => ({
    text: match[0],
    name: match[1]?.toLowerCase() ?? "",
    value: match[2] ?? match[3] ?? "",
  }));
}

const isName = (name: string): name is Name => (NAMES as readonly string[]).includes(name);

/** Whether a term says something of a picture; `3:2` and `seed:x` are words. */
function filters({ name, value }: Term): boolean {
  if (name === "is") return value === "favourite" || value === "deleted";
  return isName(name) && value !== "" && (name !== "seed" || /^\d{1,15}$/.test(value));
}

export function parsed(text: string): Query {
  const query: Query = { search: "" };
  const words: string[] = [];
  for (const term of terms(text)) {
    if (!filters(term)) words.push(term.name === "" ? term.value : term.text);
    else if (term.name === "is") query[term.value as State] = true;
    else if (term.name === "seed") query.seed = Number(term.value);
    else query[term.name as Exclude<Name, "seed">] = term.value;
  }
  query.search = words.join(" ").trim();
  return query;
}

/** `text` with one filter set, or without it. */
export function withFilter(text: string, name: Name | "is", value: string | null, other?: string): string {
  const kept = terms(text).filter(
    (term) => !(filters(term) && term.name === name && (name !== "is" || term.value === (other ?? value))),
  );
  const written =
    value === null ? [] : [`${name}:${/[\s"]/.test(value) ? `"${value.replaceAll('"', "")}"` : value}`];
  return [...kept.map((term) => term.text), ...written].join(" ");
}

/** `text` with `is:favourite` or `is:deleted`, or without it. */
export const withState = (text: string, state: State, on: boolean): string =>
  withFilter(text, "is", on ? state : null, state);

export const isFiltered = ({ search, ...rest }: Query): boolean =>
  search !== "" || Object.keys(rest).length > 0;
