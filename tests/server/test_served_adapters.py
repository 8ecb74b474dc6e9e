"""Adapters in the server's folder: jobs with different ones take turns, and each is drawn with its own."""

import shutil

import pytest
import webuiapi
from running import TINY

from sfumato.checkpoint.source import embedded


@pytest.fixture
def server(start, tmp_path):
    """A server with an adapter, whose pictures share no batch."""
    folder = tmp_path / "home" / "adapters"
    folder.mkdir(parents=True)
    shutil.copy(embedded() / "fast.safetensors", folder / "ink.safetensors")
    found = start(env={"SFUMATO_HOME": str(folder.parent), "SFUMATO_SERVE_ROWS": "0"})
    found.wait_ready()
    return found


def drawn(server, jobs):
    return [server.wait(job["id"])["pictures"][0]["sha256"] for job in jobs]


def test_jobs_of_different_adapters_that_take_turns_are_drawn_as_alone(server):
    prompts = ["a cat", "a cat <lora:ink:0.5>", "a cat <lora:ink:1>", "a cat"]
    given = [{**TINY, "prompt": prompt, "steps": 4, "seed": 1} for prompt in prompts]
    together = drawn(server, [server.submit(**each) for each in given])
    assert [drawn(server, [server.submit(**each)])[0] for each in given] == together
    assert len({*together}) == 3
    assert together[0] == together[3]


def test_a1111_lists_them_and_draws_with_them(server):
    webui = webuiapi.WebUIApi(host="127.0.0.1", port=server.port, steps=1)
    assert [each["name"] for each in webui.get_loras()] == ["ink"]
    given = {"width": 64, "height": 64, "seed": 3}
    plain, with_ink = (webui.txt2img(prompt=f"a cat{text}", **given) for text in ("", " <lora:ink:1>"))
    assert plain.image.tobytes() != with_ink.image.tobytes()
    with pytest.raises(RuntimeError, match=r"there is no adapter .*ice"):
        webui.txt2img(prompt="a cat <lora:ice:1>", **given)
