"""The gallery, as a person looks through it."""

import io
import re
from pathlib import Path

import PIL.Image
import pytest
from gallery import name_of, seed
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import expect
from running import RunningServer

SEEDED = 620
"""Pictures: more than the first two pages that are fetched."""
A1111_LINE = (
    "a red fox <lora:winter:0.7>\nNegative prompt: blurry\n"
    "Steps: 28, Sampler: Euler, CFG scale: 7, Seed: 1234, Size: 512x512, Model: dreamshaper_8"
)


@pytest.fixture(scope="module")
def seeded(tmp_path_factory):
    """A server whose store holds many pictures."""
    folder = tmp_path_factory.mktemp("gallery") / "data"
    seed(folder, SEEDED)
    found = RunningServer(folder)
    yield found
    found.stop()


@pytest.fixture
def gallery(seeded, open_page):
    """The gallery in a wide window."""
    page = open_page(f"{seeded.url}/gallery", viewport={"width": 1280, "height": 800})
    expect(page.get_by_role("gridcell").first).to_be_visible()
    return page


def search_of(page):
    return page.get_by_role("textbox", name="Search pictures")


def shown(page):
    """Names of the pictures that are there, in their order."""
    return page.locator("[role=gridcell] img").evaluate_all("all => all.map(each => each.alt)")


def number_of(page):
    """How many pictures fit the search, as it is told to those who do not see them."""
    return page.get_by_role("status").filter(has_text=" Pictures")


def test_a_long_gallery_holds_only_what_is_in_sight_and_scrolls_to_its_end(gallery):
    expect(gallery.get_by_role("img", name=name_of(SEEDED - 1))).to_be_visible()
    assert len(shown(gallery)) < 100
    for _ in range(30):
        gallery.evaluate("() => scrollTo(0, document.body.scrollHeight)")
        if gallery.get_by_role("img", name=name_of(0), exact=True).count():
            break
        gallery.wait_for_timeout(100)
    expect(gallery.get_by_role("img", name=name_of(0), exact=True)).to_be_visible()
    assert len(shown(gallery)) < 100


@pytest.mark.quick
def test_a_search_finds_words_and_what_a_picture_was_drawn_with(gallery):
    search_of(gallery).fill("apple seed:32")
    expect(number_of(gallery)).to_have_text(re.compile(r"^1 Pictures"))
    assert shown(gallery) == ["apple number 32"]
    search_of(gallery).fill("number seed:33 style:emoji-flat sampler:dpmpp-2m model:embedded")
    expect(gallery.get_by_role("img", name=name_of(33))).to_be_visible()
    search_of(gallery).fill("seed:33 sampler:euler")
    expect(gallery.get_by_role("heading", name="No picture fits this search.")).to_be_visible()
    gallery.get_by_role("button", name="Clear the search").click()
    gallery.get_by_role("button", name="Filters").click()
    gallery.get_by_role("combobox", name="Sampler").select_option("euler")
    expect(search_of(gallery)).to_have_value("sampler:euler")
    gallery.reload()
    expect(search_of(gallery)).to_have_value("sampler:euler")
    expect(gallery.get_by_role("img", name=name_of(SEEDED - 2))).to_be_visible()


def test_keys_move_mark_delete_and_bring_back(gallery):
    names = shown(gallery)
    gallery.keyboard.press("ArrowRight")
    gallery.keyboard.press("ArrowRight")
    expect(gallery.get_by_role("link", name=names[1])).to_be_focused()
    gallery.keyboard.press("f")
    expect(gallery.get_by_role("gridcell").nth(1).get_by_role("img", name="Favourite")).to_be_visible()
    gallery.keyboard.press("Delete")
    expect(gallery.get_by_role("img", name=names[1], exact=True)).to_have_count(0)
    expect(gallery.get_by_role("link", name=names[2])).to_be_focused()
    gallery.get_by_role("button", name="Undo").click()
    expect(gallery.get_by_role("img", name=names[1], exact=True)).to_be_visible()
    assert shown(gallery)[:3] == names[:3]
    gallery.get_by_role("button", name="Favourites").click()
    expect(number_of(gallery)).to_have_text(re.compile(r"^1 Pictures"))
    gallery.get_by_role("link", name=names[1]).click()
    gallery.keyboard.press("f")
    gallery.keyboard.press("Escape")
    expect(gallery.get_by_role("heading", name="No picture fits this search.")).to_be_visible()


