/** What stands for a style that has no picture: the embedded model draws only icons and emoji. */

import type { LucideIcon } from "@lucide/svelte";
import Book from "@lucide/svelte/icons/book-open";
import Box from "@lucide/svelte/icons/box";
import Brush from "@lucide/svelte/icons/brush";
import Camera from "@lucide/svelte/icons/camera";
import Clapperboard from "@lucide/svelte/icons/clapperboard";
import Cuboid from "@lucide/svelte/icons/cuboid";
import Compass from "@lucide/svelte/icons/drafting-compass";
import Droplet from "@lucide/svelte/icons/droplets";
import Feather from "@lucide/svelte/icons/feather";
import Film from "@lucide/svelte/icons/film";
import Pixels from "@lucide/svelte/icons/grid-3x3";
import Hand from "@lucide/svelte/icons/hand";
import Moon from "@lucide/svelte/icons/moon";
import Mountain from "@lucide/svelte/icons/mountain";
import Newspaper from "@lucide/svelte/icons/newspaper";
import Paintbrush from "@lucide/svelte/icons/paintbrush-vertical";
import Palette from "@lucide/svelte/icons/palette";
import PenTool from "@lucide/svelte/icons/pen-tool";
import Pencil from "@lucide/svelte/icons/pencil";
import Scissors from "@lucide/svelte/icons/scissors";
import Search from "@lucide/svelte/icons/search";
import Shapes from "@lucide/svelte/icons/shapes";
import Sparkles from "@lucide/svelte/icons/sparkles";
import Stamp from "@lucide/svelte/icons/stamp";
import Timer from "@lucide/svelte/icons/timer";
import User from "@lucide/svelte/icons/user-round";

const ICONS: Record<string, LucideIcon> = {
  photographic: Camera,
  portrait: User,
  macro: Search,
  studio: Camera,
  cinematic: Clapperboard,
  "film-noir": Moon,
  "analog-film": Film,
  "long-exposure": Timer,
  "oil-painting": Brush,
  impressionist: Palette,
  watercolour: Droplet,
  gouache: Paintbrush,
  "ink-wash": Feather,
  "pencil-sketch": Pencil,
  charcoal: Pencil,
  "line-art": PenTool,
  engraving: Feather,
  woodblock: Stamp,
  comic: Newspaper,
  anime: Sparkles,
  storybook: Book,
  "flat-vector": Shapes,
  "paper-cut": Scissors,
  "pixel-art": Pixels,
  "3d-render": Box,
  "low-poly": Cuboid,
  isometric: Box,
  clay: Hand,
  blueprint: Compass,
  "concept-art": Mountain,
};

/** The icon of a style; one's own have the palette. */
export const iconOf = (style: string): LucideIcon => ICONS[style] ?? Palette;
