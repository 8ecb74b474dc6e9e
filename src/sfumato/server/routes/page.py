"""The page where a person draws: files that `make page` builds from `web/`."""

from pathlib import Path

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse, Response

FOLDER = Path(__file__).parents[1] / "page"
ASSETS = {path.name: path for path in (FOLDER / "assets").iterdir()}
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".webp": "image/webp"}
FOREVER = {"cache-control": "public, max-age=31536000, immutable"}
"""For files with their content's hash in their name."""
CHECKED = {"cache-control": "no-cache"}

router = APIRouter(include_in_schema=False)


@router.get("/")
@router.get("/gallery")
@router.get("/teach")
@router.get("/edit/{picture}")
@router.get("/scene")
@router.get("/scene/{picture}")
@router.get("/grid/{grid}")
def show() -> Response:
    """The page; its script reads the rest of the address."""
    return FileResponse(FOLDER / "index.html", media_type="text/html", headers=CHECKED)


@router.get("/favicon.svg")
def show_icon() -> Response:
    """The page's icon."""
    return FileResponse(FOLDER / "favicon.svg", media_type="image/svg+xml", headers=CHECKED)


@router.get("/assets/{name}")
def get_asset(name: str) -> Response:
    """A script, a style sheet or a picture of the page."""
    path = ASSETS.get(name)
    if path is None:
        raise HTTPException(404, f"the page has no file {name!r}")
    return FileResponse(path, media_type=TYPES[path.suffix], headers=FOREVER)
