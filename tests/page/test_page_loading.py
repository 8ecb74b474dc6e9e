"""The page while it loads: how much a browser fetches, and that nothing moves that is shown."""

import gzip
import re

import pytest

MOST_SCRIPT = 250_000
"""Bytes of all scripts that the page begins with, compressed."""
SHIFTS = """async () => {
    const found = [];
    const observer = new PerformanceObserver((list) => found.push(...list.getEntries()));
    observer.observe({ type: "layout-shift", buffered: true });
    await new Promise((resolve) => setTimeout(resolve, 500));
    return found.map(({ value, sources }) => [value, sources.map(({ node }) => node?.outerHTML ?? "")]);
}"""
"""How much of the window moved, and what did."""


@pytest.mark.quick
def test_the_script_is_small(shared_server):
    page = shared_server.http.get("/").text
    scripts = re.findall(r'(?:src|href)="(/[^"]+\.js)"', page)
    assert scripts
    size = sum(len(gzip.compress(shared_server.http.get(each).content)) for each in scripts)
    assert 10_000 < size < MOST_SCRIPT


@pytest.mark.quick
@pytest.mark.parametrize("width", [360, 1440])
@pytest.mark.parametrize(
    ("place", "shows"),
    [
        ("", "figure img"),
        ("gallery", "[role=gridcell] img"),
        ("edit/{apple}", ".picture img"),
        ("scene", "[role=application]"),
    ],
    ids=["draw", "gallery", "edit", "scene"],
)
def test_nothing_moves_when_more_of_the_page_comes(server, apple, open_page, place, shows, width):
    address = f"{server.url}/{place.format(apple=apple)}"
    page = open_page(address, viewport={"width": width, "height": 800})
    page.locator(shows).first.wait_for()
    shifts = page.evaluate(SHIFTS)
    assert sum(value for value, _ in shifts) < 0.005, shifts
