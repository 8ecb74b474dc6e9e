"""Where pictures go."""

import errno
import os

import pytest

from sfumato.cli import target
from sfumato.errors import OutputError, UsageError


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def names(output, total, prompts=("a red apple",), seeds=(7, 8, 9, 10), **how):
    place = target.plan(output, total, **how)
    return [
        str(place.path(number + 1, prompts[number % len(prompts)], seeds[number % len(seeds)]))
        for number in range(total)
    ]


def test_one_picture_goes_to_the_file_named():
    assert names("apple.png", 1) == ["apple.png"]


def test_the_home_folder_is_meant_by_a_tilde_that_the_shell_left(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert names("~/new/apple.png", 1) == [str(tmp_path / "home" / "new" / "apple.png")]
    assert names("~/", 1) == [str(tmp_path / "home" / "a-red-apple-7.png")]
    assert not (tmp_path / "~").exists()


def test_several_pictures_are_numbered_before_the_suffix():
    assert names("apple.jpg", 4) == ["apple-1.jpg", "apple-2.jpg", "apple-3.jpg", "apple-4.jpg"]
    assert names("apple.png", 12)[:2] == ["apple-01.png", "apple-02.png"]


def test_a_pattern_says_where_number_seed_and_prompt_go():
    assert names("{n}-{prompt}_{seed}.webp", 2) == ["1-a-red-apple_7.webp", "2-a-red-apple_8.webp"]
    assert names("{seed}.png", 1) == ["7.png"]


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("{seed:04d}.png", "0007.png"),
        ("{seed:06}.png", "000007.png"),
        ("{seed:x}.png", "7.png"),
        ("{n:03d}-{seed}.png", "001-7.png"),
        ("{prompt:.5}.png", "a-red.png"),
        ("{n:d}{seed:d}.png", "17.png"),
    ],
)
def test_a_placeholder_may_have_a_format(pattern, name):
    assert names(pattern, 1) == [name]


@pytest.mark.parametrize(
    "pattern",
    [
        "{seed.real}.png", "{seed!r}.png", "{seed[0]}.png", "{}.png", "{0}.png", "{seed:{n}}.png",
        "{{n}}.png", "{seed:999d}.png", "{n:.3f}.png", "{prompt:>90}.png", "{seed:,}.png", "{seed.png",
        "seed}.png", "{prompt:04d}.png", "{seed}/{n}.png", "{seed}/",
    ],
)  # fmt: skip
def test_a_brace_that_is_no_placeholder_is_refused(pattern, tmp_path):
    with pytest.raises(UsageError, match=r"placeholder|the format must be as in"):
        target.plan(pattern, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "output", ["new/", "new/{n}.png", "new/a.png", "new/and/deep/{seed}.png", "new/and/"]
)
def test_a_missing_folder_is_made_however_it_is_named(output, tmp_path):
    target.plan(output, 2)
    assert (tmp_path / "new").is_dir()


def test_no_clobber_replaces_no_file_that_is_named(tmp_path):
    (tmp_path / "apple.png").touch()
    (tmp_path / "cat-2.png").touch()
    assert names("apple.png", 1, clobber=False) == ["apple-2.png"]
    assert names("cat.png", 2, clobber=False) == ["cat-1.png", "cat-2-2.png"]


@pytest.mark.parametrize(
    ("output", "prompt", "sheet"),
    [
        (None, "a red apple", "a-red-apple-sheet.png"),
        (None, "", "sheet.png"),
        ("cat.jpg", "a cat", "cat-sheet.jpg"),
        ("my_cat.png", "a cat", "my_cat-sheet.png"),
        ("out/", "", "out/sheet.png"),
        ("out/{n}_{seed}.webp", "", "out/sheet.webp"),
        ("a-{n}-of-{seed}.png", "", "a-of-sheet.png"),
    ],
)
def test_the_contact_sheet_lies_beside_the_pictures(output, prompt, sheet):
    assert str(target.plan(output, 4).sheet(prompt)) == sheet


def test_pictures_of_one_run_never_replace_each_other():
    assert names("{seed}.png", 3, seeds=(7,)) == ["7.png", "7-2.png", "7-3.png"]


def test_without_a_name_it_is_made_of_prompt_and_seed_and_replaces_nothing(tmp_path):
    assert names(None, 1) == ["a-red-apple-7.png"]
    (tmp_path / "a-red-apple-7.png").touch()
    assert names(None, 1) == ["a-red-apple-7-2.png"]


def test_a_folder_gets_the_same_names_and_is_made_if_it_is_missing(tmp_path):
    assert names("out/", 2) == ["out/a-red-apple-7.png", "out/a-red-apple-8.png"]
    assert (tmp_path / "out").is_dir()
    assert names("out", 1) == ["out/a-red-apple-7.png"]


def test_a_file_that_was_named_is_replaced(tmp_path):
    (tmp_path / "apple.png").touch()
    assert names("apple.png", 1) == ["apple.png"]


def test_a_folder_in_the_place_of_a_numbered_file_is_found_before_drawing(tmp_path):
    (tmp_path / "apple-2.png").mkdir()
    with pytest.raises(OutputError, match=r"cannot write apple-2\.png: it is a folder"):
        target.plan("apple.png", 3)


def test_the_probe_for_writing_leaves_nothing_behind(tmp_path):
    target.plan("apple.png", 3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "told"), [(errno.EROFS, "read-only"), (errno.EACCES, "denied"), (errno.ENOSPC, "no space")]
)
def test_a_folder_that_cannot_be_written_is_found_before_drawing(code, told, monkeypatch):
    def fail(*_args, **_kwargs):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(OutputError, match=told):
        target.plan("apple.png", 1)


def test_a_picture_is_not_written_to_a_terminal(monkeypatch):
    class Terminal:
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stdout", Terminal())
    with pytest.raises(UsageError, match="to the terminal"):
        target.plan("-", 1)


@pytest.mark.parametrize(
    ("prompt", "slug"),
    [
        ("A red Apple, 3D render!", "a-red-apple-3d-render"),
        ("../../etc/passwd", "etc-passwd"),
        ("snake_case", "snake-case"),
        ("一个红苹果", "一个红苹果"),
        ("🍎", "picture"),
        ("x" * 500, "x" * 80),
        ("红" * 100, "红" * 26),
        ("a\nb\0c", "a-b-c"),
    ],
)
def test_a_prompt_becomes_a_file_name_that_every_system_takes(prompt, slug):
    assert target.slug(prompt) == slug
