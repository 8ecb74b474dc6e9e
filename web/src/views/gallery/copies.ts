/** A picture's request as texts to paste elsewhere: as command, as Python, as curl. */

import type { DrawFields } from "$lib/api";
import { NOT_OF_CLIPS, ofPicture } from "$lib/request";

type Fields = Record<string, unknown>;

/** Fields that are options of `sfumato generate` by their own names. */
const OPTIONS: readonly string[] = [
  "negative",
  "width",
  "height",
  "steps",
  "guidance",
  "guidance_rescale",
  "sampler",
  "spacing",
  "seed",
  "style",
  "dialect",
  "templates",
  "variation_seed",
  "variation_amount",
  "fast",
  ...NOT_OF_CLIPS,
  "seamless",
  "clip_skip",
  "decoder",
  "model",
];

/**
 * The request that draws one picture of a job again: as it was typed, with its own seed.
 * Where templates were drawn in turn, as the prompt was filled in for this one.
 */
export function sameAgain(job: Fields, drawn: Fields, seed: number): DrawFields {
  const fields: Fields = { ...ofPicture(job, seed) };
  if (Array.isArray(drawn["variation_seed"]) && drawn["variation_seed"].length > 0)
    fields["variation_seed"] = drawn["variation_seed"];
  if (job["templates"] === "combinatorial") {
    Object.assign(fields, { prompt: drawn["prompt"], negative: drawn["negative"], templates: "off" });
    delete fields["style"];
    if (!fields["negative"]) delete fields["negative"];
  }
  return fields as DrawFields;
}

/** A text as one word of a POSIX shell. */
export const quoted = (text: string): string =>
  /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;

function option(name: string, value: unknown): string[] {
  const flag = `--${name.replaceAll("_", "-")}`;
  if (value === true) return [flag];
  if (value === false) return [`--no-${name.replaceAll("_", "-")}`];
  return [value].flat().map((each) => {
    const text = String(each);
    return text.startsWith("-") ? `${flag}=${quoted(text)}` : `${flag} ${quoted(text)}`;
  });
}

function lora(adapter: Fields): string[] | null {
  if (Object.keys(adapter).some((key) => !["name", "weight", "text_weight", "blocks"].includes(key)))
    return null;
  if (adapter["blocks"] && Object.keys(adapter["blocks"]).length > 0) return null;
  const parts = [adapter["name"], adapter["weight"] ?? 1];
  if (adapter["text_weight"] != null) parts.push(adapter["text_weight"]);
  return [`--lora ${quoted(parts.join(":"))}`];
}

/** `sfumato NAME` with the options of a request and others; null where options cannot say all of it. */
export function commandOf(name: string, fields: DrawFields, more: readonly string[] = []): string | null {
  const { prompt = "", ...rest } = fields as Fields;
  const options: string[] = [];
  for (const [field, value] of Object.entries(rest)) {
    const found =
      field === "adapters"
        ? (value as Fields[]).map(lora).reduce((all, each) => all && each && [...all, ...each], [])
        : OPTIONS.includes(field)
          ? option(field, value)
          : null;
    if (found === null) return null;
    options.push(...found);
  }
  const text = quoted(String(prompt));
  // what begins with a dash is no option: it goes last
  const words = String(prompt).startsWith("-")
    ? [...options, ...more, "--", text]
    : [text, ...options, ...more];
  return ["sfumato", name, ...words].join(" ");
}

/** The command that draws it; where options cannot say it all, the one that reads the picture's record. */
export const command = (fields: DrawFields, file: string): string =>
  commandOf("generate", fields) ?? `sfumato replay ${quoted(file)}`;

/** A value as Python writes it. */
export function python(value: unknown): string {
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (typeof value === "object")
    return `{${Object.entries(value)
      .map(([name, each]) => `${JSON.stringify(name)}: ${python(each)}`)
      .join(", ")}}`;
  return JSON.stringify(value);
}

export function program(fields: DrawFields, file: string, server: string): string {
  const { prompt = "", ...rest } = fields as Fields;
  const given = Object.entries(rest).map(([name, value]) => `${name}=${python(value)}`);
  const [name, call] = fields.frames == null ? ["image", "generate"] : ["video", "animate"];
  return [
    "import sfumato",
    "",
    `studio = sfumato.connect(${python(server)})`,
    `${name} = studio.${call}(${[python(prompt), ...given].join(", ")})`,
    `${name}.save(${python(file)})`,
    "",
  ].join("\n");
}

export const curl = (fields: DrawFields, server: string): string =>
  `curl ${server}/api/v1/jobs --json ${quoted(JSON.stringify({ request: fields }))}`;

interface Named {
  prompt: string;
  seed: number | string;
  /** Of a clip. */
  frames?: number | null;
}

/** A name for a picture's file, as the command would give it. */
export function fileName({ prompt, seed, frames }: Named): string {
  const words = prompt
    .toLowerCase()
    .replace(/[^\p{L}\p{N}]+/gu, "-")
    .slice(0, 60)
    .replace(/^-+|-+$/g, "");
  return `${words || "picture"}-${seed}.${frames == null ? "png" : "webp"}`;
}
