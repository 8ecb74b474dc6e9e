"""The real clients of the APIs that are spoken: the `openai` package, and `webuiapi` for A1111's."""

import base64
import io

import openai
import PIL.Image
import pytest
import webuiapi


def picture(datum):
    return PIL.Image.open(io.BytesIO(base64.b64decode(datum.b64_json)))


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="any")


@pytest.fixture
def webui(server):
    return webuiapi.WebUIApi(host="127.0.0.1", port=server.port, steps=4)


def test_openai_generates(client):
    answer = client.images.generate(
        model="gpt-image-1", prompt="a red apple", n=2, size="128x128", extra_body={"seed": 7, "steps": 2}
    )
    assert [picture(each).size for each in answer.data] == [(128, 128)] * 2
    assert answer.size == "128x128"


@pytest.mark.parametrize(("name", "kind"), [("jpeg", "JPEG"), ("webp", "WEBP")])
def test_openai_takes_the_format_that_it_asked_for(client, name, kind):
    answer = client.images.generate(
        prompt="a cat", size="64x64", output_format=name, output_compression=80, extra_body={"steps": 1}
    )
    assert picture(answer.data[0]).format == kind


def test_openai_follows_a_url(client, server):
    answer = client.images.generate(
        prompt="a cat", size="64x64", response_format="url", extra_body={"steps": 1}
    )
    found = server.http.get(answer.data[0].url)
    assert PIL.Image.open(io.BytesIO(found.content)).size == (64, 64)


def test_openai_streams_partial_pictures(client):
    stream = client.images.generate(prompt="a cat", stream=True, partial_images=2, extra_body={"steps": 12})
    events = list(stream)
    assert events[-1].type == "image_generation.completed"
    assert picture(events[-1]).size == (256, 256)
    partial = events[:-1]
    assert 1 <= len(partial) <= 2
    assert [each.partial_image_index for each in partial] == list(range(len(partial)))
    assert all(each.type == "image_generation.partial_image" for each in partial)


def test_openai_edits_where_the_mask_is_transparent(client):
    base = PIL.Image.new("RGB", (64, 64), "white")
    mask = PIL.Image.new("RGBA", (64, 64), "black")
    mask.paste((0, 0, 0, 0), (0, 0, 32, 64))
    answer = client.images.edit(
        image=("a.png", png(base)), mask=("m.png", png(mask)), prompt="a red square", extra_body={"steps": 2}
    )
    drawn = picture(answer.data[0]).convert("RGB")
    assert drawn.crop((40, 0, 64, 64)).getextrema() == ((255, 255),) * 3
    assert drawn.crop((0, 0, 30, 64)).getextrema() != ((255, 255),) * 3


def test_openai_varies(client):
    answer = client.images.create_variation(image=("a.png", png(PIL.Image.new("RGB", (64, 64), "red"))))
    assert picture(answer.data[0]).size == (256, 256)


def test_openai_lists_the_models(client):
    assert [each.id for each in client.models.list()] == ["embedded"]
    assert client.models.retrieve("embedded").id == "embedded"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"size": "250x250"}, "width is 250: must be a multiple of 8"),
        ({"size": "big"}, "size is 'big'"),
        ({"prompt": " "}, "prompt is empty"),
        ({"extra_body": {"steeps": 3}}, "unknown parameter 'steeps'"),
        ({"model": "other"}, "model 'other' is not served"),
    ],
)
def test_openai_is_told_what_was_wrong(client, fields, text):
    with pytest.raises(openai.BadRequestError, match=text):
        client.images.generate(**{"prompt": "a cat", **fields})


def test_a1111_draws_from_a_prompt(webui):
    found = webui.txt2img(prompt="a (red:1.2) apple", width=64, height=64, seed=3, sampler_name="Euler a")
    assert found.image.size == (64, 64)
    assert found.info["all_seeds"] == [3]
    assert "Sampler: Euler a" in found.info["infotexts"][0]
    assert webui.png_info(found.image).info.startswith("a (red:1.2) apple")


def test_a1111_draws_a_batch(webui):
    found = webui.txt2img(prompt="a cat", width=64, height=64, seed=3, batch_size=2, n_iter=2, steps=1)
    assert [image.size for image in found.images] == [(64, 64)] * 4
    assert found.info["all_seeds"] == [3, 4, 5, 6]


def test_a1111_draws_from_a_picture_and_into_one(webui):
    white = PIL.Image.new("RGB", (64, 64), "white")
    assert webui.img2img(images=[white], prompt="a cat", width=64, height=64).image.size == (64, 64)
    mask = PIL.Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 24, 64))
    drawn = webui.img2img(
        images=[white],
        prompt="a cat",
        width=64,
        height=64,
        mask_image=mask,
        mask_blur=0,
        inpaint_full_res=False,
    ).image
    assert drawn.convert("RGB").crop((32, 0, 64, 64)).getextrema() == ((255, 255),) * 3


def test_a1111_enlarges(webui):
    found = webui.extra_single_image(PIL.Image.new("RGB", (32, 24), "red"), upscaling_resize=2)
    assert found.image.size == (64, 48)


def test_a1111_lists_what_there_is(webui):
    assert "Euler a" in webui.util_get_sampler_names()
    assert "karras" in webui.util_get_scheduler_names()
    assert webui.util_get_model_names() == ["embedded"]
    assert webui.util_get_current_model() == "embedded"
    assert webui.get_loras() == []
    assert webui.get_prompt_styles()
    assert webui.get_progress()["progress"] == 0


def test_a1111_interrupts_what_is_drawn(server, webui):
    job = server.submit(prompt="a cat", steps=200, sampler="euler")
    server.wait(job["id"], "running")
    webui.interrupt()
    assert server.wait(job["id"])["state"] == "cancelled"
