/** The scene on its canvas: which box is in hand, what is wrong with it, and what is being drawn of it. */

import { api, ApiError, type DrawFields, type Job, type Picture } from "$lib/api";
import { reason } from "$lib/errors";
import { t } from "$lib/i18n.svelte";
import { paths, router } from "$lib/router.svelte";
import { history } from "$lib/stores/history.svelte";
import { hasEnded, jobs } from "$lib/stores/jobs.svelte";
import { library } from "$lib/stores/library.svelte";
import { scene, sceneDrawn } from "$lib/stores/scene.svelte";
import { Stored } from "$lib/stored.svelte";
import { toasts } from "$lib/toasts.svelte";
import type { Size, View } from "$lib/view";
import { sameAgain } from "../gallery/copies";
import { depthOrder, inDepthOrder, problemOf, reordered, type Box } from "./boxes";
import { aloneRequest, boxOf, sceneOf, sceneRequest, seedOf, type SceneElement } from "./requests";

const FALLBACK_SIZE = { width: 256, height: 256 };
const FIRST_BOX: Box = [0.3, 0.3, 0.7, 0.7];

export interface Problem {
  prompt?: string;
  box?: string;
  /** What the server said of it. */
  other?: string;
}

export class SceneEditor {
  /** The number of the element in hand; `null`: the background. */
  selected = $state<number | null>(null);
  /** A box that is being dragged: the scene has it when it is let go. The number of a new one is the next. */
  dragged = $state.raw<{ number: number; box: Box } | null>(null);
  view = $state.raw<View>({ scale: 1, x: 0, y: 0 });
  room = $state.raw<Size>({ width: 0, height: 0 });
  moved = $state(false);
  /** The picture that lies under the boxes. */
  picture = $state.raw<Picture | null>(null);
  /** All that were drawn with it. */
  pictures = $state.raw<readonly Picture[]>([]);
  /** Whether it was tried to draw it: what is not filled in is told from then on. */
  tried = $state(false);
  error = $state<string | null>(null);
  #refused = $state.raw<{ number: number; text: string } | null>(null);
  #sending = $state(false);
  #outlines = new Stored("scene.outlines", true, (value): value is boolean => typeof value === "boolean");

