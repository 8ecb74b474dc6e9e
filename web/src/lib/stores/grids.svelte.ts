/** Grids of this server: each fetched once and followed while something shows it. */

import { untrack } from "svelte";
import { SvelteMap } from "svelte/reactivity";
import { api, type Grid, type GridAxis, type GridCell, type Picture } from "../api";
import { events } from "../events.svelte";
import { fieldName, fieldText } from "../fields";
import { language } from "../i18n.svelte";
import { hasEnded } from "./jobs.svelte";

/** Milliseconds in which new jobs of a grid are gathered before it is fetched. */
const PAUSE = 50;

class Grids {
  readonly all = new SvelteMap<string, Grid>();
  /** Those that are not there. */
  readonly gone = new SvelteMap<string, boolean>();
  #shown = new Map<string, number>();
  #fetching = new Map<string, ReturnType<typeof setTimeout>>();
  /** Where the picture of a job stands. */
  #places = new Map<string, { grid: string; place: number }>();
  #stops: (() => void)[] = [];

  /** Follow a grid until the function that is returned is called. */
  follow(grid: string): () => void {
    // what it looks at when it starts is not what an effect that follows depends on
    untrack(() => this.#follow(grid));
    return () => untrack(() => this.#leave(grid));
  }

  put(grid: Grid): void {
    this.all.set(grid.id, grid);
    grid.cells.forEach((cell, place) => {
      if (cell.job !== null) this.#places.set(cell.job, { grid: grid.id, place });
    });
  }

  #follow(grid: string): void {
    if (this.#shown.size === 0) this.#start();
    this.#shown.set(grid, (this.#shown.get(grid) ?? 0) + 1);
    if (events.state === "online") this.#fetch(grid);
  }

  #leave(grid: string): void {
    const left = (this.#shown.get(grid) ?? 1) - 1;
    if (left > 0) this.#shown.set(grid, left);
    else this.#shown.delete(grid);
    if (this.#shown.size === 0) this.#stop();
  }

  #start(): void {
    this.#stops = [
      events.onOpen(() => [...this.#shown.keys()].forEach((grid) => this.#fetch(grid))),
      events.on("state", ({ job, group, state, ...event }) => {
        if (group !== undefined && this.#shown.has(group)) this.#fetch(group);
        this.#change(job, (cell) => ({ ...cell, state, ...(event.error && { error: event.error }) }));
      }),
      events.on("picture", ({ job, picture }) => this.#picture(job, picture)),
      events.on("picture_changed", ({ job, picture }) => this.#picture(job, picture)),
    ];
  }

  #stop(): void {
    this.#stops.forEach((stop) => stop());
    // what nobody follows is old when it is shown again
    this.all.clear();
    this.gone.clear();
    this.#places.clear();
  }

  #picture(job: string, picture: Picture): void {
    this.#change(job, (cell) => ({ ...cell, picture }));
  }

  #change(job: string, change: (cell: GridCell) => GridCell): void {
    const at = this.#places.get(job);
    const grid = at && this.all.get(at.grid);
    if (grid === undefined) return;
    const cells = grid.cells.map((cell) => (cell.job === job ? change(cell) : cell));
    this.all.set(grid.id, { ...grid, cells });
  }

  /** Fetch a grid, soon and once. */
  #fetch(grid: string): void {
    if (this.#fetching.has(grid)) return;
    const fetch = async () => {
      this.#fetching.delete(grid);
      try {
        this.put(await api.grid(grid));
      } catch {
        if (events.state === "online" && !this.all.has(grid)) this.gone.set(grid, true);
      }
    };
    this.#fetching.set(
      grid,
      setTimeout(() => void fetch(), this.all.has(grid) ? PAUSE : 0),
    );
  }
}

export const grids = new Grids();

/** How a grid stands. */
export function standing(grid: Grid): { drawn: number; failed: number; missing: number; open: number } {
  const count = (which: (cell: GridCell) => boolean) => grid.cells.filter(which).length;
  return {
    drawn: count((cell) => cell.picture !== null),
    failed: count((cell) => cell.state === "failed"),
    missing: count((cell) => cell.state === "failed" || cell.state === "cancelled"),
    open: count((cell) => cell.state !== null && !hasEnded(cell.state)),
  };
}

/** About how many seconds it takes until all are drawn, from when the pictures came; null where it cannot be said. */
export function secondsToGo(grid: Grid): number | null {
  const { open } = standing(grid);
  const came = grid.cells
    .flatMap(({ picture }) => (picture === null ? [] : [picture.created]))
    .sort((a, b) => a - b);
  const [first, last] = [came[0], came.at(-1)];
  if (open === 0 || first === undefined || last === undefined || came.length < 2) return null;
  return ((last - first) / (came.length - 1)) * open;
}

/** What stands at the columns, rows and pages of a cell, by its place. */
export function labelsAt(grid: Grid, place: number): string[] {
  let left = place;
  return grid.axes.map((axis) => {
    const at = left % axis.labels.length;
    left = Math.floor(left / axis.labels.length);
    return labelsOf(axis)[at] ?? "";
  });
}

/** What stands at the values of an axis, in the page's language: the server's own labels are English. */
export function labelsOf({ field, labels, values }: GridAxis): readonly string[] {
  if (language.current === "en") return labels;
  const [name = "", word] = field.split("~");
  return labels.map((label, at) => {
    const value = values[at] ?? "";
    // words stand for themselves
    if (label === value) return label;
    const text = value === "true" || value === "false" ? fieldText(name, value === "true") : value;
    return `${word ?? fieldName(name)} ${text}`;
  });
}
