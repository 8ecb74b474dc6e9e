/** What the server makes of a grid while it is set up. */

import { api, ApiError, type AxisText, type DrawFields, type GridPlan } from "$lib/api";

const PAUSE = 250;

export class Plan {
  /** Of what was asked last. */
  view = $state.raw<GridPlan | null>(null);
  /** What is wrong with the request itself. */
  error = $state<string | null>(null);
  /** Whether `view` is of what is set up now. */
  fresh = $state(false);

  constructor(given: () => { request: DrawFields; axes: readonly AxisText[] }) {
    $effect(() => {
      const { request, axes } = given();
      this.fresh = false;
      if (axes.length === 0 || !request.prompt?.trim()) {
        this.view = null;
        this.error = null;
        return;
      }
      const aborted = new AbortController();
      const timer = setTimeout(() => {
        api
          .planGrid(request, [...axes], aborted.signal)
          .then((view) => this.#take(view, null))
          .catch((error: unknown) => {
            if (error instanceof ApiError) this.#take(null, error.offline ? null : error.message);
          });
      }, PAUSE);
      return () => {
        clearTimeout(timer);
        aborted.abort();
      };
    });
  }

  #take(view: GridPlan | null, error: string | null): void {
    this.view = view;
    this.error = error;
    this.fresh = true;
  }
}
