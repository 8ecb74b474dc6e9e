/** The scene that one works on: its request, the picture that it was last drawn as, and the job that draws it. */

import { Stored } from "../stored.svelte";
import { Form } from "./form.svelte";

export const scene = new Form("scene");

const isName = (value: unknown): value is string => typeof value === "string";

/** Names of the server's; empty where there is none. */
export const sceneDrawn = {
  picture: new Stored("scene.picture", "", isName, { shared: false }),
  job: new Stored("scene.job", "", isName, { shared: false }),
};
