"""How well a model edits by instruction, on pairs of concepts that no training saw, beside img2img.

    sfumato data icons data/icons
    python benchmarks/instructions.py data/icons --pairs 200

An edit is followed: a new colour, if it is that of most of the thing (`sfumato.evaluate.colours`); a new
background, if the median of the picture's edges is nearest to its colour; a new style, if the scorer finds
the picture nearer to the concept in that style than in its former one. The real pictures after each edit say
what the measures allow, those before it what they find by chance. What is kept are the pixels that the real
pictures before and after have in common; by how much they change is said in levels of 255. The prompt of
img2img is the caption of the picture after the edit, its strength the lowest here that is followed as often.
"""

import argparse
from collections import Counter, defaultdict
from pathlib import Path
from random import Random

import numpy as np
import PIL.Image
import torch
from measuring import machine

import sfumato
from sfumato.contact_sheet import contact_sheet, shrunk
from sfumato.data.captions import TINTS, article
from sfumato.data.crops import Crop
from sfumato.data.icon_pairs import icon_pairs
from sfumato.data.icons import load
from sfumato.data.sets import SETS
from sfumato.evaluate.colours import difference, lab, main_colour, right
from sfumato.evaluate.scorer import Scorer

KINDS = {"colour": 0.4, "ground": 0.3, "style": 0.3}
STRENGTHS = (0.6, 0.8, 0.9, 1.0)
SAME = 12
"""Levels of 255 that pixels in common may differ by."""


def chosen(paired, count, seed):
    """`count` of the pairs, so many of each kind, in an order of chance."""
    random, found = Random(seed), []
    for kind, share in KINDS.items():
        own = [pair for pair in paired.pairs if pair.kind == kind]
        found += random.sample(own, min(round(share * count), len(own)))
    random.shuffle(found)
    return found


def ground_colour(picture):
    """The name in `TINTS` nearest to the median of the edges of a picture (3, H, W) in [−1, 1]."""
    edges = [picture[:, :3].flatten(1), picture[:, -3:].flatten(1), picture[:, :, :3].flatten(1)]
    median = torch.cat([*edges, picture[:, :, -3:].flatten(1)], 1).median(1).values
    names = lab(torch.tensor(list(TINTS.values())) / 255)
    return list(TINTS)[int(difference(lab((median + 1) / 2)[None], names).argmin())]


class Pairs:
    """The pairs with their pictures, and the measures."""

    def __init__(self, folder, count, seed):
        icons = load(folder, held_out=True)
        self.paired = icon_pairs(icons, seed=seed, most=100_000)
        self.pairs = chosen(self.paired, count, seed)
        self.rows = (*icons.rows, *icons.ink_rows)
        self.scorer = Scorer.load(None, torch.device("cpu"))
        self.whole = Crop((icons.pictures.shape[1],) * 2, (256, 256))

    def picture(self, row):
        return self.paired.pictures.load([row], [self.whole])[0]

    def caption(self, row):
        """A caption of one of the pictures."""
        variant = self.paired.pictures.variants[row]
        shown = self.rows[variant.row]
        what = f"{variant.colour} {shown.label}" if variant.colour else shown.label
        where = "" if variant.ground == "white" else f" on {article(variant.ground)} background"
        return f"{article(what)}, {SETS[shown.set].styles[0]}{where}"

    def followed(self, pair, picture):
        if pair.kind == "colour":
            return right(pair.what, main_colour(picture))
        if pair.kind == "ground":
            return right(pair.what, ground_colour(picture))
        texts = self.scorer.of_texts([self.caption(row) for row in (pair.source, pair.target)])
        before, after = (texts @ self.scorer.of_pictures(picture[None])[0]).tolist()
        return after > before

    def changed(self, pair, picture):
        """By how much what is kept changes, in levels of 255; `None` for styles."""
        if pair.kind == "style":
            return None
        before, after = self.picture(pair.source), self.picture(pair.target)
        kept = (before - after).abs().amax(0) * 127.5 < SAME
        return float((picture - before).abs()[:, kept].mean()) * 127.5 if kept.any() else None


def tensor(image):
    return torch.from_numpy(np.array(image.pixels)).permute(2, 0, 1).float() / 127.5 - 1


def pil(picture):
    return PIL.Image.fromarray(((picture + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())


def measured(pairs, draw, name):
    """Share followed by kind, and the mean change of what is kept, of `draw(number, pair)`."""
    hits, counts, changes, pictures = Counter(), Counter(), defaultdict(list), []
    for number, pair in enumerate(pairs.pairs):
        picture = draw(number, pair)
        pictures.append(picture)
        counts[pair.kind] += 1
        hits[pair.kind] += pairs.followed(pair, picture)
        if (change := pairs.changed(pair, picture)) is not None:
            changes[pair.kind].append(change)
        if number % 20 == 19:
            print(f"  {name}: {number + 1} of {len(pairs.pairs)}, {sum(hits.values())} followed", flush=True)
    share = {kind: hits[kind] / counts[kind] for kind in KINDS if counts[kind]}
    share["all"] = sum(hits.values()) / sum(counts.values())
    kept = {kind: float(np.mean(own)) for kind, own in changes.items()}
    kept["all"] = float(np.mean([change for own in changes.values() for change in own]))
    print(f"| {name} | {' | '.join(row(share, kept))} |", flush=True)
    return share, kept, pictures


def row(share, kept):
    for kind in (*KINDS, "all"):
        yield f"{100 * share.get(kind, 0):.0f} %"
    for kind in ("colour", "ground", "all"):
        yield f"{kept.get(kind, 0):.1f}"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="embedded-instruct")
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--image-guidance", type=float)
    parser.add_argument("--alone", action="store_true", help="without img2img")
    parser.add_argument("--sheet", type=Path, help="a contact sheet of some pictures before and after")
    options = parser.parse_args()
    pairs = Pairs(options.folder, options.pairs, options.seed)
    print(f"{len(pairs.pairs)} pairs, {options.steps} steps; {machine('cpu')}")
    print("| | colour | background | style | all | kept, colour | kept, background | kept, all |")
    measured(pairs, lambda number, pair: pairs.picture(pair.target), "real, after")
    measured(pairs, lambda number, pair: pairs.picture(pair.source), "real, before")
    editor = sfumato.load(options.model)
    fields = {"guidance": options.guidance, "image_guidance": options.image_guidance}

    def edited(number, pair):
        text = pair.instructions[number % len(pair.instructions)]
        before = pil(pairs.picture(pair.source))
        return tensor(editor.edit(before, text, seed=number, steps=options.steps, **fields))

    share, _, pictures = measured(pairs, edited, f"by instruction, {options.model}")
    if options.sheet:
        cells = []
        for number, (pair, picture) in enumerate(zip(pairs.pairs[:24], pictures, strict=False)):
            text = pair.instructions[number % len(pair.instructions)]
            cells += [(pairs.picture(pair.source), text), (picture, "edited")]
        shown = [(shrunk(pil(picture), len(cells)), text) for picture, text in cells]
        contact_sheet(*zip(*shown, strict=True)).save(options.sheet)
    if options.alone:
        return
    editor.close()
    drawer = sfumato.load("embedded")
    for strength in STRENGTHS:

        def again(number, pair, strength=strength):
            before = pil(pairs.picture(pair.source))
            text = pairs.caption(pair.target)
            image = drawer.generate(text, image=before, strength=strength, seed=number, steps=options.steps)
            return tensor(image)

        found, _, _ = measured(pairs, again, f"img2img, strength {strength:g}")
        if found["all"] >= share["all"]:
            break


if __name__ == "__main__":
    main()
