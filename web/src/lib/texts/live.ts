import type { Table } from ".";

export const live = {
  "live.title": { en: "Live", de: "Live" },
  "live.switch": { en: "Live", de: "Live" },
  "live.about": { en: "Draw while you type", de: "Zeichnen, während Sie schreiben" },
  "live.empty": {
    en: "Write what the picture shows. It is drawn as you type.",
    de: "Schreiben Sie, was das Bild zeigt. Es entsteht, während Sie schreiben.",
  },
  "live.edit.empty": {
    en: "Paint, and write what it shows. It is drawn as you do.",
    de: "Malen Sie, und schreiben Sie, was es zeigt. Es wird dabei gezeichnet.",
  },
  "live.time": { en: "{count} ms", de: "{count} ms" },
  "live.timeAbout": { en: "Time for this picture", de: "Zeit für dieses Bild" },
  "live.steps": { en: "Steps", de: "Schritte" },
  "live.seed": { en: "Another seed", de: "Anderer Seed" },
  "live.seedAbout": {
    en: "Seed {seed} stays, so that the picture changes with the words alone.",
    de: "Seed {seed} bleibt, damit sich das Bild nur mit den Worten ändert.",
  },
  "live.keep": { en: "Keep", de: "Behalten" },
  "live.kept": { en: "Kept", de: "Behalten" },
  "live.keepAbout": {
    en: "Draws this picture once more, just so, and stores it",
    de: "Zeichnet dieses Bild noch einmal, genau so, und speichert es",
  },
  "live.drawAbout": {
    en: "Live pictures are not stored. Keep stores this one; Draw draws it with all steps.",
    de: "Live-Bilder werden nicht gespeichert. Behalten speichert dieses; Zeichnen zeichnet es mit allen Schritten.",
  },
  "live.slow": {
    en: "{name} has nothing to draw fast with: {count} steps, coarser than with all.",
    de: "{name} hat nichts, um schnell zu zeichnen: {count} Schritte, gröber als mit allen.",
  },
  "live.leftOut": {
    en: "Only Draw takes account of: {names}.",
    de: "Nur Zeichnen berücksichtigt: {names}.",
  },
  "live.leftOut.steps": { en: "steps", de: "Schritte" },
  "live.leftOut.frames": { en: "the clip", de: "der Clip" },
  "live.leftOut.negative": { en: "negative prompt", de: "negativer Prompt" },
  "live.leftOut.guidance": { en: "guidance", de: "Guidance" },
  "live.leftOut.sampler": { en: "sampler", de: "Sampler" },
  "live.leftOut.spacing": { en: "spacing", de: "Abstände" },
  "live.unreadable": {
    en: "The picture follows when the prompt can be read.",
    de: "Das Bild folgt, sobald sich der Prompt lesen lässt.",
  },
  "live.offline": {
    en: "Live goes on when the server answers again.",
    de: "Live geht weiter, sobald der Server wieder antwortet.",
  },
  "live.full": {
    en: "The server has much to do. Live goes on by itself.",
    de: "Der Server hat viel zu tun. Live geht von selbst weiter.",
  },
  "live.loading": {
    en: "The model is loading. Live begins by itself.",
    de: "Das Modell wird geladen. Live beginnt von selbst.",
  },
  "keys.live": { en: "Live: draw while you type", de: "Live: zeichnen, während Sie schreiben" },
  "keys.keep": { en: "Live: keep the picture", de: "Live: Bild behalten" },
} satisfies Table;
