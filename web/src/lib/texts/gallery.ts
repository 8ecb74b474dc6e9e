import type { Table } from ".";

export const gallery = {
  "gallery.empty": { en: "Nothing was drawn yet.", de: "Noch wurde nichts gezeichnet." },
  "gallery.more": { en: "Older", de: "Ältere" },
} satisfies Table;
