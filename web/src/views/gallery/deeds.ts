/** What leaves the page: files and texts. */

import { api, fileUrl, type Picture } from "$lib/api";
import { t } from "$lib/i18n.svelte";
import { dataUrl } from "$lib/inspecting.svelte";
import { toasts } from "$lib/toasts.svelte";
import { attempt } from "../draw/submit.svelte";
import { fileName } from "./copies";
import * as png from "./png";
import * as webp from "./webp";

/** Downloads that come faster than this are taken for one by browsers. */
const PAUSE = 200;

/** Have the browser keep pictures' files, with their record or `bare` of it. */
export async function download(pictures: readonly Picture[], { bare }: { bare: boolean }): Promise<void> {
  for (const [index, picture] of pictures.entries()) {
    if (index > 0) await new Promise((resolve) => setTimeout(resolve, PAUSE));
    if (!bare) keep(fileUrl(picture.id), fileName(picture));
    else
      await attempt(async () => {
        const { withoutRecord } = picture.frames == null ? png : webp;
        keepContent(new Blob([withoutRecord(await bytes(picture.id))]), fileName(picture));
      });
  }
}

/** One picture of several, laid out by the server. */
export async function downloadSheet(pictures: readonly Picture[], captions: boolean): Promise<void> {
  await attempt(async () => {
    const ids = pictures.map(({ id }) => id);
    keepContent(
      await api.sheet(ids, captions),
      fileName({ prompt: pictures[0]?.prompt ?? "", seed: "sheet" }),
    );
  });
}

function keepContent(file: Blob, name: string): void {
  const url = URL.createObjectURL(file);
  keep(url, name);
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** Have the browser keep a file. */
export function keep(url: string, name: string): void {
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
}

async function bytes(picture: string): Promise<Uint8Array<ArrayBuffer>> {
  return new Uint8Array(await (await fetch(fileUrl(picture))).arrayBuffer());
}

/** The line of settings that A1111 writes into its files, as the picture's own file has it. */
export async function a1111Line(picture: string): Promise<string> {
  return (await api.inspect(await dataUrl(new Blob([await bytes(picture)])))).parameters ?? "";
}

export async function copy(text: string | Promise<string>): Promise<void> {
  try {
    await navigator.clipboard.writeText(await text);
    toasts.say(t("picture.copied"));
  } catch {
    toasts.say(t("picture.notCopied"), { danger: true });
  }
}
