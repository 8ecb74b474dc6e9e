import base64

import pytest

from sfumato.errors import SfumatoError
from sfumato.server.admission import admitted
from sfumato.server.settings import ServerSettings
from sfumato.server.submitting import decoded, with_pictures

SETTINGS = ServerSettings(
    models=("embedded", "dreamy"), max_pictures=4, max_pixels=512 * 512, max_frames=8, max_steps=50
)


def refused(**fields):
    with pytest.raises(SfumatoError) as error:
        admitted(with_pictures({"prompt": "a cat", **fields}), SETTINGS)
    return str(error.value)


def test_a_request_gets_a_seed_so_that_drawing_it_again_is_the_same():
    request, count = admitted({"prompt": "a cat", "count": 2}, SETTINGS)
    assert count == 2
    assert 0 <= request.seed < 2**32
    assert request.model == "embedded"


def test_a_model_that_is_not_served_is_refused():
    assert refused(model="/etc/passwd") == "model '/etc/passwd' is not served; known: dreamy, embedded"


@pytest.mark.parametrize("name", ["vae", "tiny", "base"])
def test_files_of_the_server_cannot_be_named(name):
    assert refused(**{name: "/etc/passwd"}) == (
        f"{name} cannot be chosen over HTTP: the server's models have their own"
    )


def test_an_upscaler_is_no_path():
    assert refused(upscale=2, upscaler="/x.safetensors").startswith(
        "upscaler is '/x.safetensors': here it is"
    )


def test_a_picture_by_its_name_alone_is_not_read():
    text = refused(image={"name": "/etc/passwd", "sha256": "0" * 64})
    assert text.startswith("image has no data: a picture comes with its bytes, as base64, or with the sha256")


@pytest.mark.parametrize("path", ["/etc/passwd", "cat.png", "C:\\cat.png"])
def test_a_text_is_never_a_path(path):
    assert refused(image=path) == "image is no picture in base64"


def test_a_controls_picture_is_never_a_path_either():
    text = refused(controls=[{"model": "edges", "image": "/etc/passwd"}])
    assert text == "controls[0].image is no picture in base64"


def test_a_url_is_never_fetched():
    assert "is a URL" in refused(image="http://169.254.169.254/latest")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"count": 5}, "the request is for 5 pictures: at most 4 at once"),
        ({"prompt": "{a|b|c}", "templates": "combinatorial", "count": 2}, "the request is for 6 pictures"),
        ({"width": 1024, "height": 512}, "1024 × 512 are too many pixels"),
        ({"steps": 51}, "steps is 51: at most 50 here"),
        ({"frames": 9}, "frames is 9: at most 8 here"),
        ({"frames": 1}, "frames is 1: must be at least 2"),
        ({"fps": 8}, "fps is given without frames"),
        ({"steeps": 5}, "unknown field 'steeps'"),
    ],
)
def test_more_than_the_server_draws_is_refused(fields, text):
    assert text in refused(**fields)


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_base64_is_read_with_and_without_a_data_url(prefix):
    assert decoded(prefix + base64.b64encode(b"\x89PNG").decode(), "image") == b"\x89PNG"
