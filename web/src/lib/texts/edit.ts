import type { Table } from ".";

export const edit = {
  "edit.title": { en: "Edit", de: "Bearbeiten" },
  "edit.gone": { en: "This picture does not exist.", de: "Dieses Bild gibt es nicht." },
  "edit.back": { en: "Back to Draw", de: "Zurück zum Zeichnen" },
} satisfies Table;
