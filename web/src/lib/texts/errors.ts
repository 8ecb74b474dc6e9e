import type { Table } from ".";

/** What the server refuses or fails at, by the codes of its errors. */
export const errors = {
  "error.bracket_not_closed": {
    en: "“{sign}” at character {place} is never closed; write \\{sign} for the sign itself.",
    de: "„{sign}“ an Stelle {place} wird nie geschlossen; \\{sign} steht für das Zeichen selbst.",
  },
  "error.bracket_closes_nothing": {
    en: "“{sign}” at character {place} closes nothing; write \\{sign} for the sign itself.",
    de: "„{sign}“ an Stelle {place} schließt nichts; \\{sign} steht für das Zeichen selbst.",
  },
  "error.bracket_closes_other": {
    en: "“{sign}” cannot close the “{other}” at character {place}.",
    de: "„{sign}“ kann „{other}“ an Stelle {place} nicht schließen.",
  },
  "error.brace_not_closed": {
    en: "The brace at character {place} is never closed; write \\{ for the sign itself.",
    de: "Die Klammer { an Stelle {place} wird nie geschlossen; \\{ steht für das Zeichen selbst.",
  },
  "error.brace_closes_nothing": {
    en: "The } at character {place} closes nothing; write \\} for the sign itself.",
    de: "Die Klammer } an Stelle {place} schließt nichts; \\} steht für das Zeichen selbst.",
  },
  "error.weight_out_of_range": {
    en: "The weight {weight} is outside {least} to {most}.",
    de: "Das Gewicht {weight} liegt nicht zwischen {least} und {most}.",
  },
  "error.and_without_part": {
    en: "AND joins two parts, and one of them is empty; write \\AND for the word.",
    de: "AND verbindet zwei Teile, und einer ist leer; \\AND steht für das Wort.",
  },
  "error.prompt_too_long": {
    en: "The prompt has {characters} characters: at most {most} are read.",
    de: "Der Prompt hat {characters} Zeichen: Höchstens {most} werden gelesen.",
  },
  "error.unknown_wildcard": {
    en: "There is no word list “{name}” in the server's folder.",
    de: "Im Ordner des Servers ist keine Wortliste „{name}“.",
  },
  "error.unknown_style": { en: "There is no style “{name}”.", de: "Es gibt keinen Stil „{name}“." },
  "error.unknown_adapter": {
    en: "There is no LoRA “{name}” in the server's folder.",
    de: "Im Ordner des Servers ist kein LoRA „{name}“.",
  },
  "error.unknown_motion_adapter": {
    en: "There is no motion adapter “{name}” in the server's folder.",
    de: "Im Ordner des Servers ist kein Bewegungsadapter „{name}“.",
  },
  "error.unknown_model": {
    en: "The server does not have the model “{name}”.",
    de: "Der Server hat das Modell „{name}“ nicht.",
  },
  "error.too_many_pictures": {
    en: "These are {count} pictures: at most {most} are drawn at once.",
    de: "Das sind {count} Bilder: Höchstens {most} werden auf einmal gezeichnet.",
  },
  "error.too_many_pixels": {
    en: "{width} × {height} are too many pixels: this server draws at most {most}.",
    de: "{width} × {height} sind zu viele Pixel: Dieser Server zeichnet höchstens {most}.",
  },
  "error.too_many_frames": {
    en: "A clip has at most {most} frames on this server.",
    de: "Ein Clip hat auf diesem Server höchstens {most} Bilder.",
  },
  "error.too_many_steps": {
    en: "At most {most} steps are taken on this server.",
    de: "Auf diesem Server sind höchstens {most} Schritte möglich.",
  },
  "error.adapter_taken": {
    en: "“{name}” is there already. Give this one another name.",
    de: "„{name}“ gibt es schon. Geben Sie diesem einen anderen Namen.",
  },
  "error.too_much_teaching": {
    en: "It would take {count} steps; at most {most} are learned on this server.",
    de: "Es wären {count} Schritte; auf diesem Server werden höchstens {most} gelernt.",
  },
  "error.too_many_teachings": {
    en: "{most} are being learned or wait; wait until one of them is over.",
    de: "{most} werden gelernt oder warten; warten Sie, bis eines davon fertig ist.",
  },
  "error.nothing_taught": {
    en: "Nothing can be taught on this server.",
    de: "Auf diesem Server kann nichts gelehrt werden.",
  },
  "error.queue_full": {
    en: "The queue is full. Try again in {seconds} seconds; your prompt is kept.",
    de: "Die Warteschlange ist voll. In {seconds} Sekunden noch einmal; Ihr Prompt bleibt.",
  },
  "error.hourly_limit": {
    en: "You may ask for {most} pictures an hour. Go on in {time}; your prompt is kept.",
    de: "Es sind {most} Bilder in der Stunde möglich. Weiter geht es in {time}; Ihr Prompt bleibt.",
  },
  "error.inputs_full": {
    en: "The server has no room now for the picture to begin with. Try again in {seconds} seconds.",
    de: "Der Server hat gerade keinen Platz für das Ausgangsbild. In {seconds} Sekunden noch einmal.",
  },
  "error.no_worker": {
    en: "The server is still starting or has much to do. Try again in {seconds} seconds.",
    de: "Der Server startet noch oder hat viel zu tun. In {seconds} Sekunden noch einmal.",
  },
  "error.body_too_large": {
    en: "This is more than the server takes at once. Take a smaller picture.",
    de: "Das ist mehr, als der Server auf einmal annimmt. Nehmen Sie ein kleineres Bild.",
  },
  "error.picture_not_read": {
    en: "This is not a {kinds} picture.",
    de: "Das ist kein Bild, das gelesen wird ({kinds}).",
  },
  "error.picture_too_large": {
    en: "The picture has {width} × {height} pixels: at most {most} are read.",
    de: "Das Bild hat {width} × {height} Pixel: Höchstens {most} werden gelesen.",
  },
  "error.picture_moves": {
    en: "This is an animation: only single pictures are read.",
    de: "Das ist eine Animation: Nur einzelne Bilder werden gelesen.",
  },
  "error.picture_damaged": {
    en: "The picture file is damaged or cut off.",
    de: "Die Bilddatei ist beschädigt oder unvollständig.",
  },
  "error.picture_gone": {
    en: "The picture to begin with is no longer there. Choose it anew.",
    de: "Das Ausgangsbild ist nicht mehr da. Wählen Sie es neu.",
  },
  "error.picture_refused": {
    en: "This server does not keep pictures that show nudity. Change the prompt or the seed.",
    de: "Dieser Server behält keine Bilder, die Nacktheit zeigen. Ändern Sie Prompt oder Seed.",
  },
  "error.picture_not_kept": {
    en: "The picture could not be stored: {why}.",
    de: "Das Bild ließ sich nicht speichern: {why}.",
  },
  "error.not_finite": {
    en: "The model's numbers left their range. Lower the guidance or the weights, or take another sampler.",
    de: "Die Zahlen des Modells liefen aus dem Bereich. Weniger Guidance, kleinere Gewichte oder ein anderer Sampler helfen.",
  },
  "error.process_ended": {
    en: "The process that drew it ended, perhaps for want of memory. A smaller picture needs less.",
    de: "Der zeichnende Prozess endete, vielleicht aus Mangel an Speicher. Ein kleineres Bild braucht weniger.",
  },
  "error.learning_ended": {
    en: "The process that learned it ended, perhaps for want of memory.",
    de: "Der lernende Prozess endete, vielleicht aus Mangel an Speicher.",
  },
  "error.machine_lost": {
    en: "The machine that drew it is gone.",
    de: "Der Rechner, der es zeichnete, ist nicht mehr da.",
  },
  "error.file_not_read": {
    en: "The server cannot read {name}.",
    de: "Der Server kann {name} nicht lesen.",
  },
  "error.database_away": {
    en: "The server's database does not answer. Try again in {seconds} seconds.",
    de: "Die Datenbank des Servers antwortet nicht. In {seconds} Sekunden noch einmal.",
  },
  "error.internal_error": {
    en: "The server made a mistake; its log says which.",
    de: "Dem Server ist ein Fehler unterlaufen; sein Protokoll nennt ihn.",
  },
} satisfies Table;
