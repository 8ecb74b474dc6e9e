"""From npm packages to one small folder that travels: drawings, words, licences, in parts of a few megabytes.

pack.json            the sets with their versions and counts, and the names of the parts
part-NN.jsonl.xz     drawings, one a line
texts.txt.xz         words and glosses, for the text encoder
ATTRIBUTION.md       who drew what, under which licence
"""

import base64
import hashlib
import io
import json
import lzma
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tarfile import TarFile
from typing import Any

from PIL import Image

from sfumato.data import npm
from sfumato.data.sets import EMOJI_WORDS, ENGLISH, FLUENT_3D, SETS, IconSet
from sfumato.errors import DataError
from sfumato.files import make_folder, read_json, regular, replace_atomically, write_json

FOLDER = "pack"
"""The folder in the icon set's own that holds the pack it was rendered from."""
INDEX, TEXTS = "pack.json", "texts.txt.xz"
PART_BYTES = 12 << 20
"""Of drawings in one part, before compression."""
MOST_DRAWING_BYTES = 120_000
SIZE = 256
"""Pixels along each side of the drawings that are pictures already."""

VARIANT_SHARE = 0.35
"""Emoji of people come in six skin tones: each is shown less often."""
_TONE = re.compile(r"((medium[ -])?(light|medium|dark)[ -])?skin[ -]tone")
_LOGO = re.compile(r"(^|-)(logo|brand)(-|$)|abstract-\d")
_TWIN = re.compile(r"(^|-)(plus|minus|off|cancel|remove|edit|share)$")
_VARIANT = re.compile(r"-(\d+|alt|outline|outlined|filled|fill|color|bold|duotone)\b")
_MOST_TAGS = 8
_MOST_TEXT = 120


@dataclass(frozen=True)
class Drawing:
    """One icon, as vectors or as a picture, with what is known of it."""

    set: str
    label: str
    tags: tuple[str, ...]
    share: float
    """How often it is shown, relative to the others of its set."""
    box: tuple[float, float, float, float] = (0, 0, 0, 0)
    """Left, top, width and height of what an SVG shows."""
    svg: str = ""
    """The inside of an SVG."""
    webp: str = ""
    """Or a picture, as base64."""

    @property
    def concept(self) -> str:
        """What it shows, whatever the style and the skin tone."""
        return " ".join(_TONE.sub("", self.label).replace(":", " ").replace(",", " ").split())

    @property
    def held_out(self) -> bool:
        """Whether its concept is kept for tests, in every style: one in forty."""
        digest = hashlib.sha256(self.concept.encode("utf-8")).digest()
        return int.from_bytes(digest[:4], "big") % 40 == 0


Words = dict[str, tuple[str, tuple[str, ...]]]
"""Label and tags of Unicode's emoji, by the slug of their name and by their code points."""


def build(folder: Path, archives: Path, progress: Callable[[str], None] = lambda _: None) -> None:
    """Fetch every set into `archives` where it is not there yet, and write the pack to `folder`.

    `progress(message)` is called before each step. Raises `DataError` where a package is not what it was, and
    above all where its licence has changed.
    """
    progress("fetching the names of emoji")
    words = emoji_words(npm.fetch(EMOJI_WORDS, archives))
    make_folder(folder)
    parts: list[str] = []
    sources, texts = [], set[str]()
    for icons in SETS.values():
        progress(f"fetching {icons.name}")
        path = npm.fetch(icons.package, archives)
        with npm.opened(path) as tar:
            version = npm.member_json(tar, "package.json")["version"]
            drawings = list(_read(icons, tar, words))
        if not drawings:
            raise DataError(f"{path} holds no drawings")
        for drawing in drawings:
            texts |= {drawing.label, *drawing.tags}
        sources.append({"set": icons.name, "version": version, "drawings": len(drawings)})
        progress(f"packing {len(drawings):,} drawings of {icons.name}")
        for lines in _parts(drawings):
            parts.append(f"part-{len(parts):02}.jsonl.xz")
            _write_xz(folder / parts[-1], lines)
    progress("packing words")
    with npm.opened(npm.fetch(ENGLISH, archives)) as tar:
        texts |= set(_glosses(tar))
    _write_xz(folder / TEXTS, sorted(texts))
    with replace_atomically(folder / "ATTRIBUTION.md") as file:
        file.write(attribution().encode("utf-8"))
    write_json(folder / INDEX, {"sources": sources, "parts": parts, "texts": len(texts)})


def parts(folder: Path) -> tuple[list[Path], list[str]]:
    """The parts of the pack in `folder` that are there, and the names of those that are not."""
    names = read_json(folder / INDEX).get("parts")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{folder / INDEX} names no parts")
    there = [folder / Path(name).name for name in names if (folder / Path(name).name).is_file()]
    return there, [name for name in names if not (folder / Path(name).name).is_file()]


