"""Programs that draw clips with diffusers give the same clips here; small random models."""

import diffusers
import numpy as np
import PIL.Image
import pytest
import torch
from both import apart, run
from diffusers.utils import export_to_gif as their_gif
from video_models import modelscope as made_modelscope
from video_models import stable_video_diffusion

from sfumato import animation, compat
from sfumato.compat import utils
from sfumato.errors import UsageError

pytestmark = pytest.mark.filterwarnings("ignore::sfumato.errors.SfumatoWarning")


def photo(seed=0, size=(32, 16)):
    grid = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return PIL.Image.fromarray(grid).resize(size, PIL.Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def svd(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos") / "svd"
    stable_video_diffusion(num_frames=3, sample_size=8).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def modelscope(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos") / "modelscope"
    made_modelscope().save_pretrained(folder)
    return folder


MOVED = """
import torch
from diffusers import StableVideoDiffusionPipeline

pipe = StableVideoDiffusionPipeline.from_pretrained(MODEL)
result = pipe(
    IMAGE, height=16, width=32, num_inference_steps=4, generator=torch.manual_seed(5), **MORE
).frames
"""


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"num_frames": 4, "fps": 10, "motion_bucket_id": 20, "noise_aug_strength": 0.2},
        {"min_guidance_scale": 2.0, "max_guidance_scale": 5.0},
        {"max_guidance_scale": 1.0},
        {"num_videos_per_prompt": 2},
        {"latents": torch.randn(1, 3, 4, 8, 16, generator=torch.Generator().manual_seed(1))},
    ],
    ids=["defaults", "told", "guidance", "unguided", "two", "latents"],
)
def test_a_program_that_moves_a_picture_gives_the_same_clip(svd, more):
    off = apart(MOVED, svd, IMAGE=photo(size=(40, 50)), MORE={**more, "output_type": "latent"})
    assert off <= 1e-4


@pytest.mark.parametrize("form", ["np", "pt", "pil"])
@pytest.mark.parametrize("chunk", [None, 2])
def test_frames_of_moved_pictures_come_in_diffusers_forms(svd, form, chunk):
    more = {"output_type": form, "decode_chunk_size": chunk}
    images = [photo(1), photo(2)]
    theirs, ours = (
        run(MOVED, svd, library, IMAGE=images, MORE=more) for library in ("diffusers", "sfumato.compat")
    )
    if form == "pil":
        assert [len(clip) for clip in ours] == [len(clip) for clip in theirs] == [3, 3]
        theirs, ours = (
            np.array([[np.array(f) for f in clip] for clip in clips]) / 255 for clips in (theirs, ours)
        )
    assert ours.shape == theirs.shape
    assert abs(np.asarray(ours) - np.asarray(theirs)).max() <= (0.005 if form == "pil" else 1e-4)


WRITTEN = """
import torch
from diffusers import TextToVideoSDPipeline

pipe = TextToVideoSDPipeline.from_pretrained(MODEL)
result = pipe(
    ["a cat", "a dog"], negative_prompt=["blurry", "grey"], height=16, width=32, num_frames=3,
    num_inference_steps=4, generator=torch.manual_seed(5), output_type=FORM,
).frames
result = torch.as_tensor(result)
"""


@pytest.mark.parametrize("form", ["latent", "np", "pt"])
def test_a_program_that_draws_clips_from_texts_gives_the_same(modelscope, form):
    assert apart(WRITTEN, modelscope, FORM=form) <= 1e-4


def test_the_pipeline_of_clips_is_chosen_by_the_model(svd, modelscope):
    chosen = compat.DiffusionPipeline.from_pretrained(svd)
    assert type(chosen) is compat.StableVideoDiffusionPipeline
    assert type(compat.DiffusionPipeline.from_pretrained(modelscope)) is compat.TextToVideoSDPipeline
    with pytest.raises(UsageError, match="StableDiffusionPipeline does not draw with modelscope"):
        compat.StableDiffusionPipeline.from_pretrained(modelscope)
    again = compat.StableVideoDiffusionPipeline(**chosen.components)
    assert again.unet is chosen.unet
    assert again.image_encoder is chosen.image_encoder


def test_networks_of_clips_answer_as_those_of_diffusers(svd):
    ours = compat.StableVideoDiffusionPipeline.from_pretrained(svd)
    theirs = diffusers.StableVideoDiffusionPipeline.from_pretrained(svd)
    x, states = torch.randn(2, 3, 8, 8, 16), torch.randn(2, 1, 16)
    ids = torch.tensor([[6.0, 127, 0.02]] * 2)
    with torch.no_grad():
        answers = [pipe.unet(x, 0.3, states, ids).sample for pipe in (ours, theirs)]
        assert torch.allclose(*answers, atol=1e-4)
        pixels = [pipe.vae.decode(x[:, :, :4].flatten(0, 1), num_frames=3).sample for pipe in (ours, theirs)]
        assert torch.allclose(*pixels, atol=1e-4)


def test_a_moved_picture_shows_its_callback_frames_first(svd):
    seen = []

    def callback(pipe, step, time, tensors):
        seen.append(tensors["latents"].shape)
        return tensors

    pipe = compat.StableVideoDiffusionPipeline.from_pretrained(svd)
    given = {"height": 16, "width": 32, "num_inference_steps": 2, "output_type": "latent"}
    pipe(photo(), callback_on_step_end=callback, **given)
    assert seen == [(1, 3, 4, 8, 16)] * 2
    for wrong in ({"num_frames": 0}, {"fps": "fast"}, {"decode_chunk_size": 0, "output_type": "np"}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            pipe(photo(), **{**given, **wrong})
    with pytest.raises(UsageError, match="image must be a PIL image"):
        pipe("photo.png", **given)


def test_frames_are_exported_as_diffusers_does(tmp_path):
    frames = [photo(seed, (64, 48)) for seed in range(3)]
    ours = animation.read(utils.export_to_gif(frames, tmp_path / "ours.gif", fps=5))
    theirs = animation.read(their_gif(frames, str(tmp_path / "theirs.gif"), fps=5))
    assert (len(ours.frames), ours.seconds, ours.loop) == (3, theirs.seconds, True)
    assert utils.export_to_gif(frames).endswith(".gif")
    path = utils.export_to_video(
        [np.asarray(each) / 255 for each in frames], str(tmp_path / "clip.mp4"), fps=5
    )
    assert len(animation.read(path).frames) == 3
    with pytest.raises(UsageError, match="fps is 0"):
        utils.export_to_gif(frames, tmp_path / "no.gif", fps=0)
