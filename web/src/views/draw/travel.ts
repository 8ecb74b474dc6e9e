/** Prompt travel as a form holds it: texts by the frames from which they count. */

export type Travel = Record<string, string>;

const MOST = 64;

export const stopsOf = (travel: Travel): { frame: number; text: string }[] =>
  Object.entries(travel)
    .map(([frame, text]) => ({ frame: Number(frame), text }))
    .sort((one, other) => one.frame - other.frame);

export const without = (travel: Travel, frame: number): Travel =>
  Object.fromEntries(Object.entries(travel).filter(([each]) => each !== String(frame)));

/** A stop at another frame; null where that is none of the clip's, or has a text. */
export function renamed(travel: Travel, frame: number, to: number, frames: number): Travel | null {
  if (to === frame) return travel;
  if (!Number.isInteger(to) || to < 0 || to >= frames || String(to) in travel) return null;
  return { ...without(travel, frame), [to]: travel[frame] ?? "" };
}

/** The frame that the next stop is offered at: half the way on to the end of the clip; null where none is left. */
export function nextFrame(travel: Travel, frames: number): number | null {
  const stops = stopsOf(travel);
  if (stops.length >= Math.min(MOST, frames)) return null;
  const last = stops.at(-1)?.frame ?? 0;
  const offered = Math.min(last + Math.max(Math.ceil((frames - 1 - last) / 2), 1), frames - 1);
  if (!(offered in travel)) return offered;
  const free = Array.from({ length: frames }, (_, frame) => frame).filter((frame) => !(frame in travel));
  return free.at(-1) ?? null;
}
