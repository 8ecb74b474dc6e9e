"""Packages of the npm registry, fetched by name once and read from their archives ever after."""

import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sfumato.errors import DataError, UsageError, unreachable
from sfumato.files import make_folder, open_file


def fetch(package: str, folder: Path) -> Path:
    """The archive of `package` in `folder`, downloaded with `npm pack` unless one is there.

    npm checks what it downloads. Raises `UsageError` without npm, `DataError` where it fails.
    """
    if there := archive(package, folder):
        return there
    npm = shutil.which("npm")
    if npm is None:
        raise UsageError("npm is needed to fetch the icon sets: install Node.js, or bring a finished pack")
    make_folder(folder)
    command = [npm, "pack", package, "--silent", "--pack-destination", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    there = archive(package, folder)
    if done.returncode or there is None:
        reason = " ".join((done.stderr or done.stdout).split())[-300:]
        reason = reason or f"exit status {done.returncode}"
        raise unreachable(DataError(f"npm could not fetch {package}: {reason}"))
    return there


def archive(package: str, folder: Path) -> Path | None:
    """The newest archive of `package` in `folder`."""
    stem = package.removeprefix("@").replace("/", "-")
    found = [path for path in folder.glob(f"{stem}-*.tgz") if path.name[len(stem) + 1 :][:1].isdigit()]
    return max(found, key=lambda path: (path.stat().st_mtime, path.name), default=None)


@contextmanager
def opened(path: Path) -> Iterator[tarfile.TarFile]:
    """A package's archive to read from. Raises `DataError` where it is damaged."""
    try:
        with open_file(path) as file, tarfile.open(path, "r:gz", file) as tar:
            yield tar
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{path} is no readable package: {error}") from error


def member(tar: tarfile.TarFile, name: str) -> bytes:
    """The content of the file `name` of a package. Raises `DataError`."""
    try:
        file = tar.extractfile(f"package/{name}")
    except KeyError:
        file = None
    if file is None:
        raise DataError(f"{_called(tar)} has no file {name!r}")
    return file.read()


def member_json(tar: tarfile.TarFile, name: str) -> Any:
    """The JSON file `name` of a package. Raises `DataError`."""
    try:
        return json.loads(member(tar, name))
    except ValueError as error:
        raise DataError(f"{_called(tar)}: {name} is not valid JSON: {error}") from error


def _called(tar: tarfile.TarFile) -> str:
    return Path(str(tar.name)).name
