/** One picture that is edited: its mask, its edges, the tool in hand, and what is being drawn. */

import { api, ApiError, fileUrl, type DrawFields, type Job, type Model, type Picture } from "$lib/api";
import { reason } from "$lib/errors";
import { inspected } from "$lib/inspecting.svelte";
import { paths, router } from "$lib/router.svelte";
import { isRecord, Stored } from "$lib/stored.svelte";
import { hasEnded, jobs } from "$lib/stores/jobs.svelte";
import { library } from "$lib/stores/library.svelte";
import type { Size, View } from "$lib/view";
import { LiveDrawing } from "../draw/live/drawing.svelte";
import { liveFields } from "../draw/live/fields";
import { COLOURS } from "./colours";
import { grown, NO_EDGES, type Edges } from "./geometry";
import { Mask } from "./mask.svelte";
import { isStroke, Paint, type Stroke } from "./paint.svelte";
import { again, beginsWithPictures, editRequest, wayOf, type Wishes } from "./requests";
import { emptyCanvas, steps } from "./steps.svelte";

export const TOOLS = ["brush", "eraser", "fill", "paint", "extend", "move"] as const;
export type Tool = (typeof TOOLS)[number];

const USUAL_WISHES: Wishes = { prompt: "", fill: "keep", feather: 0 };
const keptWishes = new Stored<Partial<Wishes>>(
  "edit.wishes",
  {},
  (value): value is Partial<Wishes> => isRecord(value),
  { session: true },
);
const keptMask = new Stored<{ id: string; runs: number[] } | null>(
  "edit.mask",
  null,
  (value): value is { id: string; runs: number[] } | null =>
    value === null || (isRecord(value) && Array.isArray(value["runs"])),
  { session: true },
);
const keptPaint = new Stored<{ id: string; strokes: readonly Stroke[] } | null>(
  "edit.paint",
  null,
  (value): value is { id: string; strokes: readonly Stroke[] } | null =>
    value === null ||
    (isRecord(value) && Array.isArray(value["strokes"]) && value["strokes"].every(isStroke)),
  { session: true },
);
const isLive = new Stored<boolean>("edit.live", false, (value): value is boolean => value === true, {
  session: true,
});
const FALLBACK_SIZE = { width: 256, height: 256 };
const VARIATIONS = { count: 4, amount: 0.2 };

/** The mask of a picture, as it was before a reload. */
function maskOf(id: string, { naturalWidth: width, naturalHeight: height }: HTMLImageElement): Mask {
  const kept = keptMask.value;
  const whole = kept?.runs.reduce((sum, each, index) => (index % 2 === 0 ? sum + each : sum), 0);
  return kept?.id === id && whole === width * height
    ? Mask.of(width, height, Uint32Array.from(kept.runs))
    : new Mask(width, height);
}

export class Editor {
  /** The picture's name, as the address has it. */
  id = $state("");
  /** What the server knows of it: nothing of a file that was opened here. */
  picture = $state.raw<Picture | null>(null);
  image = $state.raw<HTMLImageElement | null>(null);
  mask = $state.raw<Mask | null>(null);
  paint = $state.raw<Paint | null>(null);
  /** What is painted with; `null` rubs out. */
  colour = $state<string | null>(COLOURS.red);
  missing = $state(false);

  tool = $state<Tool>("brush");
  brush = $state(32);
  edges = $state.raw<Edges>(NO_EDGES);
  view = $state.raw<View>({ scale: 1, x: 0, y: 0 });
  /** The stage's size; the view is fitted to it until it is moved. */
  room = $state.raw<Size>({ width: 0, height: 0 });
  moved = $state(false);
  /** Whether the picture is shown as it was one step before. */
  compares = $state(false);

  wishes = $state<Wishes>({ ...USUAL_WISHES, ...keptWishes.value });
  /** Whether words alone are an instruction, where a model for that is served. */
  byInstruction = $state(true);
  error = $state<string | null>(null);
  /** Whether the server did not answer when the picture was asked for. */
  unanswered = $state(false);
  #sending = $state(false);
  // eslint-disable-next-line svelte/prefer-svelte-reactivity -- nothing is shown by it
  #masks = new Map<string, Mask>();
  // eslint-disable-next-line svelte/prefer-svelte-reactivity -- nothing is shown by it
  #paints = new Map<string, Paint>();
  /** What is drawn of all this while one paints and writes. */
  readonly live = new LiveDrawing({
    model: () => this.model,
    seed: () => this.wishes.seed,
    lock: (seed) => (this.wishes.seed = seed),
    keep: (fields) => this.#submit(() => fields),
  });

