import type { Table } from ".";

export const draw = {
  "draw.title": { en: "Draw", de: "Zeichnen" },
  "draw.prompt": { en: "Prompt", de: "Prompt" },
  "draw.negative": { en: "Negative prompt", de: "Negativer Prompt" },
  "draw.placeholder": { en: "What should the picture show?", de: "Was soll das Bild zeigen?" },
  "draw.submit": { en: "Draw", de: "Zeichnen" },
  "draw.cancel": { en: "Cancel", de: "Abbrechen" },
  "job.queued": { en: "Waiting", de: "Wartet" },
  "job.running": { en: "Drawing", de: "Zeichnet" },
  "job.failed": { en: "Failed", de: "Fehlgeschlagen" },
  "job.cancelled": { en: "Cancelled", de: "Abgebrochen" },
  "job.done": { en: "Done", de: "Fertig" },
} satisfies Table;
