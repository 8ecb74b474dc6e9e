/** The server's own API, typed by its OpenAPI document (`npm run schema`). */

import createClient from "openapi-fetch";
import type { components, paths } from "./schema";
import { worded } from "./errors";
import { t } from "./i18n.svelte";
import { serverSentEvents } from "./sse";

type Schemas = components["schemas"];

export type Job = Schemas["JobView"];
export type JobState = Schemas["JobState"];
export type Picture = Schemas["PictureView"];
export type DrawRequest = Schemas["DrawRequest"];
export type Model = Schemas["ModelView"];
export type Inspection = Schemas["InspectionView"];
export type Grid = Schemas["GridView"];
export type GridCell = Schemas["CellView"];
export type GridAxis = Schemas["AxisView"];
export type GridPlan = Schemas["PlanView"];
/** A field and its values, as they are typed or each by itself. */
export type AxisText = Schemas["AxisText"];
/** A subject or a style that is learned. */
export type Teaching = Schemas["TeachView"];
export type TeachFields = Omit<Schemas["TeachSubmission"], "priority" | "on_crash">;
export type PromptReading = Schemas["PromptView"];
export type PromptText = Partial<Schemas["PromptText"]> & { prompt: string };
/** A picture of which the server stores nothing: `content` is its file in base64, a PNG, of a clip a WebP. */
export interface DrawnPicture {
  width: number;
  height: number;
  /** Of a clip. */
  frames?: number;
  seed: number;
  content: string;
}
/** What is sent: what is left out is as the model likes it. */
export type DrawFields = Partial<DrawRequest>;

/**
 * The server refused. `status` is that of HTTP; 0 means that it did not answer at all. The message is in the page's
 * language where the page has words for it.
 */
export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
    /** Seconds after which it may be tried again, where the server says so. */
    readonly retryAfter: number | null = null,
    /** The field that was wrong. */
    readonly param: string | null = null,
    /** The character of a prompt that was wrong, from 0. */
    readonly position: number | null = null,
    /** The server's own sentence. */
    readonly sentence = message,
  ) {
    super(message);
    this.name = "ApiError";
  }

  get offline(): boolean {
    return this.status === 0;
  }
}

/** Tells whether the server answers; `events` sets what is called. */
export const reachability: { heard: (answered: boolean) => void } = { heard: () => undefined };

async function reachable(input: Request): Promise<Response> {
  try {
    const response = await fetch(input);
    reachability.heard(true);
    return response;
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    reachability.heard(false);
    throw new ApiError(t("offline.title"), 0);
  }
}

const client = createClient<paths>({ fetch: reachable });

interface Answer<T> {
  data?: T;
  error?: unknown;
  response: Response;
}

async function unwrapped<T>(asked: Promise<Answer<T>>): Promise<T> {
  const { data, error, response } = await asked;
  if (response.ok) return data as T;
  const body = (error ?? {}) as {
    error?: { message?: string; param?: string | null; position?: number | null };
  };
  const after = Number(response.headers.get("retry-after"));
  const seconds = Number.isFinite(after) && after > 0 ? after : null;
  const message = body.error?.message;
  throw new ApiError(
    message ? worded(message, seconds) : t("failure.status", { status: String(response.status) }),
    response.status,
    seconds,
    body.error?.param ?? null,
    body.error?.position ?? null,
    message,
  );
}

interface UnstoredEvent {
  picture?: DrawnPicture;
  progress?: { done: number; total: number };
  error?: string;
}
/** Of the document's own type: openapi-fetch makes arrays of its tuples. */
const exactly = <T>(asked: Promise<Answer<unknown>>): Promise<T> => unwrapped(asked as Promise<Answer<T>>);

const enc = encodeURIComponent;

