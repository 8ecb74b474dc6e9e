/** All texts of the page. Every entry has every language, or it does not compile. */

import { common } from "./common";
import { draw } from "./draw";
import { edit } from "./edit";
import { errors } from "./errors";
import { fields } from "./fields";
import { gallery } from "./gallery";
import { grid } from "./grid";
import { live } from "./live";
import { scene } from "./scene";
import { teach } from "./teach";

export type Language = "en" | "de";
export type Table = Record<string, Record<Language, string>>;

export const texts = {
  ...common,
  ...draw,
  ...edit,
  ...errors,
  ...fields,
  ...gallery,
  ...grid,
  ...live,
  ...scene,
  ...teach,
} satisfies Table;

export type Key = keyof typeof texts;
