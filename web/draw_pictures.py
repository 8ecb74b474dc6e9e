"""Draw the pictures of the page with the embedded model: examples, and a tile for each style."""

import re
from pathlib import Path

import PIL.Image

import sfumato
from sfumato.prompt.styles import load_styles

SOURCES = Path(__file__).parent / "src"
SEED = 7
STYLED = "a cat"


def main() -> None:
    """Write small WebP files below `src/pictures`."""
    studio = sfumato.load()
    examples = (SOURCES / "views" / "draw" / "examples.ts").read_text("utf-8")
    for file, prompt in re.findall(r'file: "(\w+)", prompt: "([^"]+)"', examples):
        _save(studio.generate(prompt, seed=SEED).pil, "examples", file, 256)
    for name, style in load_styles().items():
        if style.models == ("embedded",):
            _save(studio.generate(STYLED, style=name, seed=SEED).pil, "styles", name, 128)


def _save(picture: PIL.Image.Image, folder: str, name: str, side: int) -> None:
    path = SOURCES / "pictures" / folder / f"{name}.webp"
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.convert("RGB").resize((side, side), PIL.Image.Resampling.LANCZOS).save(path, quality=85)


main()
