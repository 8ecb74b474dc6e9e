/** The colours that stand ready for painting. */
export const COLOURS = {
  black: "#2a2723",
  white: "#ffffff",
  red: "#d64933",
  orange: "#f0935f",
  yellow: "#f4c542",
  green: "#4c9f50",
  blue: "#3d7bd9",
  purple: "#8e5bb5",
  brown: "#8a5a3c",
} as const;
