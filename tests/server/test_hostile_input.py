"""Input that no client of good will sends is answered with what is wrong, and nothing fails."""

import base64
import struct
import zlib

import pytest

HALF = '"\\ud800"'


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height):
    """A small file that says it is a picture of this size."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(b"\0" * (3 * width + 1) * min(height, 2)))
    return b"\x89PNG\r\n\x1a\n" + head + rows + chunk(b"IEND", b"")


ONE = base64.b64encode(png(1, 1)).decode()
BOMB = base64.b64encode(png(60_000, 60_000)).decode()
TOO_MANY = "too many pixels"


def refused(server, path, content, kind="application/json"):
    """What a request that is the client's fault is told."""
    answer = server.http.post(path, content=content, headers={"content-type": kind})
    assert 400 <= answer.status_code < 500, answer.text
    return answer.json()["error"]["message"]


def form(*parts):
    """The body of a form: names, contents, and whether each is a file."""
    lines = b""
    for name, content, is_file in parts:
        file = '; filename="f"' if is_file else ""
        lines += f'--x\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode()
        lines += content + b"\r\n"
    return lines + b"--x--\r\n"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (f'"prompt": {HALF}', "surrogate"),
        (f'"prompt": "x", {HALF}: 1', "unknown field"),
        (f'"prompt": "x", "model": {HALF}', "is not served"),
        ('"prompt": "x", "guidance": NaN', "finite"),
        ('"prompt": "x", "guidance": 1e999', "finite"),
        (f'"prompt": "x", "seed": {"9" * 5000}', "parsing"),
        ('"prompt": "x", "seed": 1e300', "seed"),
        ('"prompt": "x", "count": 1e9', "count"),
        (f'"prompt": "{"(" * 5000}"', "nests"),
        (f'"prompt": "{"{a|b}" * 5000}", "templates": "combinatorial"', "combinations"),
        (f'"prompt": {"[" * 900}{"]" * 900}', "prompt"),
        (f'"prompt": {"[" * 100_000}', "parsing"),
        (f'"prompt": "x", "image": "{BOMB}"', TOO_MANY),
        ('"prompt": "x", "width": 2000000000', "width"),
    ],
)
def test_a_request_that_cannot_be_drawn_is_told_why(server, fields, told):
    assert told in refused(server, "/api/v1/jobs", f'{{"request": {{{fields}}}}}')


@pytest.mark.parametrize(
    ("path", "fields", "told"),
    [
        ("txt2img", f'"prompt": "x", "unknown": {HALF}', "surrogate"),
        ("txt2img", '"prompt": "x", "batch_size": "many"', "batch_size"),
        ("txt2img", '"prompt": "x", "batch_size": [1]', "batch_size"),
        ("txt2img", '"prompt": "x", "n_iter": 1e400', "n_iter"),
        ("txt2img", '"prompt": "x", "override_settings": 5', "override_settings"),
        ("txt2img", '"prompt": "x", "override_settings": {"CLIP_stop_at_last_layers": "x"}', ""),
        ("img2img", f'"init_images": ["{ONE}"], "mask": "{ONE}", "inpainting_fill": [1]', "inpainting_fill"),
        ("img2img", f'"init_images": ["{BOMB}"]', TOO_MANY),
        ("png-info", f'"image": "{BOMB}"', TOO_MANY),
        ("extra-single-image", f'"image": "{BOMB}"', TOO_MANY),
        ("extra-single-image", f'"image": "{ONE}", "upscaling_resize": NaN', "upscaling_resize"),
        ("extra-single-image", f'"image": "{ONE}", "upscaling_resize": {{"x": 1}}', "upscaling_resize"),
    ],
)
def test_a_parameter_of_the_web_ui_that_means_nothing_is_named(server, path, fields, told):
    assert told in refused(server, f"/sdapi/v1/{path}", f"{{{fields}}}")


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ([("image", png(1, 1), True), ("n", b"many", False)], "n is 'many': must be a valid integer"),
        ([("image", png(60_000, 60_000), True), ("prompt", b"x", False)], TOO_MANY),
        ([("image", b"", True)], "is not a PNG"),
        ([("image", png(1, 1), False)], "image is missing"),
        ([("image", png(1, 1), True)] * 50, "Too many files"),
        ([(f"p{number}", b"x", False) for number in range(3000)], "Too many fields"),
    ],
)
def test_a_form_that_cannot_be_read_is_told_why(server, parts, told):
    assert told in refused(server, "/v1/images/edits", form(*parts), "multipart/form-data; boundary=x")


@pytest.mark.parametrize("words", ["\0", "a\0b", 'a"b*c', "^", "'", "AND OR NOT", "-x", ":*", "(", "\\", "%"])
def test_words_are_no_syntax_of_the_search(server, words):
    assert server.http.get("/api/v1/pictures", params={"search": words}).status_code == 200


@pytest.mark.parametrize("name", ["%2e%2e%2fsfumato.db", "..%2f..%2fdata", "%00", "%ff", "*"])
def test_a_name_is_no_path(server, name):
    assert server.http.get(f"/api/v1/pictures/{name}/file").status_code == 404
    assert server.http.get(f"/api/v1/jobs/{name}").status_code == 404
