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
    assert answer.usage.total_tokens == 0
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
    assert {picture(each).format for each in partial} == {"PNG"}


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
    assert [each.id for each in client.models.list()] == ["embedded", "embedded-instruct"]
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


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 11}, "n"),
        ({"n": 0}, "n"),
        ({"size": "64by64"}, "size"),
        ({"quality": "best"}, "quality"),
        ({"background": "blue"}, "background"),
        ({"background": "transparent", "output_format": "jpeg"}, "background"),
        ({"output_format": "gif"}, "output_format"),
        ({"output_compression": 101}, "output_compression"),
        ({"response_format": "file"}, "response_format"),
        ({"partial_images": 4, "stream": True}, "partial_images"),
        ({"extra_body": {"steps": 0}}, "steps"),
        ({"extra_body": {"stepz": 3}}, "stepz"),
    ],
)
def test_openai_is_told_which_parameter_was_wrong(client, fields, param):
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(**{"prompt": "a cat", **fields})
    assert (caught.value.param, caught.value.type) == (param, "invalid_request_error")
    assert caught.value.request_id


def test_openai_is_told_what_was_wrong_with_an_edit(client):
    image = ("a.png", png(PIL.Image.new("RGB", (64, 64))))
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.edit(image=image, prompt="a cat", n=11)
    assert caught.value.param == "n"
    with pytest.raises(openai.BadRequestError, match="image is given several times"):
        client.images.edit(image=[image, image], prompt="a cat")
    with pytest.raises(openai.BadRequestError, match="mask has no transparent part"):
        client.images.edit(image=image, mask=image, prompt="a cat")


def test_openai_draws_on_a_transparent_background(client):
    answer = client.images.generate(
        prompt="a red apple", background="transparent", size="auto", extra_body={"steps": 2, "seed": 1}
    )
    assert answer.background == "transparent"
    assert picture(answer.data[0]).mode == "RGBA"


def test_openai_streams_an_edit(client):
    stream = client.images.edit(
        image=("a.png", png(PIL.Image.new("RGB", (64, 64), "white"))),
        prompt="a red square",
        stream=True,
        partial_images=1,
        extra_body={"steps": 12},
    )
    events = list(stream)
    assert {each.type for each in events[:-1]} <= {"image_edit.partial_image"}
    assert (events[-1].type, events[-1].usage.total_tokens) == ("image_edit.completed", 0)


def test_openai_hears_of_a_stream_that_fails(client):
    with pytest.raises(openai.APIError, match="must be a multiple of 8"):
        list(client.images.generate(prompt="a cat", size="100x64", stream=True))


def test_a1111_draws_from_a_prompt(webui):
    found = webui.txt2img(prompt="a (red:1.2) apple", width=64, height=64, seed=3, sampler_name="Euler a")
    assert found.image.size == (64, 64)
    assert found.info["all_seeds"] == [3]
    assert "Sampler: Euler a" in found.info["infotexts"][0]
    assert webui.png_info(found.image).info.startswith("a (red:1.2) apple")


def test_a1111_draws_in_a_style(webui):
    (style,) = (each for each in webui.get_prompt_styles() if each["name"] == "emoji-3d")
    given = {"prompt": "a cat", "width": 64, "height": 64, "steps": 1, "seed": 3}
    styled = webui.txt2img(**given, styles=["emoji-3d"])
    assert styled.image.tobytes() != webui.txt2img(**given).image.tobytes()
    assert styled.info["infotexts"][0].startswith(style["prompt"].replace("{prompt}", "a cat"))


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
    assert webui.util_get_model_names() == ["embedded", "embedded-instruct"]
    assert webui.util_get_current_model() == "embedded"
    assert webui.get_loras() == []
    assert webui.get_prompt_styles()
    assert webui.get_progress()["progress"] == 0


def test_a1111_interrupts_what_is_drawn(server, webui):
    job = server.submit(prompt="a cat", steps=200, sampler="euler")
    server.wait(job["id"], "running")
    webui.interrupt()
    assert server.wait(job["id"])["state"] == "cancelled"


def test_a1111_skips_a_picture_and_goes_on_with_the_next(server, webui):
    job = server.submit(prompt="a cat", steps=60, sampler="euler", count=2, width=128, height=128)
    while not webui.get_progress()["state"]["sampling_step"]:
        assert server.job(job["id"])["state"] in ("queued", "running")
    webui.skip()
    found = server.wait(job["id"])
    assert (found["state"], [picture["number"] for picture in found["pictures"]]) == ("done", [1])


def test_a1111_fills_a_mask_in_four_ways(webui):
    white = PIL.Image.new("RGB", (64, 64), "white")
    mask = PIL.Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    common = {"prompt": "a cat", "width": 64, "height": 64, "seed": 1, "denoising_strength": 0.5}
    drawn = [
        webui.img2img(
            images=[white], mask_image=mask, inpainting_fill=fill, inpaint_full_res=False, **common
        ).image.tobytes()
        for fill in range(4)
    ]
    assert len({*drawn}) >= 3  # around a white part it is all white
    assert drawn[2] != drawn[3]


