"""Files of the pictures that requests begin from, and where a request, as JSON, has them."""

import base64
from collections.abc import Callable
from typing import Any

from sfumato.server.store.content_files import ContentFiles

DEPTH = 7
"""How deep pictures can be: among those of a control of the request in the facts of a group."""


class InputFiles(ContentFiles):
    """Files as clients sent them, of whatever format."""

    def read(self, digest: str) -> bytes | None:
        """The bytes of a file, if it is there."""
        try:
            return self.path(digest).read_bytes()
        except OSError:
            return None


def filled_in(request: Any, content: Callable[[str], bytes | None]) -> Any:
    """`request` with the bytes of its pictures that it only names, as far as `content` has them by their
    hashes.
    """
    return _mapped(
        request, lambda each: each if each.get("data") else {**each, "data": content(each["sha256"])}
    )


def taken_out(request: Any) -> tuple[Any, list[bytes]]:
    """`request` without the bytes of its pictures, and these, from base64."""
    contents = []

    def bare(picture: dict[str, Any]) -> dict[str, Any]:
        if picture.get("data"):
            contents.append(base64.urlsafe_b64decode(picture["data"]))
        return {**picture, "data": None}

    return _mapped(request, bare), contents


def _mapped(value: Any, change: Callable[[dict[str, Any]], dict[str, Any]], depth: int = DEPTH) -> Any:
    """`value` with its pictures changed: dictionaries with a name, a hash and perhaps bytes."""
    if not depth:
        return value
    if isinstance(value, dict):
        if isinstance(value.get("sha256"), str):
            return change(value)
        return {name: _mapped(each, change, depth - 1) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_mapped(each, change, depth - 1) for each in value]
    return value
