/** What can be drawn with, fetched once and again whenever the server comes back. */

import { api } from "../api";
import { events } from "../events.svelte";

type Lists =
  | "models"
  | "samplers"
  | "spacings"
  | "dialects"
  | "upscalers"
  | "styles"
  | "adapters"
  | "controls"
  | "preprocessors"
  | "motion"
  | "embeddings"
  | "wildcards";
type List<K extends Lists> = Awaited<ReturnType<(typeof api)[K]>>;

class Library {
  models = $state.raw<List<"models">>([]);
  samplers = $state.raw<List<"samplers">>([]);
  spacings = $state.raw<List<"spacings">>([]);
  dialects = $state.raw<List<"dialects">>([]);
  upscalers = $state.raw<List<"upscalers">>([]);
  styles = $state.raw<List<"styles">>([]);
  adapters = $state.raw<List<"adapters">>([]);
  controls = $state.raw<List<"controls">>([]);
  preprocessors = $state.raw<List<"preprocessors">>([]);
  motion = $state.raw<List<"motion">>([]);
  embeddings = $state.raw<List<"embeddings">>([]);
  wildcards = $state.raw<List<"wildcards">>([]);
  /** Whether a worker can draw: the model is loaded. Unknown, `null`, until the server has said so. */
  ready = $state<boolean | null>(null);

  start(): () => void {
    return events.onOpen(() => {
      void this.refresh().catch(() => undefined);
      void this.#untilReady();
    });
  }

  /** A model by its name; without one the default. */
  model(name: string | undefined): List<"models">[number] | undefined {
    return name === undefined ? this.models[0] : this.models.find((each) => each.name === name);
  }

  async refresh(): Promise<void> {
    [
      this.models,
      this.samplers,
      this.spacings,
      this.dialects,
      this.upscalers,
      this.styles,
      this.adapters,
      this.controls,
      this.preprocessors,
      this.motion,
      this.embeddings,
      this.wildcards,
    ] = await Promise.all([
      api.models(),
      api.samplers(),
      api.spacings(),
      api.dialects(),
      api.upscalers(),
      api.styles(),
      api.adapters(),
      api.controls(),
      api.preprocessors(),
      api.motion(),
      api.embeddings(),
      api.wildcards(),
    ]);
  }

  async #untilReady(): Promise<void> {
    while (events.state === "online") {
      const answer = await fetch("/readyz").catch(() => null);
      this.ready = answer?.ok ?? false;
      if (this.ready || answer === null) return;
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
}

export const library = new Library();
