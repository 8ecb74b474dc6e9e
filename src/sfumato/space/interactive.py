"""A shape as a web page of one file, in which it can be turned: `interactive.html` and a binary glTF."""

import base64
from html import escape
from importlib import resources

HEIGHT = 320
"""Pixels of a page in a notebook."""


def page(glb: bytes, title: str, *, closed: bool) -> str:
    """The page for a binary glTF of one mesh. It needs WebGL 2 and no network.

    `closed`: the mesh has an inside, so that its backs are never seen.
    """
    html = resources.files("sfumato").joinpath("space", "interactive.html").read_text("utf-8")
    html = html.replace("__TITLE__", escape(title)).replace("__CLOSED__", str(int(closed)))
    return html.replace("__GLB__", base64.b64encode(glb).decode("ascii"))


def frame(html: str) -> str:
    """The element that shows a page within another, as in a notebook, kept apart from it."""
    return (
        f'<iframe srcdoc="{escape(html)}" sandbox="allow-scripts" title="a shape that can be turned" '
        f'style="width: 100%; height: {HEIGHT}px; border: 0"></iframe>'
    )
