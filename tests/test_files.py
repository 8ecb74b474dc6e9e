import errno
import json
import os
import shutil
import socket
import stat

import pytest
import torch

from sfumato import files, weights
from sfumato.errors import CheckpointError, OutputError


def fail_with(number):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return fail


def write(path, content=b"new", error=None):
    with files.replace_atomically(path) as file:
        file.write(content)
        if error:
            raise error


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(b"old")
    return path


def alone(path):
    return [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_file_is_replaced_and_nothing_else_is_left(target):
    write(target)
    assert target.read_bytes() == b"new"
    assert alone(target)


def test_a_new_file_has_the_permissions_the_umask_leaves(tmp_path):
    before = os.umask(0o027)
    try:
        write(tmp_path / "new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


def test_a_replaced_file_keeps_its_permissions(target):
    target.chmod(0o604)
    write(target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o604


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, MemoryError])
def test_whatever_interrupts_the_writing_leaves_the_old_file(target, error):
    with pytest.raises(error):
        write(target, b"half", error)
    assert target.read_bytes() == b"old"
    assert alone(target)


@pytest.mark.parametrize("call", ["open", "fsync", "replace", "chmod"])
@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space"),
        (errno.EIO, "input/output"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission"),
        (errno.EDQUOT, "quota"),
    ],
)
def test_a_refusing_disk_leaves_the_old_file_and_one_clear_line(target, monkeypatch, call, number, words):
    monkeypatch.setattr(files.os, call, fail_with(number))
    with pytest.raises(OutputError, match=words) as caught:
        write(target)
    assert str(target) in str(caught.value)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert target.read_bytes() == b"old"
    assert alone(target)


def test_a_disk_that_is_really_full_is_named():
    with pytest.raises(OutputError, match="no space"):
        write("/dev/full")


def test_a_file_system_that_is_really_read_only_to_us_is_named():
    with pytest.raises(OutputError, match=r"cannot write /proc/picture\.png"):
        write("/proc/picture.png")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(OutputError, match="there is no folder"):
        write(tmp_path / "missing" / "picture.png")


def test_a_folder_in_the_place_of_the_file_is_named(tmp_path):
    with pytest.raises(OutputError, match="it is a folder"):
        write(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="not a folder"):
        write(tmp_path / "file" / "picture.png")


def test_a_symbolic_link_keeps_pointing_at_what_is_written(tmp_path, target):
    link = tmp_path / "link.png"
    link.symlink_to(target)
    write(link)
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    read_end, write_end = os.pipe()
    try:
        write(f"/proc/self/fd/{write_end}")
        assert os.read(read_end, 10) == b"new"
    finally:
        os.close(read_end)
        os.close(write_end)
    write("/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def fill(folder, content="new", error=None, **options):
    with files.replace_folder(folder, marker="index", **options) as place:
        (place / "index").write_text(content)
        if error:
            raise error
        (place / "part").mkdir()
        (place / "part" / "weights").write_text(content)


def test_a_folder_appears_whole(tmp_path):
    fill(tmp_path / "model")
    assert (tmp_path / "model" / "part" / "weights").read_text() == "new"
    (tmp_path / "empty").mkdir()
    fill(tmp_path / "empty")
    assert (tmp_path / "empty" / "index").read_text() == "new"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["empty", "model"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.ENOSPC, "full")])
def test_an_interrupted_folder_leaves_the_old_one(tmp_path, error):
    fill(tmp_path / "model", "old")
    with pytest.raises((KeyboardInterrupt, OutputError)):
        fill(tmp_path / "model", "half", error, overwrite=True)
    assert (tmp_path / "model" / "index").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("failing", [1, 2])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.EIO, "broken")])
def test_a_replacement_that_fails_between_its_renames_puts_the_old_folder_back(
    tmp_path, monkeypatch, failing, error
):
    fill(tmp_path / "model", "old")
    rename, calls = os.rename, []

    def sometimes(source, destination):
        calls.append(source)
        if len(calls) == failing:
            raise error
        rename(source, destination)

    monkeypatch.setattr(files.os, "rename", sometimes)
    with pytest.raises((KeyboardInterrupt, OutputError)):
        fill(tmp_path / "model", overwrite=True)
    assert (tmp_path / "model" / "part" / "weights").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_only_a_folder_of_the_same_kind_is_replaced_and_only_when_asked(tmp_path):
    fill(tmp_path / "model", "old")
    with pytest.raises(OutputError, match="a model is there already"):
        fill(tmp_path / "model")
    fill(tmp_path / "model", overwrite=True)
    assert (tmp_path / "model" / "index").read_text() == "new"
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter").write_text("dear")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="not empty and holds no index"):
            fill(tmp_path / "home", overwrite=overwrite)
    with pytest.raises(OutputError, match="a file of that name"):
        fill(tmp_path / "home" / "letter", overwrite=True)
    assert (tmp_path / "home" / "letter").read_text() == "dear"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not valid JSON"),
        (b"[1]", "JSON object, not list"),
        (b'{"a": 1, "a": 2}', "'a' stands twice"),
        (b'{"a": {"b": 1, "b": 2}}', "'b' stands twice"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": 1e999}', "1e999"),
        (b'{"a": "\xff"}', "not valid JSON"),
        (b'{"a": ' + b"[" * 100_000, "not valid JSON"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "not valid JSON"),
        (b'{"a": 1', "not valid JSON"),
        (b'{"a": "' + b"b" * 200 + b'"}', "larger than 100 bytes"),
    ],
)
def test_json_that_is_not_what_it_should_be_is_refused_by_file_name(tmp_path, content, words):
    (tmp_path / "config.json").write_bytes(content)
    limit = 100 if "larger" in words else 1 << 20
    with pytest.raises(CheckpointError, match=words) as caught:
        files.read_json(tmp_path / "config.json", limit)
    assert "config.json" in str(caught.value)