def drawings(path: Path) -> list[Drawing]:
    """The drawings of one part. Raises `DataError`."""
    try:
        with lzma.open(regular(path), "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        return [Drawing(**{**row, "tags": tuple(row["tags"]), "box": tuple(row["box"])}) for row in rows]
    except (lzma.LZMAError, EOFError, ValueError, KeyError, TypeError, OSError) as error:
        raise DataError(f"{path} is no readable part of a pack: {error}") from error


def words(folder: Path) -> list[str]:
    """Labels, tags, English words and what they mean, of the pack in `folder`. Raises `DataError`."""
    try:
        with lzma.open(regular(folder / TEXTS), "rt", encoding="utf-8") as file:
            return file.read().splitlines()
    except (lzma.LZMAError, EOFError, ValueError, OSError) as error:
        raise DataError(f"{folder / TEXTS} cannot be read: {error}") from error


def attribution() -> str:
    """Who drew the sets and under which licences, as Markdown."""
    rows = "\n".join(
        f"| {icons.name} | `{icons.package}` | {icons.author} | {icons.licence} |" for icons in SETS.values()
    )
    return f"""# Where the pictures and words come from

| set | npm package | by | licence |
|---|---|---|---|
{rows}

Labels and tags of emoji: `{EMOJI_WORDS}`, Miles Johnson, MIT. Words and glosses: `{ENGLISH}`,
WordNet 3.1, Princeton University, WordNet licence.

Changes, as the CC-BY licences ask to say: rendered on white, one-colour drawings tinted.
"""


def emoji_words(path: Path) -> Words:
    """Labels and tags from the archive of `emojibase-data`."""
    words: Words = {}
    with npm.opened(path) as tar:
        table = npm.member_json(tar, "en/data.json")
    for emoji in table:
        tags = tuple(tag.lower() for tag in emoji.get("tags", ()))[:_MOST_TAGS]
        for one in (emoji, *emoji.get("skins", ())):
            known = one["label"].lower(), tags
            words[re.sub(r"[^a-z0-9]+", "-", known[0]).strip("-")] = known
            words[one["hexcode"].lower()] = known
    return words


def _read(icons: IconSet, tar: TarFile, words: Words) -> Iterator[Drawing]:
    if icons.name == FLUENT_3D:
        yield from _renders(icons, tar, words)
        return
    licence = npm.member_json(tar, "info.json").get("license", {}).get("spdx")
    if licence not in (icons.licence, f"{icons.licence}-only"):
        raise DataError(f"{icons.package} is under {licence} now, not {icons.licence}: leave it out")
    yield from iconify(icons, npm.member_json(tar, "icons.json"), words)


def iconify(icons: IconSet, table: dict[str, Any], words: Words) -> Iterator[Drawing]:
    """The drawings of a set from the `icons.json` of its Iconify package, without logos and near twins."""
    seen = set[str]()
    size = table.get("width", 16), table.get("height", 16)
    for name, icon in table["icons"].items():
        if icon.get("hidden") or len(icon["body"]) > MOST_DRAWING_BYTES or _LOGO.search(name):
            continue
        base = " ".join(_VARIANT.sub("", name).replace("-", " ").split())
        if icons.tinted and (_TWIN.search(name) or base in seen or len(name) < 3):
            continue
        seen.add(base)
        # some sets leave "skin tone" out of their names
        label, tags = words.get(name) or words.get(f"{name}-skin-tone") or (base, ())
        yield Drawing(
            set=icons.name,
            label=f"flag {label}" if icons.name == "circle-flags" else label,
            tags=tags,
            share=VARIANT_SHARE if _TONE.search(name) or _TONE.search(label) else 1.0,
            box=(
                icon.get("left", 0),
                icon.get("top", 0),
                icon.get("width", size[0]),
                icon.get("height", size[1]),
            ),
            svg=icon["body"],
        )


def _renders(icons: IconSet, tar: TarFile, words: Words) -> Iterator[Drawing]:
    """The 3-D renders, on white, at the size of training."""
    for name in sorted(name for name in tar.getnames() if name.endswith(".webp")):
        code = Path(name).stem
        known = words.get(code) or words.get(code.replace("-fe0f", ""))
        if known is None:
            continue
        label, tags = known
        content = io.BytesIO(npm.member(tar, name.removeprefix("package/")))
        picture = Image.open(content).convert("RGBA").resize((SIZE, SIZE), Image.Resampling.LANCZOS)
        white = Image.new("RGBA", picture.size, "white")
        white.alpha_composite(picture)
        small = io.BytesIO()
        white.convert("RGB").save(small, "WEBP", quality=80, method=6)
        share = VARIANT_SHARE if _TONE.search(label) else 1.0
        webp = base64.b64encode(small.getvalue()).decode("ascii")
        yield Drawing(icons.name, label, tags, share, webp=webp)


def _glosses(tar: TarFile) -> Iterator[str]:
    """WordNet's words, what each means, and its example sentences."""
    for part in ("noun", "verb", "adj", "adv"):
        for line in npm.member(tar, f"dict/data.{part}").decode("utf-8", "replace").splitlines():
            if line.startswith(" ") or "|" not in line:
                continue
            head, gloss = line.split("|", 1)
            columns = head.split()
            count = int(columns[3], 16)
            lemmas = [re.sub(r"\(.*\)", "", column) for column in columns[4 : 4 + 2 * count : 2]]
            lemmas = [lemma.replace("_", " ").lower() for lemma in lemmas]
            yield from lemmas
            yield f"{lemmas[0]}: {gloss.split(';')[0].strip()}"[:_MOST_TEXT]
            yield from (example[:_MOST_TEXT] for example in re.findall(r'"([^"\n]+)"', gloss))


def _parts(drawings: Iterable[Drawing]) -> Iterator[list[str]]:
    lines: list[str] = []
    size = 0
    for drawing in drawings:
        lines.append(json.dumps(asdict(drawing), separators=(",", ":"), ensure_ascii=False))
        size += len(lines[-1])
        if size > PART_BYTES:
            yield lines
            lines, size = [], 0
    if lines:
        yield lines


def _write_xz(path: Path, lines: Iterable[str]) -> None:
    content = ("\n".join(lines) + "\n").encode("utf-8")
    with replace_atomically(path) as file:
        file.write(lzma.compress(content, preset=6))