export const api = {
  /** Submit a job. The same `key` is the same job, so that it can be sent again. */
  draw: (request: DrawFields, key: string = crypto.randomUUID()): Promise<Job> =>
    exactly(
      client.POST("/api/v1/jobs", {
        params: { header: { "idempotency-key": key } },
        body: { request: request as DrawRequest, priority: 0, on_crash: "retry" },
      }),
    ),
  /**
   * Draw one picture of which the server stores nothing; `heard` is told the share that is done.
   * Whoever aborts it cancels it on the server.
   */
  drawUnstored: async (
    request: DrawFields,
    signal: AbortSignal,
    heard: (share: number) => void = () => undefined,
  ): Promise<DrawnPicture> => {
    const body = await unwrapped(
      client.POST("/api/v1/draw", {
        body: { request: request as DrawRequest, priority: 0, previews: false },
        parseAs: "stream",
        signal,
      }),
    );
    let drawn: DrawnPicture | null = null;
    try {
      for await (const event of serverSentEvents(body as ReadableStream<Uint8Array<ArrayBuffer>>)) {
        const { picture, progress, error } = event.data as UnstoredEvent;
        if (picture) drawn = picture;
        if (progress) heard(progress.done / progress.total);
        if (error) throw new ApiError(worded(error), 400);
      }
    } catch (error) {
      if (error instanceof ApiError || signal.aborted) throw error;
    }
    if (drawn !== null) return drawn;
    reachability.heard(false); // it went away in the middle
    throw new ApiError(t("offline.title"), 0);
  },
  jobs: (query: { state?: JobState[]; before?: string; limit?: number } = {}): Promise<Job[]> =>
    exactly(client.GET("/api/v1/jobs", { params: { query } })),
  job: (job: string): Promise<Job> =>
    exactly(client.GET("/api/v1/jobs/{job}", { params: { path: { job } } })),
  cancel: (job: string): Promise<Job> =>
    exactly(client.DELETE("/api/v1/jobs/{job}", { params: { path: { job } } })),
  /** Move jobs in the queue: the higher is drawn first. It arrives also if the page goes meanwhile. */
  prioritise: (priorities: Record<string, number>, signal?: AbortSignal): Promise<string[]> =>
    unwrapped(
      client.PATCH("/api/v1/jobs", { body: { priorities }, keepalive: true, ...(signal && { signal }) }),
    ),

  /** What a grid of these axes would be. */
  planGrid: (request: DrawFields, axes: AxisText[], signal?: AbortSignal): Promise<GridPlan> =>
    unwrapped(
      client.POST("/api/v1/grids/plan", {
        body: { request: request as DrawRequest, axes },
        ...(signal && { signal }),
      }),
    ),
  drawGrid: (request: DrawFields, axes: AxisText[], key: string): Promise<Grid> =>
    exactly(
      client.POST("/api/v1/grids", {
        params: { header: { "idempotency-key": key } },
        body: { request: request as DrawRequest, axes, priority: 0, on_crash: "retry" },
      }),
    ),
  grid: (grid: string): Promise<Grid> =>
    exactly(client.GET("/api/v1/grids/{grid}", { params: { path: { grid } } })),
  cancelGrid: (grid: string): Promise<Grid> =>
    exactly(client.DELETE("/api/v1/grids/{grid}", { params: { path: { grid } } })),
  /** Draw what failed or was cancelled again, or only one cell of it. */
  gridAgain: (grid: string, cell?: number): Promise<Grid> =>
    exactly(
      client.POST("/api/v1/grids/{grid}/again", {
        params: { path: { grid }, query: cell === undefined ? {} : { cell } },
      }),
    ),

  /** Teach a subject or a style. The same `key` is the same teaching. */
  teach: (fields: TeachFields, key: string): Promise<Teaching> =>
    exactly(
      client.POST("/api/v1/teach", {
        params: { header: { "idempotency-key": key } },
        body: { ...fields, priority: 0, on_crash: "retry" },
      }),
    ),
  teachings: (): Promise<Teaching[]> => exactly(client.GET("/api/v1/teach")),
  cancelTeaching: (teaching: string): Promise<Teaching> =>
    exactly(client.DELETE("/api/v1/teach/{teaching}", { params: { path: { teaching } } })),

  pictures: (
    query: NonNullable<paths["/api/v1/pictures"]["get"]["parameters"]["query"]> = {},
  ): Promise<Picture[]> => unwrapped(client.GET("/api/v1/pictures", { params: { query } })),
  picture: (picture: string): Promise<Picture> =>
    unwrapped(client.GET("/api/v1/pictures/{picture}", { params: { path: { picture } } })),
  /** How it was drawn: the fields of its request. */
  record: (picture: string): Promise<Record<string, unknown>> =>
    unwrapped(client.GET("/api/v1/pictures/{picture}/record", { params: { path: { picture } } })),
  change: (picture: string, change: Schemas["PictureChange"]): Promise<Picture> =>
    unwrapped(client.PATCH("/api/v1/pictures/{picture}", { params: { path: { picture } }, body: change })),
  remove: (picture: string): Promise<Picture> =>
    unwrapped(client.DELETE("/api/v1/pictures/{picture}", { params: { path: { picture } } })),
  restore: (picture: string): Promise<Picture> =>
    unwrapped(client.POST("/api/v1/pictures/{picture}/restore", { params: { path: { picture } } })),

  /** One PNG file of several pictures. */
  sheet: (pictures: string[], captions: boolean): Promise<Blob> =>
    unwrapped(
      client.POST("/api/v1/pictures/sheet", { body: { pictures, captions }, parseAs: "blob" }),
    ) as Promise<Blob>,

  readPrompt: (text: PromptText, signal?: AbortSignal): Promise<PromptReading> =>
    unwrapped(
      client.POST("/api/v1/prompt", { body: text as Schemas["PromptText"], ...(signal && { signal }) }),
    ),

  /** How a picture was drawn, by any program: `image` is its bytes, a data URL. */
  inspect: (image: string): Promise<Inspection> =>
    exactly(client.POST("/api/v1/inspect", { body: { image } })),

  models: () => unwrapped(client.GET("/api/v1/models")),
  samplers: () => unwrapped(client.GET("/api/v1/samplers")),
  upscalers: () => unwrapped(client.GET("/api/v1/upscalers")),
  spacings: () => unwrapped(client.GET("/api/v1/spacings")),
  dialects: () => unwrapped(client.GET("/api/v1/dialects")),
  styles: () => unwrapped(client.GET("/api/v1/styles")),
  adapters: () => unwrapped(client.GET("/api/v1/adapters")),
  controls: () => unwrapped(client.GET("/api/v1/controls")),
  preprocessors: () => unwrapped(client.GET("/api/v1/preprocessors")),
  motion: () => unwrapped(client.GET("/api/v1/motion")),
  wildcards: () => unwrapped(client.GET("/api/v1/wildcards")),
  embeddings: () => unwrapped(client.GET("/api/v1/embeddings")),
};

/** Addresses of a picture's files. */
export const fileUrl = (picture: string): string => `/api/v1/pictures/${enc(picture)}/file`;
export const sampleUrl = (teaching: string, number: number): string =>
  `/api/v1/teach/${enc(teaching)}/samples/${number}`;
export const gridFileUrl = (grid: string): string => `/api/v1/grids/${enc(grid)}/file`;
export const inputThumbnailUrl = (sha256: string): string => `/api/v1/inputs/${enc(sha256)}/thumbnail`;
export const thumbnailUrl = (picture: string): string => `/api/v1/pictures/${enc(picture)}/thumbnail`;
