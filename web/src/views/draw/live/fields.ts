/** What live drawing makes of the form: few steps, the quickest decoder, one picture. */

import type { DrawFields, Model } from "$lib/api";
import { OF_CLIPS } from "$lib/request";

export interface StepRange {
  least: number;
  most: number;
  usual: number;
}

/** Steps of a model that is made for so few, at most. */
const FEW = 8;

/** The steps that may be chosen for live drawing with a model. */
export function stepRange(model: Model): StepRange {
  if (model.few_steps) return { least: 1, most: 4, usual: 2 };
  const own = model.defaults?.steps ?? FEW;
  return own <= FEW ? { least: 1, most: FEW, usual: own } : { least: 4, most: 2 * FEW, usual: FEW };
}

/** Fields without a meaning for who draws `fast`: that has learned one guidance and one sampler. */
const NOT_FAST = ["negative", "guidance", "sampler", "spacing"] as const;

/** Those fields of the form that count only when the picture is drawn with all steps. */
export const leftOut = (
  fields: DrawFields,
  model: Model,
): ("steps" | "frames" | (typeof NOT_FAST)[number])[] =>
  (["steps", "frames", ...(model.few_steps ? NOT_FAST : [])] as const).filter(
    (name) => fields[name] !== undefined,
  );

/** The part of the steps that is taken where a picture is begun with, if nothing else is said. */
const USUAL_STRENGTH = 0.8;

/** So many steps that `taken` of them are drawn: of a picture that is begun with, the first ones are left out. */
function stepsFor(fields: DrawFields, taken: number): number {
  const whole = fields.image === undefined || fields.mask != null || fields.extend != null;
  const strength = fields.strength ?? (whole ? 1 : USUAL_STRENGTH);
  return fields.image === undefined ? taken : Math.min(Math.ceil(taken / Math.max(strength, 0.1)), 100);
}

/** The request of a live picture; `steps` are those that are drawn, within the model's range, `seed` counts where the form has none. */
export function liveFields(fields: DrawFields, model: Model, steps: number, seed: number): DrawFields {
  const unused: readonly string[] = ["count", "templates", ...OF_CLIPS, ...leftOut(fields, model)];
  const own = Object.fromEntries(Object.entries(fields).filter(([name]) => !unused.includes(name)));
  return {
    seed,
    ...own,
    steps: model.task === "instruct" ? steps : stepsFor(own, steps),
    ...(model.few_steps && { fast: true }),
    ...(model.decoders?.includes("tiny") && { decoder: "tiny" }),
    // one picture, not each that a template stands for
    ...(fields.templates === "off" && { templates: "off" }),
  };
}
