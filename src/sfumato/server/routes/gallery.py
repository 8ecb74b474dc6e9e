"""A plain page with the pictures that were drawn."""

from html import escape
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from sfumato.server.context import Owner, Shared
from sfumato.server.jobs import PictureView

router = APIRouter(include_in_schema=False)

PAGE = 60
POLICY = "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'"
_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Sfumato</title><style>
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem }
ul { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)) }
ul { list-style: none; padding: 0 }
img { aspect-ratio: 1; border-radius: 4px; object-fit: contain; width: 100%; background: #8882 }
figure { margin: 0 } figcaption { font-size: .8rem; overflow-wrap: anywhere }
input { font: inherit; padding: .3rem .5rem; width: min(30rem, 100%) }
</style></head><body><h1>Gallery</h1>
"""


@router.get("/", response_class=HTMLResponse)
def show(
    server: Shared,
    owner: Owner,
    search: Annotated[str, Query(max_length=1000)] = "",
    before: Annotated[str | None, Query(max_length=32)] = None,
) -> HTMLResponse:
    """The newest pictures, or those whose prompts hold the words of `search`."""
    pictures = server.store.search(search, owner=owner, before=before, limit=PAGE)
    form = f'<form><input type="search" name="search" aria-label="Search" value="{escape(search)}"></form>'
    items = "".join(map(_item, pictures)) or "<li>Nothing was drawn yet.</li>"
    more = ""
    if len(pictures) == PAGE:
        query = escape(urlencode({"search": search, "before": pictures[-1].id}))
        more = f'<p><a href="/?{query}">Older</a></p>'
    body = f"{_HEAD}{form}<ul>{items}</ul>{more}</body></html>"
    return HTMLResponse(body, headers={"content-security-policy": POLICY})


def _item(picture: PictureView) -> str:
    path, prompt = f"/api/v1/pictures/{picture.id}", escape(picture.prompt)
    picked = f'<img loading="lazy" src="{path}/thumbnail" alt="{prompt}">'
    return f'<li><figure><a href="{path}/file">{picked}</a><figcaption>{prompt}</figcaption></figure></li>'
