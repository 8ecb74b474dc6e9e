/** Live drawing in Draw: a picture that follows the form. */

import type { DrawFields } from "$lib/api";
import { router } from "$lib/router.svelte";
import { form } from "$lib/stores/form.svelte";
import { history } from "$lib/stores/history.svelte";
import { jobs } from "$lib/stores/jobs.svelte";
import { library } from "$lib/stores/library.svelte";
import { LiveDrawing } from "./drawing.svelte";
import { liveFields } from "./fields";

class Live extends LiveDrawing {
  constructor() {
    super({
      model: () => library.model(form.get("model")),
      seed: () => form.get("seed") ?? undefined,
      lock: (seed) => form.set({ seed }),
      keep: async (fields, key) => {
        await jobs.draw(fields, key);
        history.sent(fields);
      },
    });
  }

  /** Whether it is on: in the address, so that it survives a reload and other windows are none of its business. */
  get on(): boolean {
    return router.query.has("live");
  }

  /** The form as it is drawn with all steps: with the seed of the live picture. */
  get full(): DrawFields {
    return { seed: this.seed, ...form.fields };
  }

  toggle(): void {
    router.search({ live: this.on ? null : "1" });
  }

  /** Draw what the form says now, if that is something new: in an effect, with every change. */
  follow(): void {
    if (this.model === undefined) return;
    const fields = liveFields(form.fields, this.model, this.steps, this.seed);
    this.want(fields.prompt?.trim() ? JSON.stringify(fields) : "", () => fields);
  }
}

export const live = new Live();
