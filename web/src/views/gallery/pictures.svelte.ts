/** The pictures that fit a search, fetched page by page as one scrolls, and what is done to them. */

import { SvelteSet } from "svelte/reactivity";
import { api, type Picture } from "$lib/api";
import { events } from "$lib/events.svelte";
import { t } from "$lib/i18n.svelte";
import { jobs } from "$lib/stores/jobs.svelte";
import { toasts } from "$lib/toasts.svelte";
import { attempt } from "../draw/submit.svelte";
import { isFiltered, parsed, type Query } from "./query";

const FIRST_PAGE = 100;
const PAGE = 500;

class Pictures {
  all = $state.raw<readonly Picture[]>([]);
  /** Drawn since, and not shown yet, so that nothing moves under the reader's eyes. */
  fresh = $state.raw<readonly Picture[]>([]);
  state = $state<"loading" | "ready" | "failed">("loading");
  more = $state(true);
  readonly selected = new SvelteSet<string>();
  #query: Query = { search: "" };
  #text: string | null = null;
  /** Counts searches: an answer to an earlier one is not taken. */
  #turn = 0;
  #older: Promise<void> | null = null;

  get chosen(): Picture[] {
    return this.all.filter((picture) => this.selected.has(picture.id));
  }

  /** Follow the server until the function that is returned is called. */
  start(): () => void {
    const stops = [
      events.onOpen(() => {
        if (this.#text !== null) void (this.all.length === 0 ? this.#fetch() : this.#look());
      }),
      events.on("picture", () => void this.#look()),
      events.on("picture_changed", ({ picture }) => this.put(picture)),
    ];
    return () => stops.forEach((stop) => stop());
  }

  /** Show what fits `text`. */
  search(text: string): void {
    if (text === this.#text) return;
    this.#text = text;
    this.#query = parsed(text);
    this.selected.clear();
    void this.#fetch();
  }

  get filtered(): boolean {
    return isFiltered(this.#query);
  }

  get showsDeleted(): boolean {
    return this.#query.deleted === true;
  }

  retry(): void {
    void this.#fetch();
  }

  /** Fetch the next page, once at a time. */
  older(): Promise<void> {
    this.#older ??= this.#next().finally(() => (this.#older = null));
    return this.#older;
  }

  showFresh(): void {
    this.all = [...this.fresh, ...this.all];
    this.fresh = [];
  }

  find(id: string): Picture | undefined {
    return this.all.find((each) => each.id === id);
  }

  /** A picture is now so; it leaves where it fits no longer. */
  put(picture: Picture): void {
    jobs.changed(picture);
    const fits =
      (picture.deleted != null) === this.showsDeleted &&
      (this.#query.favourite === undefined || picture.favourite) &&
      (this.#query.tag === undefined || (picture.tags ?? []).includes(this.#query.tag));
    const known = this.find(picture.id) !== undefined;
    if (!fits) {
      this.selected.delete(picture.id);
      if (known) this.all = this.all.filter((each) => each.id !== picture.id);
    } else if (known) this.all = this.all.map((each) => (each.id === picture.id ? picture : each));
    else void this.#look();
    this.fresh = this.fresh.filter((each) => each.id !== picture.id);
  }

  favour(picture: Picture): void {
    void attempt(async () => this.put(await api.change(picture.id, { favourite: !picture.favourite })));
  }

  tag(picture: Picture, tags: string[]): void {
    void attempt(async () => this.put(await api.change(picture.id, { tags })));
  }

  /** Delete pictures; the message that says so takes it back. */
  remove(pictures: readonly Picture[]): void {
    void attempt(async () => {
      for (const picture of pictures) this.put(await api.remove(picture.id));
      toasts.say(t("picture.deleted", { count: pictures.length }), { undo: () => this.restore(pictures) });
    });
  }

  restore(pictures: readonly Picture[]): void {
    void attempt(async () => {
      for (const picture of pictures) {
        const restored = await api.restore(picture.id);
        // it stood in this list, and goes back to where it was
        if (!this.showsDeleted && !this.find(picture.id)) this.all = inOrder([...this.all, restored]);
        this.put(restored);
      }
    });
  }

  async #fetch(): Promise<void> {
    const turn = ++this.#turn;
    if (this.all.length === 0) this.state = "loading";
    try {
      const found = await api.pictures({ ...this.#query, limit: FIRST_PAGE });
      if (turn !== this.#turn) return;
      this.all = found;
      this.fresh = [];
      this.more = found.length === FIRST_PAGE;
      this.state = "ready";
    } catch {
      if (turn === this.#turn && this.all.length === 0) this.state = "failed";
    }
  }

  async #next(): Promise<void> {
    const last = this.all.at(-1);
    if (!this.more || last === undefined) return;
    const turn = this.#turn;
    const found = await api.pictures({ ...this.#query, before: last.id, limit: PAGE }).catch(() => null);
    if (turn !== this.#turn || found === null) return;
    const known = new Set(this.all.map((each) => each.id));
    this.all = [...this.all, ...found.filter((each) => !known.has(each.id))];
    this.more = found.length === PAGE;
  }

  /** See what is new, or has come back: at its place where that is shown, else to be shown when one asks. */
  async #look(): Promise<void> {
    const turn = this.#turn;
    const found = await api.pictures({ ...this.#query, limit: FIRST_PAGE }).catch(() => null);
    if (found === null || turn !== this.#turn) return;
    const known = new Set(this.all.map((each) => each.id));
    const newest = this.all[0]?.created ?? 0;
    const others = found.filter((each) => !known.has(each.id));
    const back = others.filter((each) => each.created < newest);
    if (back.length > 0) this.all = inOrder([...this.all, ...back]);
    this.fresh = others.filter((each) => each.created >= newest);
    if (this.all.length === 0 || window.scrollY < 100) this.showFresh();
  }
}

const inOrder = (all: Picture[]): Picture[] =>
  all.sort((a, b) => b.created - a.created || b.number - a.number);

export const pictures = new Pictures();
