"""How often a clip moves as its prompt says: the motion read from the moments of its shape, frame by frame.

    sfumato data icons data/icons
    python benchmarks/motion.py data/icons --objects 200

Prompts are captions of concepts that no training saw, each with every motion of `sfumato.edit.motion`, or
with one in turn (`--each 1`). The icons themselves, moved by the same transforms, say what the measure
allows. The change from frame to frame is the mean over pixels, in levels of 255; that between the pictures of
other seeds stands beside it, as of frames that have nothing to do with each other.
"""

import argparse
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import torch
from measuring import machine

import sfumato
from sfumato.contact_sheet import contact_sheet, shrunk
from sfumato.data.captions import article
from sfumato.data.icons import load, to_signal
from sfumato.data.sets import SETS
from sfumato.edit.motion import MOTIONS, moved
from sfumato.evaluate.motion import motion_of

FRAMES = 16


def signal(video):
    """The frames of a clip (F, 3, H, W) in [−1, 1]."""
    pixels = np.stack([frame.pixels for frame in video.frames])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1


def change(frames):
    """Between neighbours, in levels of 255."""
    return float((frames[1:] - frames[:-1]).abs().mean() * 127.5)


def main():
    """Draw, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("icons", type=Path, help="the folder that `sfumato data icons` made")
    parser.add_argument("--objects", type=int, default=200)
    parser.add_argument("--each", type=int, default=len(MOTIONS), help="motions of each object, in turn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--motion", help="a motion adapter, in place of the model's way")
    parser.add_argument("--sheets", type=Path, help="a folder for a contact sheet of every clip")
    options = parser.parse_args()
    print(machine("cpu"), flush=True)
    icons = load(options.icons, held_out=True)
    order = list(range(len(icons.rows)))
    Random(options.seed).shuffle(order)
    studio = sfumato.load(device="cpu")
    drawn, bound, asked, changes = Counter(), Counter(), Counter(), []
    if options.sheets:
        options.sheets.mkdir(parents=True, exist_ok=True)
    names = list(MOTIONS)
    for number, row in enumerate(order[: options.objects]):
        shown = icons.rows[row]
        real = to_signal(icons.pictures[row : row + 1])[0]
        for turn in range(options.each):
            motion = names[(number * options.each + turn) % len(names)]
            prompt = f"{article(shown.label)} {MOTIONS[motion][0]}, {SETS[shown.set].styles[0]}"
            video = studio.animate(
                prompt, frames=FRAMES, seed=options.seed + number, loop=True, fast=True, motion=options.motion
            )
            frames = signal(video)
            found, known = motion_of(frames), motion_of(moved(real, motion, FRAMES, Random(number)))
            asked[motion] += 1
            drawn[motion] += found == motion
            bound[motion] += known == motion
            changes.append(change(frames))
            print(f"{prompt!r}: {found}{'' if found == motion else f' for {motion}'}", flush=True)
            if options.sheets:
                pictures = [shrunk(frame.pil, FRAMES) for frame in video.frames]
                contact_sheet(pictures).save(options.sheets / f"{number:03}-{motion}.png")
    total = sum(asked.values())
    for motion in names:
        if asked[motion]:
            print(f"{motion}: {drawn[motion]} of {asked[motion]}, moved icons {bound[motion]}")
    still = {"prompt": "a red apple, 3d render", "fast": True}
    others = torch.stack(
        [
            torch.from_numpy(studio.generate(seed=seed, **still).pixels).permute(2, 0, 1) / 127.5 - 1
            for seed in range(4)
        ]
    )
    print(
        f"recovered {sum(drawn.values()) / total:.0%} of {total} clips, of moved icons "
        f"{sum(bound.values()) / total:.0%}; from frame to frame {np.mean(changes):.1f} of 255, "
        f"from seed to seed {change(others):.1f}"
    )


if __name__ == "__main__":
    main()