  elements = $derived((scene.get("elements") ?? []) as readonly SceneElement[]);
  boxes = $derived(
    this.elements.map((each, number) => (this.dragged?.number === number ? this.dragged.box : boxOf(each))),
  );
  /** From the farthest to the nearest. */
  order = $derived(depthOrder(this.elements));
  model = $derived(library.model(scene.get("model")));
  size = $derived<Size>({
    width: scene.get("width") ?? this.model?.defaults?.width ?? FALLBACK_SIZE.width,
    height: scene.get("height") ?? this.model?.defaults?.height ?? FALLBACK_SIZE.height,
  });
  job = $derived(jobs.find(sceneDrawn.job.value));
  busy = $derived(this.#sending || (this.job !== undefined && !hasEnded(this.job.state)));
  drawing = $derived(jobs.drawing.get(sceneDrawn.job.value));
  problems = $derived(this.elements.map((each, number) => this.#problem(each, number)));
  hasProblems = $derived(
    (scene.get("prompt") ?? "").trim() === "" ||
      this.problems.some((each) => each.prompt !== undefined || each.box !== undefined),
  );

  get outlines(): boolean {
    return this.#outlines.value;
  }

  set outlines(shown: boolean) {
    this.#outlines.value = shown;
  }

  /** What an element is called where it is spoken of. */
  name(number: number): string {
    return this.elements[number]?.prompt.trim() || t("scene.element", { number: number + 1 });
  }

  /** A new element in the box; it is in front of all others. Its number. */
  add(box: Box = FIRST_BOX): number {
    const number = this.elements.length;
    this.#become([...inDepthOrder(this.elements, this.order), { prompt: "", box, depth: number }]);
    this.selected = number;
    this.outlines = true;
    return number;
  }

  /** Change an element; changes of one field that follow each other are taken back together. */
  change(number: number, change: Partial<SceneElement>): void {
    const elements = this.elements.map((each, at) => (at === number ? { ...each, ...change } : each));
    if (this.#refused?.number === number) this.#refused = null;
    scene.set({ elements: elements as never }, `${number} ${Object.keys(change).join()}`);
  }

  remove(number: number): void {
    const seed = scene.get("seed");
    // those after it have other numbers then, and yet the seeds that they had
    const rest = this.elements
      .map((each, at) => (at > number && seed != null ? { ...each, seed: seedOf(each, at, seed) } : each))
      .filter((_, at) => at !== number);
    this.#become(inDepthOrder(rest, depthOrder(rest)));
    this.selected = null;
  }

  /** Have the element at one place of the order, the farthest at 0, at another. */
  reorder(from: number, to: number): void {
    if (to < 0 || to >= this.order.length || from === to) return;
    this.#become(inDepthOrder(this.elements, reordered(this.order, from, to)));
  }

  /** Nearer by so many places; farther by negative ones. */
  bring(number: number, by: number): void {
    const at = this.order.indexOf(number);
    this.reorder(at, at + by);
  }

  undo(): void {
    scene.undo();
    this.#hold();
  }

  redo(): void {
    scene.redo();
    this.#hold();
  }

  /** Show a picture. If it is not the one that the scene was last drawn as, the scene becomes that of it. */
  async open(id: string): Promise<void> {
    try {
      const picture = await api.picture(id);
      const job = await api.job(picture.job);
      const isOwn = job.pictures.some((each) => each.id === sceneDrawn.picture.value);
      if (!isOwn) {
        const { request } = (await api.record(id)) as { request: Record<string, unknown> };
        const { fields, pictures } = sceneOf(sameAgain(job.request, request, picture.seed));
        const replaces = Object.keys(scene.fields).length > 0;
        scene.replace(fields);
        this.selected = null;
        if (replaces || pictures)
          toasts.say(t(pictures ? "scene.openedWithout" : "scene.opened"), { undo: () => this.undo() });
      }
      sceneDrawn.picture.value = id;
      this.picture = picture;
      this.pictures = job.pictures;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.status === 404) sceneDrawn.picture.value = "";
      this.error = error.status === 404 ? t("picture.gone") : error.message;
    }
  }

  /** An empty canvas. */
  clear(): void {
    scene.replace({});
    sceneDrawn.picture.value = "";
    this.picture = null;
    this.pictures = [];
    this.selected = null;
    this.tried = false;
    router.go(paths.scene());
    toasts.say(t("scene.cleared"), { undo: () => this.undo() });
  }

  async draw(): Promise<boolean> {
    this.tried = true;
    if (this.busy || this.hasProblems) return false;
    const fields = scene.fields;
    await this.#submit(async () => {
      sceneDrawn.job.value = (await jobs.draw(sceneRequest(fields), history.keyFor(fields))).id;
      history.sent(fields);
    });
    return true;
  }

  async cancel(): Promise<void> {
    await jobs.cancel(sceneDrawn.job.value).catch(() => undefined);
  }

  /** The job of the scene has ended. */
  ended(job: Job): void {
    sceneDrawn.job.value = "";
    if (job.state === "failed") this.error = reason(job);
    const [first] = job.pictures;
    if (job.state !== "done" || first === undefined) return;
    sceneDrawn.picture.value = first.id;
    router.go(paths.scene(first.id));
  }

  /** The seed that the picture has; one at random, where nothing is drawn yet. */
  seed(): number {
    return scene.get("seed") ?? this.picture?.seed ?? Math.floor(Math.random() * 2 ** 32);
  }

  /** Draw the element alone, or the whole scene, on transparent ground: as the picture has it. */
  transparent(number: number | null): DrawFields {
    const seed = this.picture?.seed ?? this.seed();
    if (number !== null) return aloneRequest(scene.fields, number, seed);
    const { count: _, ...fields } = sceneRequest(scene.fields);
    return { ...fields, seed, transparent: true };
  }

  #problem(element: SceneElement, number: number): Problem {
    const box = problemOf(this.boxes[number] ?? boxOf(element), this.size);
    return {
      ...(this.tried && element.prompt.trim() === "" && { prompt: t("scene.problem.prompt") }),
      ...(box !== null && { box: t(`scene.problem.${box}`) }),
      ...(this.#refused?.number === number && { other: this.#refused.text }),
    };
  }

  /** A change that is taken back alone. */
  #become(elements: readonly SceneElement[]): void {
    scene.replace({ ...scene.fields, elements: elements as never });
    this.#hold();
  }

  /** Nothing in hand that is not there. */
  #hold(): void {
    this.#refused = null;
    if (this.selected !== null && this.selected >= this.elements.length) this.selected = null;
  }

  async #submit(deed: () => Promise<void>): Promise<void> {
    this.error = null;
    this.#refused = null;
    this.#sending = true;
    try {
      await deed();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      const number = /elements\.(\d+)/.exec(`${error.param ?? ""} ${error.sentence}`)?.[1];
      if (number === undefined) this.error = error.message;
      else this.#refused = { number: Number(number), text: error.message };
    } finally {
      this.#sending = false;
    }
  }
}