def test_a1111_draws_once_more_larger(webui):
    found = webui.txt2img(
        prompt="a cat", width=64, height=64, steps=2, enable_hr=True, hr_scale=2, hr_second_pass_steps=2
    )
    assert found.image.size == (128, 128)
    found = webui.txt2img(prompt="a cat", width=64, height=64, steps=2, enable_hr=True, hr_resize_x=96)
    assert found.image.size == (96, 96)


def test_a1111_varies_a_seed_and_says_so(webui):
    given = {"prompt": "a cat", "width": 64, "height": 64, "steps": 1, "seed": 3}
    plain = webui.txt2img(**given)
    varied = webui.txt2img(**given, subseed=9, subseed_strength=0.5)
    assert plain.image.tobytes() != varied.image.tobytes()
    assert (varied.info["subseed"], varied.info["subseed_strength"]) == (9, 0.5)
    assert "Variation seed: 9" in varied.info["infotexts"][0]


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_a1111_brings_a_picture_to_the_size_that_is_drawn(webui, mode):
    wide = PIL.Image.new("RGB", (128, 64), "white")
    wide.paste("black", (0, 0, 32, 64))
    found = webui.img2img(
        images=[wide], prompt="", width=64, height=64, resize_mode=mode, denoising_strength=0.01, steps=1
    ).image.convert("L")
    assert found.size == (64, 64)
    assert (found.getpixel((2, 32)) < 128) == (mode != 1)  # cropped, the black part is gone
    assert (found.getpixel((2, 2)) < 128) == (mode != 1)  # filled up, its column is drawn out


def test_a1111_follows_a_control(webui):
    assert webui.has_controlnet
    assert "edges" in webui.controlnet_model_list()
    assert "canny" in webui.controlnet_module_list()
    square = PIL.Image.new("RGB", (256, 256), "white")
    square.paste("red", (64, 64, 192, 192))
    unit = webuiapi.ControlNetUnit(image=square, module="canny", model="edges")
    given = {"prompt": "a red square", "width": 256, "height": 256, "steps": 4, "seed": 1}
    steered = webui.txt2img(**given, controlnet_units=[unit]).image
    assert steered.tobytes() != webui.txt2img(**given).image.tobytes()
    with pytest.raises(RuntimeError, match=r"unknown module .*depth"):
        webui.txt2img(
            **given, controlnet_units=[webuiapi.ControlNetUnit(image=square, module="depth", model="edges")]
        )


def test_a1111_chooses_a_model_and_is_told_what_is_not_there(webui):
    webui.util_set_model("embedded")
    webui.set_options({"CLIP_stop_at_last_layers": 2})
    assert webui.get_options()["CLIP_stop_at_last_layers"] == 2
    assert webui.txt2img(prompt="a cat", width=64, height=64, steps=1).info["clip_skip"] == 2
    webui.set_options({"CLIP_stop_at_last_layers": 1})
    assert "not served" in str(webui.set_options({"sd_model_checkpoint": "other"}))
    with pytest.raises(RuntimeError, match="sampler Nobody"):
        webui.txt2img(prompt="a cat", sampler_name="Nobody")


def test_a1111_enlarges_several_to_a_size(webui):
    pictures = [PIL.Image.new("RGB", (32, 24), colour) for colour in ("red", "blue")]
    found = webui.extra_batch_images(
        pictures, resize_mode=1, upscaling_resize_w=50, upscaling_resize_h=50, upscaler_1="Nearest"
    )
    assert [image.size for image in found.images] == [(50, 50)] * 2


def test_a1111_answers_whatever_its_clients_ask_at_their_start(webui):
    for ask in (
        webui.get_cmd_flags, webui.get_sd_vae, webui.get_upscalers, webui.get_latent_upscale_modes,
        webui.get_hypernetworks, webui.get_face_restorers, webui.get_realesrgan_models, webui.get_artists,
        webui.get_artist_categories, webui.refresh_checkpoints, webui.get_scripts, webui.get_embeddings,
        webui.skip, webui.controlnet_version,
    ):  # fmt: skip
        ask()
    assert webui.get_memory()["ram"]["total"] > 0


def test_a1111_sees_how_far_a_drawing_is(server, webui):
    job = server.submit(prompt="a cat", steps=200, sampler="euler")["id"]
    while not (found := webui.get_progress())["current_image"]:
        assert server.job(job)["state"] in ("queued", "running")
    assert 0 < found["progress"] < 1
    assert found["eta_relative"] > 0
    assert found["state"]["sampling_steps"] == 200
    webui.interrupt()
