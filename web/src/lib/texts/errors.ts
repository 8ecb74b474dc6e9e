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
  "error.axis_refused": { en: "{value}: {why}", de: "{value}: {why}" },
  "error.cell_refused": { en: "The picture of {cell}: {why}", de: "Das Bild mit {cell}: {why}" },
  "error.body_fault": {
    en: "What was sent is not understood: {why}",
    de: "Das Gesendete ist nicht zu verstehen: {why}",
  },
  "error.syntax_not_read": {
    en: "The syntax of the prompt: {why}",
    de: "Die Schreibweise des Prompts: {why}",
  },
  "error.adapter_left_out": { en: "LoRA {name}: {why}", de: "LoRA {name}: {why}" },
  "error.control_left_out": {
    en: "Control network {name}: not in the server's folder",
    de: "Steuernetz {name}: liegt nicht im Ordner des Servers",
  },
  "error.embedding_left_out": {
    en: "Embedding {name}: not in the server's folder",
    de: "Embedding {name}: liegt nicht im Ordner des Servers",
  },
  "error.model_replaced": {
    en: "Model {name}: not on this server; drawn with {other}",
    de: "Modell {name}: nicht auf diesem Server; gezeichnet wird mit {other}",
  },
  "error.not_in_folder": { en: "not in the server's folder", de: "liegt nicht im Ordner des Servers" },
  "error.replaced_by": { en: "{what}: drawn with {name}", de: "{what}: gezeichnet mit {name}" },
  "error.prompt_not_found": { en: "There is no prompt.", de: "Es ist kein Prompt dabei." },
  "error.settings_not_found": {
    en: "Its settings: no sampler was found in its graph.",
    de: "Die Einstellungen: Im Graphen war kein Sampler zu finden.",
  },
  "error.upscaler_left_out": { en: "Upscaler {name}", de: "Vergrößerer {name}" },
  "error.start_picture_left_out": {
    en: "The picture that it begins with (node {name})",
    de: "Das Bild, mit dem begonnen wird (Knoten {name})",
  },
  "error.node_left_out": { en: "Node {name}", de: "Knoten {name}" },
  "error.value_out_of_range": {
    en: "{field}: from {least} to {most}.",
    de: "{field}: von {least} bis {most}.",
  },
  "error.value_too_small": { en: "{field}: {least} or more.", de: "{field}: {least} oder mehr." },
  "error.value_too_large": { en: "{field}: {most} or less.", de: "{field}: höchstens {most}." },
  "error.value_not_multiple": {
    en: "{field}: a multiple of {factor}.",
    de: "{field}: ein Vielfaches von {factor}.",
  },
  "error.value_not_whole": {
    en: "{field}: {value} is not a whole number.",
    de: "{field}: {value} ist keine ganze Zahl.",
  },
  "error.value_no_number": {
    en: "{field}: {value} is not a number.",
    de: "{field}: {value} ist keine Zahl.",
  },
  "error.value_no_switch": {
    en: "{field}: {value} is neither on nor off.",
    de: "{field}: {value} ist weder an noch aus.",
  },
  "error.value_no_text": {
    en: "{field}: this is not understood.",
    de: "{field}: Das ist nicht zu verstehen.",
  },
  "error.text_too_long": {
    en: "{field}: at most {most} characters.",
    de: "{field}: höchstens {most} Zeichen.",
  },
  "error.text_too_short": {
    en: "{field}: {least} characters or more.",
    de: "{field}: mindestens {least} Zeichen.",
  },
  "error.list_too_long": { en: "{field}: at most {most}.", de: "{field}: höchstens {most}." },
  "error.list_too_short": {
    en: "{field}: at least one more is needed.",
    de: "{field}: Es fehlt mindestens eines.",
  },
  "error.value_unknown": { en: "{field}: {value} is not known.", de: "{field}: {value} ist nicht bekannt." },
  "error.value_not_of": {
    en: "{field}: {value} is none of {choices}.",
    de: "{field}: {value} ist keines von {choices}.",
  },
  "error.name_unknown": {
    en: "{field}: “{value}” is not known.",
    de: "{field}: „{value}“ ist nicht bekannt.",
  },
  "error.field_unknown": {
    en: "This server does not know the setting {field}.",
    de: "Die Einstellung {field} kennt dieser Server nicht.",
  },
  "error.value_missing": { en: "{field} is missing.", de: "{field} fehlt." },
  "error.name_is_word": {
    en: "{field}: letters, digits, ‘.’, ‘_’ and ‘-’, 64 at most.",
    de: "{field}: Buchstaben, Ziffern, „.“, „_“ und „-“, höchstens 64.",
  },
  "error.not_json": { en: "What was sent is not understood.", de: "Das Gesendete ist nicht zu verstehen." },
  "error.field_needs": {
    en: "{field} goes only with {other_field}.",
    de: "{field} geht nur zusammen mit {other_field}.",
  },
  "error.not_in_clips": {
    en: "{field} is for pictures, not for clips.",
    de: "{field} gibt es nur für Bilder, nicht für Clips.",
  },
  "error.fields_exclude": {
    en: "{field} does not go with {other_field}.",
    de: "{field} und {other_field} gehen nicht zusammen.",
  },
  "error.fields_same": { en: "{field} is given twice.", de: "{field} ist doppelt angegeben." },
  "error.given_twice": { en: "The prompt is given twice.", de: "Der Prompt ist doppelt angegeben." },
  "error.nothing_to_draw": { en: "There is nothing to draw.", de: "Es gibt nichts zu zeichnen." },
  "error.not_to_draw": { en: "This is nothing that can be drawn.", de: "Das lässt sich nicht zeichnen." },
  "error.amounts_missing": {
    en: "Each variation seed needs an amount from 0 to 1.",
    de: "Jeder Variationsseed braucht einen Anteil von 0 bis 1.",
  },
  "error.extend_nothing": {
    en: "Drag at least one edge outwards.",
    de: "Ziehen Sie mindestens einen Rand nach außen.",
  },
  "error.fill_unknown": { en: "The filling is not known.", de: "Die Füllung ist nicht bekannt." },
  "error.seed_negative": { en: "Seed: from 0 to {most}.", de: "Seed: von 0 bis {most}." },
  "error.half_character": {
    en: "The text has half a character in it; delete it and write it anew.",
    de: "Im Text steht ein halbes Zeichen; löschen Sie es und schreiben Sie es neu.",
  },
  "error.layers_same_name": { en: "Two elements are called “{name}”.", de: "Zwei Elemente heißen „{name}“." },
  "error.box_empty": { en: "The box has no area.", de: "Der Rahmen hat keine Fläche." },
  "error.elements_empty": {
    en: "A scene has at least one element.",
    de: "Eine Szene hat mindestens ein Element.",
  },
  "error.element_without_box": {
    en: "Element {number} has no box.",
    de: "Element {number} hat keinen Rahmen.",
  },
  "error.box_and_mask": {
    en: "An element has a box or a mask, not both.",
    de: "Ein Element hat einen Rahmen oder eine Maske, nicht beides.",
  },
  "error.interval_wrong": {
    en: "The guidance interval begins below where it ends, at 0 or more.",
    de: "Der Bereich der Guidance beginnt unter seinem Ende, bei 0 oder mehr.",
  },
  "error.window_wrong": {
    en: "The beginning {start} is not before the end {end}.",
    de: "Der Anfang {start} liegt nicht vor dem Ende {end}.",
  },
  "error.control_no_picture": { en: "A control needs a picture.", de: "Ein Steuernetz braucht ein Bild." },
  "error.travel_beyond": {
    en: "Frame {frame} of the prompt travel is beyond the clip, which has {count}.",
    de: "Bild {frame} der Prompt-Reise liegt hinter dem Clip, der {count} Bilder hat.",
  },
  "error.travel_form": {
    en: "Prompt travel: a frame's number, a colon and a text, as “8: an open flower”.",
    de: "Prompt-Reise: Nummer des Bildes, Doppelpunkt, Text, etwa „8: an open flower“.",
  },
  "error.travel_twice": { en: "Frame {frame} is given twice.", de: "Bild {frame} ist doppelt angegeben." },
  "error.travel_adapter": {
    en: "Call the LoRA “{name}” in the prompt: it works in all frames.",
    de: "Das LoRA „{name}“ gehört in den Prompt: Es wirkt in allen Bildern.",
  },
  "error.clip_too_long": {
    en: "With the frames in between the clip has more than {most}.",
    de: "Mit den Zwischenbildern hat der Clip mehr als {most} Bilder.",
  },
  "error.clip_too_fast": {
    en: "More than {most} frames a second cannot be shown.",
    de: "Mehr als {most} Bilder je Sekunde lassen sich nicht zeigen.",
  },
  "error.grid_axis_form": {
    en: "This axis needs a setting and values.",
    de: "Diese Achse braucht eine Einstellung und Werte.",
  },
  "error.grid_axis_word": {
    en: "A word can be replaced only in the prompt, the negative prompt, or as a LoRA.",
    de: "Ein Wort lässt sich nur im Prompt, im negativen Prompt oder als LoRA ersetzen.",
  },
  "error.grid_range_step": {
    en: "The range {range} needs a step, as in 0-1 (+0.25).",
    de: "Der Bereich {range} braucht eine Schrittweite, etwa 0-1 (+0.25).",
  },
  "error.grid_range_long": {
    en: "The range {range} has {count} values: 1 to {most} are possible.",
    de: "Der Bereich {range} hat {count} Werte: 1 bis {most} sind möglich.",
  },
  "error.grid_axes_count": {
    en: "A grid has one to three axes.",
    de: "Ein Raster hat eine bis drei Achsen.",
  },
  "error.grid_axes_same": {
    en: "Two axes are {field}: each can be one only.",
    de: "{field} steht auf zwei Achsen: Jede Einstellung kann nur eine sein.",
  },
  "error.grid_too_large": {
    en: "These are {count} pictures: at most {most} can be drawn.",
    de: "Das sind {count} Bilder: Höchstens {most} sind möglich.",
  },
  "error.grid_no_axis": { en: "{field} cannot be an axis.", de: "{field} kann keine Achse sein." },
  "error.grid_word_absent": {
    en: "{word} is not in the text ({field}).",
    de: "{word} steht nicht im Text ({field}).",
  },
  "error.grid_of_many": {
    en: "A cell of a grid is one picture, and this prompt is for {count}: let templates choose.",
    de: "Ein Feld des Rasters ist ein Bild, und dieser Prompt gibt {count}: Lassen Sie Schablonen wählen.",
  },
  "error.grid_of_clips": {
    en: "A grid has pictures, no clips. Switch the clip off.",
    de: "Ein Raster hat Bilder, keine Clips. Schalten Sie den Clip aus.",
  },
  "error.grid_empty": { en: "The grid has no pictures yet.", de: "Das Raster hat noch keine Bilder." },
  "error.grid_gone": { en: "This grid is no longer there.", de: "Dieses Raster gibt es nicht mehr." },
  "error.job_gone": { en: "This job is no longer there.", de: "Diesen Auftrag gibt es nicht mehr." },
  "error.job_over": { en: "It is over already.", de: "Es ist schon zu Ende." },
  "error.record_gone": { en: "This picture is no longer there.", de: "Dieses Bild gibt es nicht mehr." },
  "error.teaching_gone": { en: "This teaching is no longer there.", de: "Dieses Lehren gibt es nicht mehr." },
  "error.page_file_gone": {
    en: "The page is of another version than the server. Load it anew.",
    de: "Die Seite ist von einer anderen Version als der Server. Laden Sie sie neu.",
  },
  "error.key_used": {
    en: "This was sent before with other settings. Send it once more.",
    de: "Das wurde schon mit anderen Einstellungen gesendet. Senden Sie es noch einmal.",
  },
  "error.key_needed": { en: "The server asks for a key.", de: "Der Server verlangt einen Schlüssel." },
  "error.origin_refused": {
    en: "A page of {origin} may not use this server.",
    de: "Eine Seite von {origin} darf diesen Server nicht verwenden.",
  },
  "error.request_slow": {
    en: "It took longer than {limit} seconds to arrive. Try again.",
    de: "Es kam nicht innerhalb von {limit} Sekunden an. Versuchen Sie es noch einmal.",
  },
  "error.field_of_server": { en: "{field} is set by the server.", de: "{field} bestimmt der Server." },
  "error.upscaler_not_here": {
    en: "The upscaler {value} is not on this server.",
    de: "Den Vergrößerer {value} hat dieser Server nicht.",
  },
  "error.picture_lacks_data": {
    en: "The picture did not arrive with the rest. Choose it anew.",
    de: "Das Bild kam nicht mit an. Wählen Sie es neu.",
  },
  "error.picture_is_url": {
    en: "Addresses are not fetched: choose the picture's file.",
    de: "Adressen werden nicht abgerufen: Wählen Sie die Bilddatei.",
  },
  "error.picture_no_base64": { en: "This is not a picture.", de: "Das ist kein Bild." },
  "error.picture_by_path": { en: "This is not a picture.", de: "Das ist kein Bild." },
  "error.picture_other_bytes": {
    en: "The picture did not arrive whole. Choose it anew.",
    de: "Das Bild kam nicht heil an. Wählen Sie es neu.",
  },
  "error.picture_other_file": {
    en: "The picture is not on this server.",
    de: "Das Bild ist nicht auf diesem Server.",
  },
  "error.picture_array": { en: "This is not a picture.", de: "Das ist kein Bild." },
  "error.picture_too_heavy": {
    en: "The picture file is too large to be read.",
    de: "Die Bilddatei ist zu groß, um gelesen zu werden.",
  },
  "error.picture_far_too_large": {
    en: "The picture has far too many pixels.",
    de: "Das Bild hat viel zu viele Pixel.",
  },
  "error.picture_kind": {
    en: "The picture has colours of an unusual kind ({kind}): save it as RGB.",
    de: "Das Bild hat Farben ungewöhnlicher Art ({kind}): Sichern Sie es als RGB.",
  },
  "error.picture_is_video": {
    en: "This is a video: take one picture of it.",
    de: "Das ist ein Video: Nehmen Sie ein Bild daraus.",
  },
  "error.picture_other_kind": {
    en: "This is {kind}; {kinds} are read.",
    de: "Das ist {kind}; gelesen werden {kinds}.",
  },
  "error.record_absent": {
    en: "This picture does not say how it was drawn.",
    de: "Dieses Bild sagt nicht, wie es gezeichnet wurde.",
  },
  "error.record_too_large": {
    en: "What this picture says of itself is too long to be read.",
    de: "Was dieses Bild über sich sagt, ist zu lang.",
  },
  "error.record_wrong": {
    en: "What this picture says of how it was drawn is damaged.",
    de: "Was dieses Bild über seine Entstehung sagt, ist beschädigt.",
  },
  "error.combinations_too_many": {
    en: "The templates make {ways} prompts: with {count} pictures each that is more than {most}.",
    de: "Die Schablonen ergeben {ways} Prompts: Mit je {count} Bildern sind das mehr als {most}.",
  },
  "error.seed_passes": {
    en: "Take a smaller seed: the last of {count} pictures would pass the largest.",
    de: "Nehmen Sie einen kleineren Seed: Das letzte von {count} Bildern käme über den größten.",
  },
  "error.file_not_found": {
    en: "“{name}” is not on this server.",
    de: "„{name}“ ist nicht auf diesem Server.",
  },
  "error.fast_unknown": {
    en: "Switch “Fast” off: this model does not need it or cannot do it.",
    de: "Schalten Sie „Schnell“ aus: Dieses Modell braucht es nicht oder kann es nicht.",
  },
  "error.fast_steps": {
    en: "“Fast” draws in 1 to {most} steps. Switch it off for more.",
    de: "„Schnell“ zeichnet in 1 bis {most} Schritten. Für mehr schalten Sie es aus.",
  },
  "error.fast_fixed": {
    en: "“Fast” has a value of its own for {field}: leave it as it is, or switch “Fast” off.",
    de: "„Schnell“ hat einen eigenen Wert für {field}: Lassen Sie ihn frei, oder schalten Sie „Schnell“ aus.",
  },
  "error.embedding_unknown": {
    en: "There is no embedding “{name}” in the server's folder.",
    de: "Im Ordner des Servers ist kein Embedding „{name}“.",
  },
  "error.embedding_too_long": {
    en: "The embedding “{name}” is too long for this model.",
    de: "Das Embedding „{name}“ ist für dieses Modell zu lang.",
  },
  "error.blend_zero": {
    en: "The weights of the blend add up to 0.",
    de: "Die Gewichte der Mischung ergeben zusammen 0.",
  },
  "error.prompts_too_long": {
    en: "These prompts are too long to be drawn together.",
    de: "Diese Prompts sind zu lang, um zusammen gezeichnet zu werden.",
  },
  "error.clip_skip_range": { en: "Clip skip: from 0 to {most}.", de: "Clip-Skip: von 0 bis {most}." },
  "error.and_too_many": {
    en: "AND joins {count} parts: at most {most} are drawn together.",
    de: "AND verbindet {count} Teile: Höchstens {most} werden zusammen gezeichnet.",
  },
  "error.adapter_in_negative": {
    en: "Call the LoRA “{name}” in the prompt, not in the negative one.",
    de: "Das LoRA „{name}“ gehört in den Prompt, nicht in den negativen.",
  },
  "error.steps_few": { en: "Steps: 1 or more.", de: "Schritte: 1 oder mehr." },
  "error.comment_sign": {
    en: "In this dialect # begins a comment.",
    de: "In diesem Dialekt beginnt # einen Kommentar.",
  },
  "error.hypernetwork": {
    en: "Hypernetworks are not read: take it out of the prompt.",
    de: "Hypernetze werden nicht gelesen: Nehmen Sie es aus dem Prompt.",
  },
  "error.brackets_too_deep": {
    en: "Brackets are inside each other more than {most} deep.",
    de: "Die Klammern sind mehr als {most}-mal verschachtelt.",
  },
  "error.adapter_tag": { en: "Write <lora:name:weight>.", de: "Schreiben Sie <lora:Name:Gewicht>." },
  "error.adapter_weights": {
    en: "A LoRA has at most two weights.",
    de: "Ein LoRA hat höchstens zwei Gewichte.",
  },
  "error.adapter_argument": {
    en: "Only te= and unet= can be named in a LoRA's tag.",
    de: "Bei einem LoRA lassen sich nur te= und unet= angeben.",
  },
  "error.weight_not_finite": {
    en: "The weight is no number; write one such as 1.2.",
    de: "Das Gewicht ist keine Zahl; schreiben Sie etwa 1.2.",
  },
  "error.weight_no_number": {
    en: "The weight {weight} is no number; write one such as 0.5.",
    de: "Das Gewicht {weight} ist keine Zahl; schreiben Sie etwa 0.5.",
  },
  "error.compel_says": {
    en: "This dialect cannot say this text; choose another one.",
    de: "Dieser Dialekt kann diesen Text nicht sagen; wählen Sie einen anderen.",
  },
  "error.compel_swap": {
    en: ".swap() is not read: write [from:to:when] in the dialect sfumato.",
    de: ".swap() wird nicht gelesen: Schreiben Sie [von:nach:wann] im Dialekt sfumato.",
  },
  "error.compel_parts": {
    en: "There are {parts} parts and {weights} weights: give one each, or none.",
    de: "Das sind {parts} Teile und {weights} Gewichte: Geben Sie jedem eines oder keinem.",
  },
  "error.compel_whole": {
    en: ".blend() and .and() take the whole prompt.",
    de: ".blend() und .and() gelten für den ganzen Prompt.",
  },
  "error.weights_multiply": {
    en: "The weights around this text multiply to {weight}: together {least} to {most}.",
    de: "Die Gewichte um diesen Text ergeben zusammen {weight}: erlaubt sind {least} bis {most}.",
  },
  "error.adapter_weight_range": {
    en: "The weight of this LoRA is too large or too small.",
    de: "Das Gewicht dieses LoRA ist zu groß oder zu klein.",
  },
  "error.switch_wrong": {
    en: "{when} is neither a step from 0 nor a fraction from 0.0 to 1.0.",
    de: "{when} ist weder ein Schritt ab 0 noch ein Anteil von 0.0 bis 1.0.",
  },
  "error.adapter_sign": {
    en: "<lora: lacks its >; write \\< for the sign itself.",
    de: "Zu <lora: fehlt das >; \\< steht für das Zeichen selbst.",
  },
  "error.adapter_in_brackets": {
    en: "Call the LoRA outside [ ]: it works at every step.",
    de: "Das LoRA gehört vor oder hinter [ ]: Es wirkt in jedem Schritt.",
  },
  "error.backslash_last": {
    en: "The prompt ends with a backslash; write \\\\ for the sign itself.",
    de: "Der Prompt endet mit einem Rückstrich; \\\\ steht für das Zeichen selbst.",
  },
  "error.switch_without_when": {
    en: "[from:to:when] needs a step or a fraction at its end, as in [cat:dog:0.5].",
    de: "[von:nach:wann] braucht am Ende einen Schritt oder Anteil, etwa [cat:dog:0.5].",
  },
  "error.switch_too_many": {
    en: "[from:to:when] has two texts at most, and no |.",
    de: "[von:nach:wann] hat höchstens zwei Texte und kein |.",
  },
  "error.switches_too_many": {
    en: "The prompt changes too often for its length: shorten it or take fewer steps.",
    de: "Der Prompt wechselt für seine Länge zu oft: Kürzen Sie ihn, oder nehmen Sie weniger Schritte.",
  },
  "error.styled_too_long": {
    en: "With the style “{name}” the prompt is longer than {most} characters.",
    de: "Mit dem Stil „{name}“ ist der Prompt länger als {most} Zeichen.",
  },
  "error.style_file_wrong": {
    en: "The server cannot read one of its style files.",
    de: "Der Server kann eine seiner Stildateien nicht lesen.",
  },
  "error.wildcard_file_wrong": {
    en: "The server cannot read its word list {name}.",
    de: "Der Server kann seine Wortliste {name} nicht lesen.",
  },
  "error.variable_empty": { en: "${{name}} has no value yet.", de: "${{name}} hat noch keinen Wert." },
  "error.combinations_endless": {
    en: "The template has too many combinations: let it choose at random.",
    de: "Die Schablone hat zu viele Kombinationen: Lassen Sie sie zufällig wählen.",
  },
  "error.template_too_long": { en: "The template is too long.", de: "Die Schablone ist zu lang." },
  "error.wildcard_uncounted": {
    en: "These combinations cannot be counted: let the template choose at random.",
    de: "Diese Kombinationen lassen sich nicht zählen: Lassen Sie die Schablone zufällig wählen.",
  },
  "error.comment_not_closed": {
    en: "The comment at character {place} is never closed by */.",
    de: "Der Kommentar an Stelle {place} wird nie mit */ geschlossen.",
  },
  "error.template_jinja": {
    en: "{% … %} of Jinja templates is not read.",
    de: "{% … %} aus Jinja-Vorlagen wird nicht gelesen.",
  },
  "error.weight_before_option": {
    en: "A weight stands before its option: {weight}",
    de: "Ein Gewicht steht vor seiner Wahlmöglichkeit: {weight}",
  },
  "error.template_weight_large": {
    en: "A weight is at most {most}.",
    de: "Ein Gewicht ist höchstens {most}.",
  },
  "error.options_too_many": {
    en: "More options are picked than are possible.",
    de: "Es werden mehr Möglichkeiten gewählt, als gehen.",
  },
  "error.options_contradict": {
    en: "At least {least} and at most {most} cannot both be.",
    de: "Mindestens {least} und höchstens {most} geht nicht zugleich.",
  },
  "error.variable_form": {
    en: "After ${ a name and } or =value} is expected; write \\$\\{ for the signs.",
    de: "Nach ${ steht ein Name und } oder =Wert}; \\$\\{ steht für die Zeichen.",
  },
  "error.options_all_zero": {
    en: "Every option has the weight 0.",
    de: "Alle Möglichkeiten haben das Gewicht 0.",
  },
  "error.options_two_signs": {
    en: "How many options are picked is followed by two $: {2$$a|b}.",
    de: "Nach der Anzahl stehen zwei $: {2$$a|b}.",
  },
  "error.option_form": {
    en: "Between { and } of a wildcard stands name=value.",
    de: "In den Klammern einer Wortliste steht Name=Wert.",
  },
  "error.option_bar": {
    en: "| stands between options, and those need braces: {a|b}.",
    de: "| steht zwischen Möglichkeiten, und die brauchen Klammern: {a|b}.",
  },
  "error.option_parts": {
    en: "%{ needs two parts: %{before ... after$$text}.",
    de: "%{ braucht zwei Teile: %{davor ... danach$$Text}.",
  },
  "error.option_count": {
    en: "Before $$ stands how many are picked: {2$$a|b}.",
    de: "Vor $$ steht, wie viele gewählt werden: {2$$a|b}.",
  },
  "error.wildcard_circle": {
    en: "These word lists name each other in a circle: {circle}",
    de: "Diese Wortlisten nennen sich im Kreis: {circle}",
  },
  "error.wildcards_too_many": {
    en: "The word lists are too many or too long.",
    de: "Die Wortlisten sind zu viele oder zu lang.",
  },
  "error.travel_and": {
    en: "Prompt travel and AND do not go together.",
    de: "Prompt-Reise und AND gehen nicht zusammen.",
  },
  "error.mask_other_size": {
    en: "Mask and picture are not of one size.",
    de: "Maske und Bild sind nicht gleich groß.",
  },
  "error.mask_empty": {
    en: "Nothing is marked: paint over what is to be drawn anew.",
    de: "Nichts ist markiert: Übermalen Sie, was neu gezeichnet werden soll.",
  },
  "error.opencv_missing": {
    en: "The server lacks OpenCV, which this preparation of a picture needs.",
    de: "Dem Server fehlt OpenCV, das diese Vorbereitung eines Bildes braucht.",
  },
  "error.edit_needs_picture": {
    en: "This model needs a picture to begin with.",
    de: "Dieses Modell braucht ein Ausgangsbild.",
  },
  "error.model_needs_mask": {
    en: "This model needs a mask: paint what is to be drawn anew.",
    de: "Dieses Modell braucht eine Maske: Malen Sie, was neu gezeichnet werden soll.",
  },
  "error.model_edits_by_words": {
    en: "This model edits in another way. Choose another model.",
    de: "Dieses Modell bearbeitet anders. Wählen Sie ein anderes Modell.",
  },
  "error.extend_too_large": {
    en: "Extended it would have {width} × {height} pixels: at most {most} are drawn.",
    de: "Erweitert hätte es {width} × {height} Pixel: Höchstens {most} werden gezeichnet.",
  },
  "error.motion_unknown": { en: "This motion is not possible.", de: "Diese Bewegung ist nicht möglich." },
  "error.no_clips": { en: "This model draws no clips.", de: "Dieses Modell zeichnet keine Clips." },
  "error.travel_no_text": {
    en: "This model reads no text, so that prompt travel does nothing.",
    de: "Dieses Modell liest keinen Text; eine Prompt-Reise hat keine Wirkung.",
  },
  "error.motion_not_needed": {
    en: "This model draws clips by itself: take no motion adapter.",
    de: "Dieses Modell zeichnet Clips von selbst: Wählen Sie keinen Bewegungsadapter.",
  },
  "error.context_no_adapter": {
    en: "Windows overlap only with a motion adapter.",
    de: "Fenster überlappen nur mit einem Bewegungsadapter.",
  },
  "error.context_overlap_large": {
    en: "Windows overlap by less than they are long.",
    de: "Fenster überlappen um weniger, als sie lang sind.",
  },
  "error.context_too_long": {
    en: "The motion adapter knows {most} frames at once.",
    de: "Der Bewegungsadapter kennt {most} Bilder auf einmal.",
  },
  "error.pia_no_noise": {
    en: "This motion adapter takes no added noise.",
    de: "Dieser Bewegungsadapter nimmt kein zugesetztes Rauschen.",
  },
  "error.pia_amount": {
    en: "Amount of motion: from 0 to {most}.",
    de: "Stärke der Bewegung: von 0 bis {most}.",
  },
  "error.not_of_this_model": {
    en: "{field} does nothing with this model.",
    de: "{field} hat bei diesem Modell keine Wirkung.",
  },
  "error.control_other_model": {
    en: "“{name}” was made for another kind of model.",
    de: "„{name}“ ist für ein anderes Modell gemacht.",
  },
  "error.control_pictures": {
    en: "This control network cannot read what is given.",
    de: "Dieses Steuernetz kann das Gegebene nicht lesen.",
  },
  "error.adapter_needs_motion": {
    en: "The adapter “{name}” works only with a motion adapter: draw a clip with one.",
    de: "Der Adapter „{name}“ wirkt nur mit einem Bewegungsadapter: Zeichnen Sie damit einen Clip.",
  },
  "error.adapter_reloaded": {
    en: "The LoRA's file changed meanwhile. Draw once more.",
    de: "Die Datei des LoRA hat sich inzwischen geändert. Zeichnen Sie noch einmal.",
  },
  "error.upscale_not_smaller": {
    en: "{width} × {height} cannot be begun {scale} times smaller; take 2.",
    de: "{width} × {height} lässt sich nicht {scale}-mal kleiner beginnen; nehmen Sie 2.",
  },
  "error.upscale_idle": {
    en: "{field} needs an enlargement of 2 or more.",
    de: "{field} braucht eine Vergrößerung ab 2.",
  },
  "error.motion_other_model": {
    en: "The motion adapter “{name}” was made for another kind of model.",
    de: "Der Bewegungsadapter „{name}“ ist für ein anderes Modell gemacht.",
  },
  "error.drawn_too_large": {
    en: "It would be {width} × {height} pixels: at most {most} a side.",
    de: "Das wären {width} × {height} Pixel: höchstens {most} je Seite.",
  },
  "error.inversion_sampler": {
    en: "This way of editing has a sampler of its own: leave the sampler free.",
    de: "Diese Art der Bearbeitung hat einen eigenen Sampler: Lassen Sie den Sampler frei.",
  },
  "error.decoder_absent": {
    en: "This model has no small decoder.",
    de: "Dieses Modell hat keinen kleinen Decoder.",
  },
  "error.picture_not_finite": {
    en: "The picture's numbers left their range. Lower the guidance or the weights.",
    de: "Die Zahlen des Bildes liefen aus dem Bereich. Weniger Guidance oder kleinere Gewichte helfen.",
  },
  "error.sampler_failed": {
    en: "The sampler {name} failed. Take another one.",
    de: "Der Sampler {name} ist gescheitert. Nehmen Sie einen anderen.",
  },
  "error.adapter_other_model": {
    en: "It was made for another kind of model ({kind}).",
    de: "Das ist für ein anderes Modell gemacht ({kind}).",
  },
  "error.adapter_unreadable": { en: "This file is no adapter.", de: "Diese Datei ist kein Adapter." },
  "error.adapter_is_word": {
    en: "Its name must be “{word}”, the word that is learned.",
    de: "Der Name muss „{word}“ sein, das gelernte Wort.",
  },
  "error.teach_name_long": {
    en: "Name and class are a few words, {most} letters at most.",
    de: "Name und Art sind wenige Wörter, höchstens {most} Buchstaben.",
  },
  "error.teach_name_signs": {
    en: "The name has signs that mean something else in prompts: <>(){}[]:|",
    de: "Der Name hat Zeichen, die im Prompt etwas anderes heißen: <>(){}[]:|",
  },
  "error.teach_class_missing": {
    en: "DreamBooth needs the class, as “mug”.",
    de: "DreamBooth braucht die Art, etwa „mug“.",
  },
  "error.teach_text_encoders": {
    en: "An embedding leaves the networks as they are.",
    de: "Ein Embedding lässt die Netze, wie sie sind.",
  },
  "error.teach_name_gone": {
    en: "There is another {name} by now: teach it once more by another name.",
    de: "Inzwischen gibt es ein anderes {name}: Lehren Sie es unter anderem Namen noch einmal.",
  },
  "error.few_pictures": {
    en: "So few pictures teach background and position too; five from several sides, before several backgrounds, draw it anew.",
    de: "Von so wenigen Bildern werden Hintergrund und Lage mitgelernt; fünf von mehreren Seiten vor verschiedenen Hintergründen sind besser.",
  },
  "error.common_words": {
    en: "{name} is made of common words, and what they draw now would be lost: “{better}” has a word of its own.",
    de: "{name} besteht aus gewöhnlichen Wörtern, und was sie jetzt zeichnen, ginge verloren: „{better}“ hat ein eigenes Wort.",
  },
  "error.note_negative_idle": {
    en: "The negative prompt does nothing here.",
    de: "Der negative Prompt hat hier keine Wirkung.",
  },
  "error.note_no_text": {
    en: "This model reads no text: the prompt changes nothing.",
    de: "Dieses Modell liest keinen Text: Der Prompt ändert nichts.",
  },
  "error.note_idle": { en: "{field} does nothing here.", de: "{field} hat hier keine Wirkung." },
  "error.note_no_loop": {
    en: "What zooms in or grows is no loop: the end does not lead back.",
    de: "Was heranfährt oder wächst, ist keine Schleife: Das Ende führt nicht zurück.",
  },
  "error.note_style": {
    en: "The style “{name}” was made for another model and suits this one less.",
    de: "Der Stil „{name}“ ist für ein anderes Modell gemacht und passt hier weniger.",
  },
  "error.note_windows": {
    en: "{width} × {height} is drawn in windows, each of which may repeat the prompt.",
    de: "{width} × {height} wird in Fenstern gezeichnet; jedes kann den Prompt wiederholen.",
  },
  "error.note_size": {
    en: "{width} × {height} is far from the model's own size, {native}: shapes may be broken or repeated.",
    de: "{width} × {height} ist weit von der Größe des Modells, {native}: Formen können zerfallen oder doppelt erscheinen.",
  },
  "error.note_long": {
    en: "{width} × {height} is longer than 2:1: shapes may be repeated.",
    de: "{width} × {height} ist länger als 2:1: Formen können doppelt erscheinen.",
  },
  "error.note_unchanged": {
    en: "With this strength nothing is drawn anew: take {more} steps or more.",
    de: "Bei dieser Stärke wird nichts neu gezeichnet: Nehmen Sie {more} Schritte oder mehr.",
  },
  "error.note_distilled": {
    en: "{field} {value} is not what this model has learned: {best} draws better.",
    de: "{field} {value} hat dieses Modell nicht gelernt: {best} zeichnet besser.",
  },
  "error.note_adapter_hints": {
    en: "The LoRA “{name}” is for few steps: it draws well only with {settings}.",
    de: "Das LoRA „{name}“ ist für wenige Schritte: Gut zeichnet es nur mit {settings}.",
  },
  "error.note_cut_off": {
    en: "{field}: the last {count} tokens were not read.",
    de: "{field}: Die letzten {count} Token wurden nicht gelesen.",
  },
  "error.file_cut_off": {
    en: "“{name}” was not downloaded whole, or is damaged. Fetch the file again.",
    de: "„{name}“ ist unvollständig oder beschädigt. Laden Sie die Datei noch einmal.",
  },
  "error.file_pickled": {
    en: "“{name}” is a pickled checkpoint, which can run code when it is loaded. Convert it on the server: sfumato convert --from-pickle.",
    de: "„{name}“ ist ein Pickle, das beim Laden Code ausführen kann. Wandeln Sie es auf dem Server um: sfumato convert --from-pickle.",
  },
  "error.file_not_safetensors": {
    en: "“{name}” is no safetensors file, or is damaged.",
    de: "„{name}“ ist keine safetensors-Datei oder beschädigt.",
  },
  "error.file_header_damaged": {
    en: "The header of “{name}” is damaged. Fetch the file again.",
    de: "Der Kopf von „{name}“ ist beschädigt. Laden Sie die Datei noch einmal.",
  },
  "error.file_of_other_folder": {
    en: "“{name}” is of another kind: it belongs into the server's folder “{folder}”.",
    de: "„{name}“ ist etwas anderes und gehört in den Ordner „{folder}“ des Servers.",
  },
  "error.file_no_control": {
    en: "“{name}” is no control network: these are ControlNets, T2I-Adapters and IP-Adapters.",
    de: "„{name}“ ist kein Steuernetz: Das sind ControlNets, T2I-Adapter und IP-Adapter.",
  },
  "error.file_no_motion": {
    en: "“{name}” is no motion adapter, as AnimateDiff's.",
    de: "„{name}“ ist kein Bewegungsadapter, wie die von AnimateDiff.",
  },
  "error.file_no_embedding": {
    en: "“{name}” is no embedding that can be read.",
    de: "„{name}“ ist kein lesbares Embedding.",
  },
  "error.file_no_model": {
    en: "“{name}” is no whole model of a kind that is known.",
    de: "„{name}“ ist kein vollständiges Modell einer bekannten Art.",
  },
  "error.file_not_json": {
    en: "The configuration of “{name}” is no JSON that can be read.",
    de: "Die Konfiguration von „{name}“ ist kein lesbares JSON.",
  },
  "error.file_not_finite": {
    en: "“{name}” is damaged: it holds numbers that are none (NaN).",
    de: "„{name}“ ist beschädigt: Es enthält Zahlen, die keine sind (NaN).",
  },
  "error.file_too_large": {
    en: "“{name}” takes {needed} GB of memory, and the server has {there} GB.",
    de: "„{name}“ braucht {needed} GB Speicher, und der Server hat {there} GB.",
  },
  "error.adapter_misfit": {
    en: "“{name}” was made for another model: {count} of its {all} parts do not fit.",
    de: "„{name}“ ist für ein anderes Modell: {count} von {all} Teilen passen nicht.",
  },
  "error.embedding_misfit": {
    en: "The embedding “{name}” was made for another model.",
    de: "Das Embedding „{name}“ ist für ein anderes Modell.",
  },
  "error.file_incomplete": {
    en: "In “{name}” parts are missing, or it has some of another kind.",
    de: "In „{name}“ fehlen Teile, oder es enthält welche von anderer Art.",
  },
  "error.file_unsupported": {
    en: "“{name}” is of a kind that is not supported.",
    de: "„{name}“ ist von einer Art, die nicht unterstützt wird.",
  },
  "error.file_unusable": {
    en: "“{name}” is damaged, or cannot be used here: {text}",
    de: "„{name}“ ist beschädigt oder hier nicht zu gebrauchen (auf Englisch: {text})",
  },
} satisfies Table;
