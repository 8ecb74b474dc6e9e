import json
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from sfumato.data.captions import TINTS
from sfumato.data.icons import Row

SIZE = 32
HELD, SHOWN = 12, 14


def square(colour, place, size=SIZE):
    """A square in a colour, a little larger for every `place`; uint8 (size, size, 3)."""
    pixels = np.full((size, size, 3), 255, np.uint8)
    end = size // 4 + 4 + place % 8
    pixels[size // 4 : end, size // 4 : end] = colour
    return pixels


@pytest.fixture(scope="session")
def icon_data(tmp_path_factory):
    """Squares as `sfumato data icons` leaves them: in colour and of one, some held out."""
    folder = tmp_path_factory.mktemp("icons")
    colours = list(TINTS.items())
    rows, pixels, ink_rows, inks = [], [], [], []
    for place in range(HELD + SHOWN):
        name, colour = colours[place % 9]
        held = place < HELD
        label = f"thing {place // 2}" if held else f"{name} square"
        rows.append(Row(("noto", "twemoji")[place % 2], label, (), 1.0, held))
        pixels.append(square(colour, place))
        ink_rows.append(Row("mdi", f"shape {place}", (), 1.0, place % 4 == 0))
        inks.append(255 - square((0, 0, 0), place)[..., 0])
    for number, (own, stored) in enumerate(((rows, pixels), (ink_rows, inks))):
        np.save(folder / f"part-0{number}.npy", np.stack(stored))
        lines = [json.dumps(asdict(row)) for row in own]
        (folder / f"part-0{number}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def own_data(tmp_path_factory):
    """Oblong pictures with captions beside them, some in a folder `test`."""
    folder = tmp_path_factory.mktemp("own")
    for place in range(24):
        kind = "test" if place < 12 else "train"
        (folder / kind).mkdir(exist_ok=True)
        wide = np.concatenate([square(list(TINTS.values())[place % 9], place, 48)] * 2, axis=1)
        Image.fromarray(wide).save(folder / kind / f"{place:02}.png")
        (folder / kind / f"{place:02}.txt").write_text(f"picture number {place}")
    return folder
