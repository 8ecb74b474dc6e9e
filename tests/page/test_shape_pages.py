"""Shapes in a browser: the page of one file, and what a notebook is given."""

import io
import re

import numpy as np
import PIL.Image
import pytest
from playwright.sync_api import expect

from sfumato.space.mesh import Mesh, surface
from sfumato.space.shape import Shape

SIDE = 24


@pytest.fixture(scope="module")
def shape():
    """A ball whose right is red, its left green, its front bluer than its back."""
    z, y, x = (np.mgrid[:SIDE, :SIDE, :SIDE] + 0.5) / SIDE * 2 - 1
    ball = surface(0.7 - np.sqrt(x * x + y * y + z * z), level=0.0)

    def colours(points, normals):
        red = points[:, 0] > 0
        return np.stack([red, ~red, points[:, 2] > 0], axis=1).astype(np.float32)

    return Shape(ball.unwrapped().baked(colours, 256))


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 300, "height": 300}, reduced_motion="reduce")
    context.set_offline(True)
    found = context.new_page()
    found.wrong = []
    found.on("pageerror", lambda error: found.wrong.append(str(error)))
    found.on("console", lambda message: found.wrong.append(message.text) if message.type == "error" else None)
    yield found
    assert found.wrong == []
    context.close()


def seen(page):
    """The picture on the page (H, W, 3), without the ring around what has the focus."""
    return inner(PIL.Image.open(io.BytesIO(page.screenshot())).convert("RGB"))


def inner(picture):
    return np.asarray(picture).astype(int)[4:-4, 4:-4]


def test_a_page_shows_what_a_picture_from_there_shows(page, shape, tmp_path):
    page.goto(shape.save(tmp_path / "ball.html").as_uri())
    canvas = page.get_by_role("img", name="A shape that can be turned")
    expect(canvas).to_have_attribute("data-azimuth", "0.0")
    assert page.title() == "ball"
    assert np.abs(seen(page) - inner(shape.render(0, size=300))).mean() < 2


def test_a_shape_is_turned_by_dragging_and_keys_and_zoomed_by_the_wheel(page, shape, tmp_path):
    page.goto(shape.save(tmp_path / "ball.html").as_uri())
    canvas = page.locator("canvas")
    expect(canvas).to_have_attribute("data-azimuth", "0.0")
    page.mouse.move(150, 150)
    page.mouse.down()
    page.mouse.move(90, 170, steps=4)
    page.mouse.up()
    expect(canvas).to_have_attribute("data-azimuth", "30.0")
    expect(canvas).to_have_attribute("data-elevation", "25.0")
    canvas.focus()
    for _ in range(15):
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    expect(canvas).to_have_attribute("data-azimuth", "180.0")
    expect(canvas).to_have_attribute("data-elevation", "15.0")
    assert np.abs(seen(page) - inner(shape.render(180, size=300))).mean() < 2
    before = (seen(page) < 250).any(2).sum()
    page.mouse.wheel(0, -400)
    expect(canvas).to_have_attribute("data-distance", "2.82")
    assert (seen(page) < 250).any(2).sum() > 1.5 * before


def test_a_notebook_shows_it_and_it_turns_by_itself(browser, shape):
    context = browser.new_context(viewport={"width": 300, "height": 340})
    context.set_offline(True)
    found = context.new_page()
    found.set_content(shape._repr_html_())
    canvas = found.frame_locator("iframe").locator("canvas")
    expect(canvas).to_have_attribute("data-azimuth", re.compile(r"[1-9]\d\."))
    canvas.dblclick()
    stopped = canvas.get_attribute("data-azimuth")
    found.wait_for_timeout(300)
    assert abs(float(canvas.get_attribute("data-azimuth")) - float(stopped)) < 3
    context.close()


def test_a_mesh_without_a_texture_has_the_colours_of_its_vertices(page, tmp_path):
    corners = np.array([[-1, -1, 0], [1, -1, 0], [0, 1, 0]], np.float32)
    colours = np.full((3, 3), (200, 40, 90), np.uint8)
    open_one = Shape(Mesh(corners, np.array([[0, 1, 2]]), colours=colours))
    page.goto(open_one.save(tmp_path / "open.html").as_uri())
    expect(page.locator("canvas")).to_have_attribute("data-azimuth", "0.0")
    assert np.abs(seen(page) - inner(open_one.render(0, size=300))).mean() < 3