@pytest.mark.quick
def test_two_selected_pictures_are_compared(gallery):
    names = shown(gallery)
    for name in names[:2]:
        gallery.get_by_role("button", name=f"Select {name}").click()
    gallery.get_by_role("button", name="Compare").click()
    slider = gallery.get_by_role("slider")
    expect(slider).to_have_value("50")
    gallery.keyboard.press("ArrowRight")
    expect(slider).to_have_value("55")
    expect(gallery.get_by_role("row", name=f"Prompt {names[0]} {names[1]}")).to_be_visible()
    gallery.keyboard.press("Escape")
    expect(gallery.get_by_text("2 selected", exact=True)).to_be_visible()


def test_a_picture_tells_how_it_was_drawn_is_tagged_and_drawn_again(seeded, open_page):
    seeded.wait_ready()
    job = seeded.submit(prompt="a {red|red} apple, 3d render", seed=7, steps=3, style=["emoji-flat"])
    seeded.wait(job["id"])
    page = open_page(f"{seeded.url}/gallery", permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("link", name=re.compile("a red apple")).click()
    expect(page.get_by_role("heading", name=re.compile("a red apple, 3d render"))).to_be_visible()
    expect(page.get_by_text("a {red|red} apple, 3d render")).to_be_visible()
    expect(page.locator("dl").filter(has_text="Steps")).to_contain_text("dpmpp-2m")

    page.get_by_role("combobox", name="Add a tag").fill("for mum")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Remove tag for mum")).to_be_visible()
    [picture] = seeded.http.get("/api/v1/pictures", params={"tag": "for mum"}).json()

    copies = {}
    for name in ("Command", "Python", "curl", "A1111's line"):
        page.get_by_role("button", name="Copy as").click()
        page.get_by_role("menuitem", name=name).click()
        expect(page.get_by_text("Copied.")).to_be_visible()
        copies[name] = page.evaluate("() => navigator.clipboard.readText()")
        page.get_by_role("button", name="Close").click()
    assert copies["Command"] == (
        "sfumato generate 'a {red|red} apple, 3d render' --steps 3 --seed 7 --style emoji-flat"
    )
    assert 'style=["emoji-flat"]' in copies["Python"]
    assert '"seed":7' in copies["curl"]
    assert "Steps: 3, Sampler:" in copies["A1111's line"]

    def downloaded(name):
        page.get_by_role("button", name="Download").click()
        with page.expect_download() as download:
            page.get_by_role("menuitem", name=name, exact=True).click()
        return PIL.Image.open(io.BytesIO(Path(download.value.path()).read_bytes()))

    whole, bare = downloaded("Download"), downloaded("Download without metadata")
    assert "sfumato" in whole.text
    assert bare.text == {}
    assert bare.tobytes() == whole.tobytes()

    page.get_by_role("button", name="Same again").click()
    expect(page.get_by_role("textbox", name="Prompt", exact=True)).to_have_value(
        "a {red|red} apple, 3d render"
    )
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page.get_by_role("img", name=re.compile("^a red apple"))).to_have_count(2)
    job = seeded.http.get("/api/v1/jobs").json()[0]
    again = seeded.wait(job["id"])["pictures"][0]
    pixels = [
        PIL.Image.open(io.BytesIO(seeded.http.get(f"/api/v1/pictures/{each['id']}/file").content)).tobytes()
        for each in (picture, again)
    ]
    assert pixels[0] == pixels[1]