def test_json_is_read_back_as_written(tmp_path):
    files.write_json(tmp_path / "x.json", {"a": [1, 2.5, None, "ü"], "b": {}})
    assert files.read_json(tmp_path / "x.json") == {"a": [1, 2.5, None, "ü"], "b": {}}
    with pytest.raises(CheckpointError, match="is missing"):
        files.read_json(tmp_path / "y.json")
    with pytest.raises(CheckpointError, match="cannot read"):
        files.read_json(tmp_path)


@pytest.fixture(params=["pipe", "link to a device", "socket", "folder", "link to a pipe"])
def no_file(request, tmp_path):
    """Something that is no regular file, and what errors call it."""
    path = tmp_path / "config.json"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "link to a pipe":
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to(tmp_path / "pipe")
    elif request.param == "link to a device":
        path.symlink_to("/dev/zero")
    elif request.param == "folder":
        path.mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    return path, request.param.split()[-1]


def test_only_regular_files_are_opened_and_what_else_there_is_named(no_file):
    path, kind = no_file
    for read in (files.open_file, files.regular, lambda path: files.read_file(path, 100)):
        with pytest.raises(OSError, match=kind) as caught:
            read(path)
        assert caught.value.filename == str(path)
    with pytest.raises(CheckpointError, match=f"cannot read {path}: it is a .*{kind}"):
        files.read_json(path)
    with pytest.raises(OSError, match=kind):
        list(files.read_lines(path))


def test_a_file_that_became_a_pipe_after_it_was_looked_at_is_not_waited_for(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(files, "regular", lambda path: path)
    with pytest.raises(OSError, match="named pipe"):
        files.open_file(tmp_path / "pipe")


def test_a_file_is_read_up_to_a_size_and_not_begun_beyond_it(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert files.read_file(path, 5) == b"12345"
    with pytest.raises(OSError, match="larger than 4 bytes"):
        files.read_file(path, 4)
    os.truncate(path, 1 << 40)  # without anything in it: a sparse file
    with pytest.raises(OSError, match="larger than 5 bytes"):
        files.read_file(path, 5)
    assert files.read_file("/proc/self/stat", 1 << 12)  # whose size is said to be 0


def test_lines_are_read_one_after_another_and_up_to_a_length(tmp_path):
    path = tmp_path / "lines"
    path.write_bytes(b"one\ntwo\n" + b"x" * 20)
    lines = files.read_lines(path, 10)
    assert [next(lines), next(lines)] == [b"one\n", b"two\n"]
    with pytest.raises(OSError, match="line 3 is larger than 10 bytes"):
        next(lines)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":[' + b"[]," * 600_000 + b"[]]}",
        b'{"a":[' + b'{"":[]},' * 200_000 + b"[]]}",
        b"{" + b",".join(b'"%x":0' % number for number in range(350_000)) + b"}",
        b'{"a":[' + b'"\\\\",' * 3_000_000 + b"0]}",
    ],
    ids=["lists", "objects", "keys", "strings"],
)
def test_json_that_would_be_much_longer_in_memory_is_not_parsed(monkeypatch, raw):
    monkeypatch.setattr(files.json, "loads", lambda *_arguments, **_options: pytest.fail("it was parsed"))
    with pytest.raises(CheckpointError, match="it lists far more than such a file may"):
        files.parse_json(raw, "it")


def test_what_a_string_holds_does_not_make_json_long():
    held = json.dumps([{"tag": [number]} for number in range(600_000)])
    assert files.parse_json(json.dumps({"a": held}).encode(), "it") == {"a": held}


@pytest.mark.parametrize(
    ("check", "told"),
    [
        (lambda folder: files.check_file(folder / "none" / "a.bin"), "there is no folder"),
        (lambda folder: files.check_file(folder), "it is a folder"),
        (lambda folder: files.check_file(folder / "file" / "a.bin"), "not a folder"),
        (lambda folder: files.check_file(folder / "a.bin", 1 << 60), "1,152,921,504,606,846,976 bytes, and"),
        (lambda folder: files.check_folder(folder, marker="m"), "it is not empty and holds no m"),
        (lambda folder: files.check_folder(folder / "none" / "a", marker="m"), "there is no folder"),
        (lambda folder: files.check_made(folder / "file" / "deep" / "er"), "not a folder"),
    ],
)
def test_what_could_not_be_written_is_known_before_the_work(check, told, tmp_path):
    (tmp_path / "file").write_bytes(b"1")
    with pytest.raises(OutputError, match=told):
        check(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_place_that_can_be_written_passes_and_nothing_is_left_there(tmp_path):
    (tmp_path / "file").write_bytes(b"1")
    files.check_file(tmp_path / "file", 100)
    files.check_file(os.devnull)
    files.check_folder(tmp_path / "folder", marker="m")
    files.check_made(tmp_path / "a" / "b")
    assert (tmp_path / "file").read_bytes() == b"1"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_weights_are_not_begun_where_their_disk_has_no_room(tmp_path, monkeypatch):
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(OutputError, match=r"takes 4,000,000 bytes, and its disk has 1,000 free"):
        weights.write(tmp_path / "a.safetensors", {"a": torch.zeros(1_000_000)})
    assert list(tmp_path.iterdir()) == []