  size = $derived<Size>(
    this.image === null
      ? FALLBACK_SIZE
      : { width: this.image.naturalWidth, height: this.image.naturalHeight },
  );
  whole = $derived(grown(this.size, this.edges));
  /** What is drawn, also for a picture from which one has gone to another. */
  job = $derived(steps.pending === null ? undefined : jobs.find(steps.pending.job));
  busy = $derived(this.#sending || (this.job !== undefined && !hasEnded(this.job.state)));
  drawing = $derived(this.job === undefined ? undefined : jobs.drawing.get(this.job.id));
  /** What the picture is becoming, and where that lies on it. */
  preview = $derived.by(() => {
    const { drawing } = this;
    if (drawing?.preview === undefined || steps.pending?.from !== this.id) return null;
    const { edges } = steps.pending;
    const { width, height } = grown(this.size, edges);
    const share = drawing.done / Math.max(drawing.total, 1);
    const image = `data:image/webp;base64,${drawing.preview}`;
    return { image, share, left: -edges.left, top: -edges.top, width, height };
  });
  /** Whether words can be an instruction: until the models are known it is as if, so that nothing moves then. */
  instructs = $derived(library.models.length === 0 || library.models.some(({ task }) => task === "instruct"));
  way = $derived(wayOf(this.mask?.empty ?? true, this.edges, this.byInstruction && this.instructs));
  before = $derived(steps.before(this.id));
  /** The model that draws this way. */
  model = $derived.by(() => {
    const tasks = { mask: ["inpaint", "text"], extend: ["text"], over: ["text"], instruct: ["instruct"] }[
      this.way
    ];
    const own = library.models.find((model) => model.name === this.picture?.model);
    const fits = (task: string | null | undefined) => tasks.includes(task ?? "");
    return own !== undefined && fits(own.task) ? own : library.models.find((model) => fits(model.task));
  });
  /** What is drawn: what is typed, else what the picture shows; an instruction has to be typed. */
  prompt = $derived(
    this.wishes.prompt.trim() || (this.way === "instruct" ? "" : (this.picture?.prompt ?? "")),
  );
  canDraw = $derived(this.image !== null && this.model !== undefined && this.prompt !== "" && !this.busy);

  /** What the tool in hand changes. */
  layer = $derived(this.tool === "paint" ? this.paint : this.mask);

  get isLive(): boolean {
    return isLive.value;
  }

  set isLive(on: boolean) {
    isLive.value = on;
  }

  /** The address of a step's picture. */
  static address(id: string): string | null {
    return steps.isFile(id) ? steps.file(id) : fileUrl(id);
  }

  async load(id: string): Promise<void> {
    this.id = id;
    this.missing = this.unanswered = false;
    const address = Editor.address(id);
    try {
      if (address === null) throw new Error("it was opened in another window");
      const image = new Image();
      image.src = address;
      const picture = steps.isFile(id) ? null : await api.picture(id);
      await image.decode();
      if (this.id !== id) return;
      steps.begin(id);
      const same =
        this.image?.naturalWidth === image.naturalWidth && this.image.naturalHeight === image.naturalHeight;
      this.picture = picture;
      this.image = image;
      this.mask = this.#masks.get(id) ?? maskOf(id, image);
      this.#masks.set(id, this.mask);
      this.paint = this.#paints.get(id) ?? this.#keptPaint(id, image);
      this.#paints.set(id, this.paint);
      if (picture === null && image.src.startsWith("data:")) this.#beginSketch();
      this.edges = NO_EDGES;
      if (!same) this.moved = false;
    } catch (error) {
      if (this.id !== id) return;
      this.unanswered = error instanceof ApiError && error.offline;
      this.missing = !this.unanswered;
    }
  }

  /** Keep what is typed over a reload. */
  keepWishes(): void {
    keptWishes.value = $state.snapshot(this.wishes);
  }

  /** Keep what is painted over a reload. */
  keepMask(): void {
    const { mask } = this;
    if (mask === null || mask.changes === 0) return;
    // the next picture's name comes before its mask
    const id = [...this.#masks].find(([, each]) => each === mask)?.[0] ?? "";
    keptMask.value = mask.empty ? null : { id, runs: [...mask.runs] };
  }

  /** Keep what is painted in colours over a reload. */
  keepPaint(): void {
    const { paint } = this;
    if (paint === null || (paint.empty && !paint.canUndo)) return;
    const id = [...this.#paints].find(([, each]) => each === paint)?.[0] ?? "";
    keptPaint.value = paint.empty ? null : { id, strokes: paint.strokes };
  }

  #keptPaint(id: string, { naturalWidth, naturalHeight }: HTMLImageElement): Paint {
    const kept = keptPaint.value;
    return new Paint(naturalWidth, naturalHeight, kept?.id === id ? kept.strokes : []);
  }

  /** Draw on an empty canvas of the model's size, live. */
  sketch(): void {
    this.isLive = true;
    const model = library.models.find(({ task }) => task === "text");
    router.go(paths.edit(emptyCanvas(model?.defaults ?? FALLBACK_SIZE)));
  }

  /** There is nothing yet that could be changed: it is painted, and words say what it shows. */
  #beginSketch(): void {
    this.tool = "paint";
    this.byInstruction = false;
  }

  /** Edit a file, if the server can read it. */
  async open(file: File): Promise<void> {
    if ((await inspected(file)) !== null) router.go(paths.edit(steps.open(file)));
  }

  async draw(): Promise<void> {
    const { model } = this;
    if (!this.canDraw || model === undefined) return;
    const fields = () => this.#request(model);
    await this.#submit(() => (this.isLive ? { seed: this.live.seed, ...fields() } : fields()));
  }

  /** Draw it live as it is now, if it has changed: in an effect. */
  followLive(): void {
    const { model, live } = this;
    if (model === undefined || this.image === null) return;
    const { steps: count, seed } = live;
    const counts = [this.mask?.changes, this.paint?.changes];
    const said = [this.id, this.way, this.prompt, this.wishes, this.edges, model.name, count, seed];
    const key = this.prompt === "" ? "" : JSON.stringify([counts, said]);
    live.want(key, () => liveFields(this.#request(model), model, count, seed));
  }

  #request(model: Model): DrawFields {
    const { way, prompt } = this;
    const usual = model.defaults ?? FALLBACK_SIZE;
    return editRequest(
      way,
      { ...this.wishes, prompt },
      {
        size: this.size,
        edges: this.edges,
        image: this.#pixels(),
        mask: way === "mask" ? (this.mask?.picture().toDataURL() ?? null) : null,
        model: { name: model.name, width: usual.width, height: usual.height },
      },
    );
  }

  async vary(): Promise<void> {
    const { count, amount } = VARIATIONS;
    await this.#submit(async () => {
      const record = await this.#record();
      if (record === null) return { ...this.#plain(), strength: amount, count };
      const seeds = record["variation_seed"] as number[];
      const amounts = record["variation_amount"] as number[];
      const seed = Math.floor(Math.random() * 2 ** 32);
      return again(record, {
        variation_seed: [...seeds, seed],
        variation_amount: [...amounts, amount],
        count,
      });
    });
  }

  async enlarge(scale: number): Promise<void> {
    const width = Math.round(this.size.width * scale);
    const height = Math.round(this.size.height * scale);
    await this.#submit(() => {
      const fields = this.#plain();
      const upscaler = library.model(fields.model)?.defaults?.upscaler;
      return { ...fields, upscale: 1, width, height, ...(upscaler === undefined ? {} : { upscaler }) };
    });
  }

  async cutOut(): Promise<void> {
    await this.#submit(async () => {
      const record = await this.#record();
      return record === null
        ? { ...this.#plain(), strength: 0, transparent: true }
        : again(record, { transparent: true });
    });
  }

  async cancel(): Promise<void> {
    if (this.job !== undefined) await jobs.cancel(this.job.id).catch(() => undefined);
  }

  /** A job has ended: its pictures are the next steps. */
  ended(job: Job): void {
    const from = steps.pending?.from ?? this.id;
    steps.pending = null;
    if (job.state === "failed") this.error = reason(job);
    const drawn = job.pictures.map((picture) => picture.id);
    const [first] = drawn;
    if (job.state !== "done" || first === undefined) return;
    steps.add(drawn, from);
    if (this.id === from) router.go(paths.edit(first));
  }

  /** The request of the picture's record, from which it can be drawn again: not of one that began with pictures. */
  async #record(): Promise<Record<string, unknown> | null> {
    if (this.picture === null || this.paint?.empty === false) return null;
    const record = (await api.record(this.picture.id))["request"] as Record<string, unknown>;
    return beginsWithPictures(record) ? null : record;
  }

  /** The picture alone, with the prompt that it has. */
  #plain(): DrawFields {
    const model = library.models.find(({ task }) => task === "text");
    const prompt = this.wishes.prompt.trim() || (this.picture?.prompt ?? "");
    const fields: DrawFields = { prompt, image: this.#pixels() as never };
    if (prompt === "") fields.guidance = 1;
    if (model !== undefined) fields.model = model.name;
    return fields;
  }

  /** The picture as a PNG file of pixels alone: its own file would carry the pictures it was made from. */
  #pixels(): string {
    const canvas = document.createElement("canvas");
    canvas.width = this.size.width;
    canvas.height = this.size.height;
    const context = canvas.getContext("2d");
    if (this.image !== null) context?.drawImage(this.image, 0, 0);
    if (this.paint !== null) context?.drawImage(this.paint.canvas, 0, 0);
    return canvas.toDataURL("image/png");
  }

  async #submit(make: () => DrawFields | Promise<DrawFields>): Promise<void> {
    this.error = null;
    this.#sending = true;
    try {
      const from = this.id;
      const fields = await make();
      const edges = (fields.extend as Edges | undefined) ?? NO_EDGES;
      steps.pending = { job: (await jobs.draw(fields)).id, from, edges };
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.error = error.message;
    } finally {
      this.#sending = false;
    }
  }
}
