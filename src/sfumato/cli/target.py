"""Where pictures go: a file, a folder, a pattern or stdout. Known to be writable before anything is drawn."""

import os
import re
import secrets
import sys
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sfumato import files
from sfumato.errors import OutputError, UsageError, nearest
from sfumato.files import output_error
from sfumato.formats import picture_format

SPECS = {"n": r"(0?\d{1,2})?d?", "seed": r"(0?\d{1,2})?[dxX]?", "prompt": r"(\.\d{1,2})?s?"}
"""The placeholders of a name, and the format that each may have after a colon, as in {seed:010d}."""
DEFAULT_NAME = "{prompt}-{seed}.png"
_PLACEHOLDER = re.compile(r"\{(\w*)(?::([^{}]*))?\}")


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
        values: dict[str, Any] = {"n": number, "prompt": slug(prompt), "seed": seed}

        def filled(match: re.Match[str]) -> str:
            spec = match[2] or (f"0{len(str(self.total))}" if match[1] == "n" else "")
            return format(values[match[1]], spec)

        return self._free(self.folder / _PLACEHOLDER.sub(filled, self.name))

    def sheet(self, prompt: str) -> Path:
        """Where the contact sheet of the run goes: beside its pictures, and called after their `prompt`."""
        name = Path(self.name)
        words = slug(prompt) if prompt else ""
        stem = _PLACEHOLDER.sub(lambda match: words if match[1] == "prompt" else "", name.stem)
        stem = re.sub(r"([-_. ])[-_. ]+", r"\1", stem).strip("-_. ")
        return self._free(self.folder / f"{stem}{'-' if stem else ''}sheet{name.suffix}")

    def check(self, prompts: Iterable[str]) -> None:
        """Raise `OutputError` where a picture of one of `prompts` could not be written."""
        for prompt in prompts:
            path = replace(self, _given=set()).path(self.total, prompt, 2**32)
            if _is_folder(path):
                raise OutputError(f"cannot write {path}: it is a folder")

    def spare(self, prompt: str, seed: int, originals: Collection[bytes]) -> None:
        """Raise `UsageError` where a picture would replace a file with the content of one of `originals`,
        those that the pictures of this run are drawn from.
        """
        names = replace(self, _given=set())
        sizes = {len(each) for each in originals}
        for number in range(1, self.total + 1):
            path = names.path(number, prompt, seed + number - 1)
            if path.is_file() and path.stat().st_size in sizes and path.read_bytes() in originals:
                raise UsageError(
                    f"{path} is what this is drawn from, and is not replaced; give -o another name"
                )

    def _free(self, wanted: Path) -> Path:
        path, attempt = wanted, 2
        while path in self._given or (not self.overwrite and path.exists()):
            path = wanted.with_stem(f"{wanted.stem}-{attempt}")
            attempt += 1
        self._given.add(path)
        return path


def plan(output: str | None, total: int, *, clobber: bool = True) -> Target | None:
    """The target that `-o OUTPUT` names for `total` pictures; `None` stands for stdout.

    A folder that is missing is made. `clobber`: whether a file that is named may be replaced. Raises
    `UsageError` for a name that cannot be meant, `OutputError` for a place that cannot be written.
    """
    if output == "-":
        if total > 1:
            raise UsageError(f"-o - writes one picture to standard output, not {total}")
        if sys.stdout.isatty():
            raise UsageError("-o - would write a picture to the terminal; redirect it to a file or a program")
        return None
    target = _target(output, total, clobber)
    make_folder(target.folder)
    if not {"seed", "prompt"} & {match[1] for match in _PLACEHOLDER.finditer(target.name)}:
        for number in range(1, total + 1):
            path = Target(target.folder, target.name, total, True).path(number, "", 0)
            if _is_folder(path):
                raise OutputError(f"cannot write {path}: it is a folder")
    return target


def _target(output: str | None, total: int, clobber: bool) -> Target:
    if output is None:
        return Target(Path(), DEFAULT_NAME, total, overwrite=False)
    path = Path(os.path.expanduser(output))
    if output.endswith(("/", os.sep)) or _is_folder(path):
        _check_no_placeholders(path, output)
        return Target(path, DEFAULT_NAME, total, overwrite=False)
    picture_format(path)
    _check_no_placeholders(path.parent, output)
    _check_placeholders(path.name, output)
    name = path.name
    if total > 1 and not _PLACEHOLDER.search(name):
        name = f"{path.stem}-{{n}}{path.suffix}"
    return Target(path.parent, name, total, overwrite=clobber)


def _check_no_placeholders(folder: Path, output: str) -> None:
    if _PLACEHOLDER.search(str(folder)):
        raise UsageError(f"{output!r} has a placeholder in a folder's name; only the file's may have some")


def _check_placeholders(name: str, output: str) -> None:
    """Raise `UsageError` for what stands in braces and is no placeholder."""
    for match in _PLACEHOLDER.finditer(name):
        if match[1] not in SPECS:
            raise UsageError(f"unknown placeholder {match[0]} in {output!r}; {nearest(match[1], SPECS)}")
        if not re.fullmatch(SPECS[match[1]], match[2] or ""):
            raise UsageError(f"{match[0]} in {output!r}: the format must be as in {_EXAMPLES}")
    if "{" in (rest := _PLACEHOLDER.sub("", name)) or "}" in rest:
        known = ", ".join(f"{{{placeholder}}}" for placeholder in SPECS)
        raise UsageError(f"{output!r} has a brace that is no placeholder; the placeholders are {known}")


_EXAMPLES = "{n:03d}, {seed:010d} or {prompt:.40}"


def make_folder(folder: Path) -> None:
    """Make `folder`, and those above it, if they are missing, and check that it can be written in."""
    if os.path.lexists(folder) and not _is_folder(folder):
        raise OutputError(f"cannot write in {str(folder)!r}: it is not a folder")
    files.make_folder(folder)
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
