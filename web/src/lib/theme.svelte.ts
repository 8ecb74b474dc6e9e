/** Light, dark, or as the system is. */

import { isOneOf, Stored } from "./stored.svelte";

export type Theme = "auto" | "light" | "dark";
export const THEMES = ["auto", "light", "dark"] as const;

export const theme = new Stored<Theme>("theme", "auto", isOneOf(...THEMES));
