"""The documentation as a site: every page is reached, every link leads somewhere, nothing is fetched."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import sfumato
from sfumato import Request, adapt, checkpoint, compat
from sfumato.cli.app import COMMANDS

ROOT = Path(__file__).parents[1]
LOADED = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src", "use": "href"}
"""The elements whose files a browser fetches with the page."""


@dataclass
class Page(HTMLParser):
    """What a page of the site links to, loads, shows, and can be linked to at."""

    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    images: list[dict] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self):
        super().__init__()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.anchors |= {attributes[name] for name in ("id", "name") if attributes.get(name)}
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        if tag == "img":
            self.images.append(attributes)
        if tag in LOADED and attributes.get("rel") not in ("canonical", "next", "prev"):
            self.loaded.append(attributes.get(LOADED[tag]) or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """(folder, page by path) of the site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {}
    for path in folder.rglob("*.html"):
        if path.name != "404.html":  # a server's, whose links begin at the site's root
            pages[path] = Page()
            pages[path].feed(path.read_text("utf-8"))
    return folder, pages


def target(path, link):
    """The file and the anchor that a link of the page at `path` leads to; `None` out of the site."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    return there / "index.html" if there.is_dir() else there, unquote(parts.fragment)


def test_the_site_builds_and_every_page_is_reached_from_the_first(site):
    folder, pages = site
    reached, ahead = set(), [folder / "index.html"]
    while ahead:
        path = ahead.pop()
        if path in reached:
            continue
        reached.add(path)
        found = (target(path, link) for link in pages[path].links)
        ahead += [there[0] for there in found if there and there[0] in pages]
    assert reached == pages.keys()
    sources = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in ROOT.glob("docs/**/*.md")}
    assert sources <= {path.relative_to(folder) for path in reached}


def test_every_link_of_the_site_leads_to_a_file_and_a_place_in_it(site):
    _, pages = site
    for path, page in pages.items():
        for there, anchor in filter(None, (target(path, link) for link in page.links)):
            assert there.exists(), f"{path.name} links to {there}"
            if anchor and there in pages:
                assert anchor in pages[there].anchors | {"__skip"}, f"{path.name}: {there.name}#{anchor}"


def test_a_page_is_read_without_a_network(site):
    folder, pages = site
    for path, page in pages.items():
        for there in (target(path, link) for link in page.loaded):
            assert there is not None, f"{path.name} loads from elsewhere"
            assert there[0].exists(), f"{path.name} loads {there[0]}"
    for sheet in folder.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", sheet.read_text("utf-8")), sheet
    assert (folder / "search" / "search_index.js").exists()


def test_every_picture_is_described(site):
    _, pages = site
    for path, page in pages.items():
        for image in page.images:
            assert len((image.get("alt") or "").split()) > 2, f"{path.name}: {image.get('src')}"


def test_the_reference_describes_every_public_name(site):
    folder, pages = site
    anchors = set().union(*(pages[path].anchors for path in (folder / "reference").glob("*.html")))
    public = {
        f"{module.__name__}.{name}"
        for module in (sfumato, checkpoint, adapt, compat)
        for name in module.__all__
    }
    assert public - {"sfumato.__version__"} <= anchors


def test_the_reference_shows_every_command_and_every_field_of_a_request(site):
    folder, pages = site
    anchors = pages[folder / "reference" / "command.html"].anchors
    assert {f"sfumato-{name}" for name in COMMANDS} <= anchors
    shown = (folder / "reference" / "request.html").read_text("utf-8")
    assert all(f"<code>{name}</code>" in shown for name in Request.model_fields)