def test_a_picture_is_sent_to_edit(gallery):
    name = shown(gallery)[0]
    gallery.get_by_role("link", name=name, exact=True).first.click()
    picture = re.search("picture=([^&]+)", gallery.url)[1]
    gallery.get_by_role("complementary").get_by_role("link", name="Edit").click()
    expect(gallery).to_have_url(re.compile(f"/edit/{picture}$"))
    expect(gallery.get_by_role("application").get_by_role("img", name=name, exact=True)).to_be_visible()


def test_a_clip_plays_in_the_viewer_and_is_downloaded_by_its_kind(seeded, open_page):
    fields = {"prompt": "a red ball bouncing", "frames": 3, "steps": 2, "width": 64, "height": 64, "seed": 7}
    (picture,) = seeded.wait(seeded.submit(**fields)["id"])["pictures"]
    page = open_page(f"{seeded.url}/gallery", viewport={"width": 1280, "height": 800})
    page.get_by_role("img", name="a red ball bouncing").click()
    clip = page.get_by_label("Picture", exact=True).get_by_role("img", name="a red ball bouncing")
    expect(clip).to_have_attribute("src", f"/api/v1/pictures/{picture['id']}/file")
    assert clip.evaluate("image => image.decode().then(() => image.naturalWidth)") == 64
    expect(page.get_by_role("button", name="Enlarge")).to_have_count(0)

    def downloaded(name):
        page.get_by_role("button", name="Download").click()
        with page.expect_download() as download:
            page.get_by_role("menuitem", name=name, exact=True).click()
        assert download.value.suggested_filename == "a-red-ball-bouncing-7.webp"
        return PIL.Image.open(io.BytesIO(Path(download.value.path()).read_bytes()))

    whole, bare = downloaded("Download"), downloaded("Download without metadata")
    assert {"exif", "xmp"} <= whole.info.keys()
    assert not {"exif", "xmp"} & bare.info.keys()
    assert whole.n_frames == bare.n_frames == 3
    for index in range(3):
        whole.seek(index)
        bare.seek(index)
        assert bare.tobytes() == whole.tobytes()


def test_a_picture_that_is_dropped_gives_its_settings_back(gallery, tmp_path):
    told = PngInfo()
    told.add_text("parameters", A1111_LINE)
    PIL.Image.new("RGB", (64, 64), "red").save(tmp_path / "fox.png", pnginfo=told)
    content = list((tmp_path / "fox.png").read_bytes())
    transfer = gallery.evaluate_handle(
        """bytes => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], "fox.png", {type: "image/png"}));
          return transfer;
        }""",
        content,
    )
    gallery.dispatch_event("body", "dragover", {"dataTransfer": transfer})
    expect(gallery.get_by_text("Drop the picture to read its settings")).to_be_visible()
    gallery.dispatch_event("body", "drop", {"dataTransfer": transfer})
    dialog = gallery.get_by_role("dialog", name="Settings of a picture")
    expect(dialog).to_contain_text("Drawn by A1111")
    expect(dialog.get_by_role("listitem")).to_contain_text(["dreamshaper_8", "winter"])
    dialog.get_by_role("button", name="Use these").click()
    expect(gallery.get_by_role("textbox", name="Prompt", exact=True)).to_have_value("a red fox")
    expect(gallery.get_by_role("textbox", name="Negative prompt")).to_have_value("blurry")


@pytest.mark.parametrize(("theme", "width"), [("light", 360), ("dark", 360), ("dark", 768), ("light", 1440)])
def test_nothing_is_wrong_for_readers_and_nothing_is_wider_than_a_phone(
    seeded, open_page, check_access, theme, width
):
    ids = [each["id"] for each in seeded.http.get("/api/v1/pictures", params={"limit": 2}).json()]
    page = open_page(f"{seeded.url}/gallery", viewport={"width": width, "height": 720}, color_scheme=theme)
    for query in ("", "?search=nothing", f"?picture={ids[0]}", f"?compare={ids[0]},{ids[1]}"):
        page.goto(f"{seeded.url}/gallery{query}")
        page.locator("[role=gridcell], .empty, dl, table").last.wait_for(state="attached")
        check_access(page)
