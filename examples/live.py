"""Live drawing: a picture that follows what you type, frame after frame, each in a few steps.

    python examples/live.py
    python examples/live.py "a red apple, 3d render" "a lemon, 3d render"
    python examples/live.py "grinning cat, noto style" --steps 1 --frames frames/

The given prompts are drawn one after another; a typed prompt takes over with the next frame. Ctrl-D or Ctrl-C
ends it. The terminal must support 24-bit colour; otherwise write the frames to a folder.
"""

import argparse
import queue
import shutil
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import PIL.Image

import sfumato


def listen(typed):
    """Put every line that is typed into the queue `typed`, and `None` at the end."""
    with open(0, closefd=False, errors="replace") as lines:
        for line in filter(str.strip, lines):
            typed.put(line.strip())
    typed.put(None)


def glided(mix, goal, share):
    """The blend weights of the prompts, 1 in all, moved by `share` from the others to `goal`."""
    others = {prompt: weight for prompt, weight in mix.items() if prompt != goal}
    total = sum(others.values())
    left = total - share
    if left < 1e-6:
        return {goal: 1.0}
    return {goal: 1 - left, **{prompt: weight * left / total for prompt, weight in others.items()}}


def frame(studio, mix, typed, fields):
    """One picture of a blend of prompts, or `None` if something is typed meanwhile."""
    texts = ", ".join('"{}"'.format(prompt.replace('"', r"\"")) for prompt in mix)
    weights = ", ".join(f"{weight:.4f}" for weight in mix.values())
    with closing(studio.stream(f"({texts}).blend({weights})", dialect="compel", **fields)) as steps:
        return next((step.image for step in steps if step.image or not typed.empty()), None)


def show(image, caption):
    """A picture at the top of the terminal, two pixels to a character, over a caption and a line to type in.

    Without a caption, what stands below the picture stays there.
    """
    columns, lines = shutil.get_terminal_size()
    scale = min(columns / image.size[0], 2 * (lines - 2) / image.size[1])
    width, rows = max(1, int(image.size[0] * scale)), max(1, int(image.size[1] * scale / 2))
    pixels = image.pil.resize((width, 2 * rows), PIL.Image.Resampling.BOX).load()
    text = "\x1b[H"
    for row in range(rows):
        for column in range(width):
            above, below = pixels[column, 2 * row], pixels[column, 2 * row + 1]
            text += "\x1b[38;2;{};{};{};48;2;{};{};{}m▀".format(*above, *below)
        text += "\x1b[0m\x1b[K\n"
    text = f"{text}\x1b[J{caption[:columns]}\n" if caption else f"\x1b7{text}\x1b8"
    print(text, end="", flush=True)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("prompts", nargs="*")
parser.add_argument("--model", default="embedded")
parser.add_argument("--steps", type=int, default=2, help="for a frame, 1 to 8")
parser.add_argument("--glide", type=int, default=8, help="frames from one prompt to the next; 1 jumps")
parser.add_argument("--frames", type=Path, metavar="FOLDER", help="write frames here, and show none")
options = parser.parse_args()

try:
    if options.frames:
        options.frames.mkdir(parents=True, exist_ok=True)
    studio = sfumato.load(options.model)
    fields = {"fast": True, "steps": options.steps, "seed": 7, "decoder": studio.decoders.quickest}
    studio.generate("", **fields)  # the first takes longest
except (sfumato.SfumatoError, OSError) as error:
    sys.exit(f"error: {error}")

if not options.frames:
    print("\x1b[2J\x1b[HType what to draw.\n", end="", flush=True)
typed = queue.SimpleQueue()
threading.Thread(target=listen, args=(typed,), daemon=True).start()
ahead, goal, mix, arrived, caption = list(options.prompts), None, {}, True, None
count, seconds = 0, 0.0
try:
    while True:
        while not typed.empty() or (arrived and not ahead):  # a picture that stands still is not drawn again
            line = typed.get()
            if line is None:
                ahead.append(None)
            else:
                ahead, arrived = [line], True
        if arrived:
            goal = caption = ahead.pop(0)
            arrived = False
        if goal is None:
            break
        start = time.perf_counter()
        try:
            towards = glided(mix, goal, 1 / max(options.glide, 1))
            image = frame(studio, towards, typed, fields)
        except sfumato.SfumatoError as error:
            print(f"{goal}: {error}", file=sys.stderr)
            arrived = True
            continue
        if image is not None:
            mix, count, arrived = towards, count + 1, len(towards) == 1
            if options.frames:
                image.save(options.frames / f"{count:04}.png")
            else:
                show(image, caption)
                caption = None
        seconds += time.perf_counter() - start
except KeyboardInterrupt:
    pass
if count:
    print(f"frames: {count}, {count / seconds:.1f} a second", file=sys.stderr)
