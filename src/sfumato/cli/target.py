"""Where pictures go: a file, a folder, a pattern or stdout. Known to be writable before anything is drawn."""

import os
import re
import secrets
import sys
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from sfumato.errors import OutputError, UsageError, nearest
from sfumato.files import output_error
from sfumato.formats import picture_format

PLACEHOLDERS = ("n", "prompt", "seed")
DEFAULT_NAME = "{prompt}-{seed}.png"


@dataclass
class Target:
    """Names for the pictures of one run: `name` with its placeholders filled in, inside `folder`."""

    folder: Path
    name: str
    total: int
    overwrite: bool
    _given: set[Path] = field(default_factory=set)

    def path(self, number: int, prompt: str, seed: int) -> Path:
        """Where picture `number` (from 1) goes; never a path of this run again, nor a file not meant."""
        values = {"n": f"{number:0{len(str(self.total))}}", "prompt": slug(prompt), "seed": str(seed)}
        wanted = self.folder / _PLACEHOLDER.sub(lambda match: values[match[1]], self.name)
        path, attempt = wanted, 2
        while path in self._given or (not self.overwrite and path.exists()):
            path = wanted.with_stem(f"{wanted.stem}-{attempt}")
            attempt += 1
        self._given.add(path)
        return path


_PLACEHOLDER = re.compile(r"\{(\w*)\}")


def plan(output: str | None, total: int) -> Target | None:
    """The target that `-o OUTPUT` names for `total` pictures; `None` stands for stdout.

    Raises `UsageError` for a name that cannot be meant, `OutputError` for a place that cannot be written.
    """
    if output == "-":
        if total > 1:
            raise UsageError(f"-o - writes one picture to standard output, not {total}")
        if sys.stdout.isatty():
            raise UsageError("-o - would write a picture to the terminal; redirect it to a file or a program")
        return None
    target = _target(output, total)
    check_writable(target.folder)
    if not {"seed", "prompt"} & set(_PLACEHOLDER.findall(target.name)):
        for number in range(1, total + 1):
            path = Target(target.folder, target.name, total, True).path(number, "", 0)
            if _is_folder(path):
                raise OutputError(f"cannot write {path}: it is a folder")
    return target


def _target(output: str | None, total: int) -> Target:
    if output is None:
        return Target(Path(), DEFAULT_NAME, total, overwrite=False)
    path = Path(output)
    if output.endswith(("/", os.sep)):
        make_folder(path)
    if _is_folder(path):
        return Target(path, DEFAULT_NAME, total, overwrite=False)
    picture_format(path)
    placeholders = _PLACEHOLDER.findall(path.name)
    for name in placeholders:
        if name not in PLACEHOLDERS:
            raise UsageError(f"unknown placeholder {{{name}}} in {output!r}; {nearest(name, PLACEHOLDERS)}")
    name = path.name
    if total > 1 and not placeholders:
        name = f"{path.stem}-{{n}}{path.suffix}"
    return Target(path.parent, name, total, overwrite=True)


def make_folder(folder: Path) -> None:
    """Make `folder` if it is missing, but not its parents, and check that it can be written in."""
    try:
        folder.mkdir(exist_ok=True)
    except FileExistsError:
        raise OutputError(f"cannot write in {str(folder)!r}: it is not a folder") from None
    except OSError as error:
        raise output_error(folder, error) from None
    check_writable(folder)


def check_writable(folder: Path) -> None:
    """Raise the `OutputError` that writing a file in `folder` would end with."""
    probe = folder / f".sfumato-{secrets.token_hex(6)}.tmp"
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        probe.unlink()
    except FileNotFoundError:
        wrong = "it takes no files" if folder.is_dir() else "there is no such folder"
        raise OutputError(f"cannot write in {str(folder)!r}: {wrong}") from None
    except OSError as error:
        raise OutputError(
            str(output_error(folder, error)).replace("cannot write", "cannot write in", 1)
        ) from None


def slug(prompt: str, limit: int = 80) -> str:
    """A prompt as part of a file name: letters and digits of any script, at most `limit` bytes."""
    words = re.findall(r"\w+", unicodedata.normalize("NFC", prompt).lower().replace("_", " "))
    kept = "-".join(words).encode()[:limit].decode("utf-8", "ignore").rstrip("-")
    return kept or "picture"


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:
        raise output_error(path, error) from None
