/** Pictures on transparent ground that are drawn to be saved: the browser has the file when the job is done. */

import type { DrawFields } from "$lib/api";
import { reason } from "$lib/errors";
import { t } from "$lib/i18n.svelte";
import { hasEnded, jobs } from "$lib/stores/jobs.svelte";
import { toasts } from "$lib/toasts.svelte";
import { attempt } from "../draw/submit.svelte";
import { download } from "../gallery/deeds";

class Exporting {
  #job = $state<string | null>(null);
  waits = $derived(this.#job !== null);

  async begin(request: DrawFields): Promise<void> {
    if (this.#job !== null) return;
    await attempt(async () => {
      this.#job = (await jobs.draw(request)).id;
      toasts.say(t("scene.transparent.waits"));
    });
  }

  /** Save what is done: to be called in an effect. */
  watch(): void {
    const job = this.#job === null ? undefined : jobs.find(this.#job);
    if (job === undefined || !hasEnded(job.state)) return;
    if (job.state === "done" && job.pictures.length < job.count) return;
    this.#job = null;
    if (job.state === "failed") toasts.say(reason(job), { danger: true });
    else void download(job.pictures, { bare: false });
  }
}

export const exporting = new Exporting();
