"""Clips by Stable Video Diffusion and by ModelScope's equal those of diffusers, on small random models."""

import diffusers
import numpy as np
import PIL.Image
import pytest
import torch
from video_models import PIPELINES

import sfumato
from sfumato import metadata
from sfumato.cli import outcome
from sfumato.edit.clip_picture import clip_pixels
from sfumato.engine import Finished
from sfumato.errors import UsageError
from sfumato.studio import clips

pytestmark = pytest.mark.filterwarnings("ignore::sfumato.errors.SfumatoWarning")
SIZE = {"width": 32, "height": 16}


@pytest.fixture(scope="module")
def drawing(tmp_path_factory):
    """A kind's pipeline and a studio of the same weights."""
    made = {}

    def get(kind):
        if kind not in made:
            folder, pipe = tmp_path_factory.mktemp("drawing") / kind, PIPELINES[kind]()
            pipe.set_progress_bar_config(disable=True)
            pipe.save_pretrained(folder)
            made[kind] = pipe, sfumato.load(folder, device="cpu", dtype="float32"), folder
        return made[kind]

    return get


def photo(width=32, height=16, seed=0):
    grid = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return PIL.Image.fromarray(grid).resize((width, height), PIL.Image.Resampling.BICUBIC)


def latent_of(studio, **fields):
    """The last latent (1, C, F, h, w) of a clip."""
    (picture,) = studio.prepare(**fields)
    events = studio.engine().run([studio.job(picture, 0)])
    return next(event.latent for event in events if isinstance(event, Finished))


def close(ours, theirs, tolerance=1e-4):
    assert ours.shape == theirs.shape
    error = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    assert error <= tolerance, f"off by {error:.2e} of the largest number"


@pytest.mark.parametrize("guidance", [3.0, 1.0])
def test_a_picture_moved_by_stable_video_diffusion_equals_diffusers(drawing, guidance):
    pipe, studio, _ = drawing("svd")
    told = {"num_frames": 4, "fps": 6, "motion_bucket_id": 90, "noise_aug_strength": 0.1}
    theirs = pipe(
        photo(),
        num_inference_steps=4,
        max_guidance_scale=guidance,
        generator=torch.Generator().manual_seed(7),
        output_type="latent",
        **SIZE,
        **told,
    ).frames
    ours = latent_of(
        studio,
        prompt="",
        image=photo(),
        frames=4,
        fps=6,
        motion_amount=90,
        noise_augmentation=0.1,
        steps=4,
        guidance=guidance,
        seed=7,
        **SIZE,
    )
    close(ours.transpose(1, 2), theirs)


def test_a_clip_by_modelscope_equals_diffusers(drawing):
    pipe, studio, _ = drawing("modelscope")
    # ours counts times from 0, and ends at the picture, not at the schedule's first level
    ends = {"set_alpha_to_one": True, "steps_offset": 0}
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, **ends)
    latents = torch.randn(1, 4, 5, 8, 16, generator=torch.Generator().manual_seed(3))
    theirs = pipe(
        "a cat",
        negative_prompt="blurry",
        num_frames=5,
        num_inference_steps=4,
        guidance_scale=9.0,
        latents=latents,
        output_type="latent",
        **SIZE,
    ).frames
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clips, "noise", lambda eps, request: latents)
        ours = latent_of(studio, prompt="a cat", negative="blurry", frames=5, steps=4, seed=3, **SIZE)
    close(ours, theirs)


@pytest.mark.parametrize("size", [(500, 300), (224, 224), (100, 448), (64, 48)], ids=str)
def test_picture_is_squeezed_for_clip_as_diffusers_does(drawing, size):
    pipe, studio, _ = drawing("svd")
    picture = photo(*size)
    shown = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        ours = studio.model.vision(clip_pixels(shown, 224)).pooled
        theirs = pipe._encode_image(picture, "cpu", 1, False)[:, 0]
    close(ours, theirs, 1e-5)


def test_a_moved_picture_is_a_clip_that_carries_its_request(drawing):
    _, studio, _ = drawing("svd")
    given = {"frames": 3, "steps": 2, "seed": 1, "image": photo(), **SIZE}
    video = studio.animate("", **given)
    request = video.request
    assert (len(video), video.fps, video.size) == (3, 7.0, (32, 16))
    assert (request.motion_amount, request.noise_augmentation, request.guidance) == (127, 0.02, 3.0)
    again = studio.animate(request)
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(video.frames, again.frames, strict=True))
    for change in ({"motion_amount": 0}, {"noise_augmentation": 0.9}, {"fps": 20}, {"image": photo(seed=2)}):
        other = studio.animate("", **{**given, **change})
        assert not np.array_equal(video.frames[0].pixels, other.frames[0].pixels), change


def test_a_clip_has_as_many_frames_as_the_model_draws_at_once(drawing):
    _, svd, _ = drawing("svd")
    _, modelscope, _ = drawing("modelscope")
    small = {"steps": 1, "seed": 1, **SIZE}
    assert len(svd.animate("", image=photo(), **small)) == 14
    assert len(modelscope.animate("a cat", **small)) == 16


def test_frames_are_decoded_some_at_a_time_and_agree_with_their_neighbours(drawing):
    _, studio, _ = drawing("svd")
    latent = torch.randn(1, 4, 14, 8, 16, generator=torch.Generator().manual_seed(0))
    whole = studio.decoders.decode(latent)

    def error(parts):
        pixels = torch.cat([studio.decoders.decode(latent[:, :, a])[:, :, b] for a, b in parts], dim=2)
        assert pixels.shape == whole.shape
        return (pixels - whole).abs().mean()

    cut, shared = (error(clips.decoded_parts(14, together)) for together in (False, True))
    assert shared < 0.5 * cut
    assert max(a.stop - a.start for a, _ in clips.decoded_parts(1000, True)) <= 14


def test_more_frames_than_the_model_draws_at_once_are_drawn_in_windows(drawing):
    _, studio, _ = drawing("svd")
    video = studio.animate("", image=photo(), frames=6, context=4, context_overlap=2, steps=2, seed=1, **SIZE)
    assert len(video) == 6


@pytest.mark.parametrize(
    ("kind", "fields", "says"),
    [
        ("svd", {"frames": 4}, "svd moves a picture: it draws clips, not pictures, and needs image"),
        ("svd", {"frames": 4, "image": 1, "motion": "mm"}, "motion is mm: svd draws clips by itself"),
        ("modelscope", {"frames": 4, "motion_amount": 9}, "motion_amount is 9: modelscope is no model that"),
        ("modelscope", {"frames": 4, "noise_augmentation": 0.5}, "noise_augmentation is 0.5: modelscope is"),
        ("modelscope", {"motion_amount": 9}, "motion_amount is given without frames"),
        ("svd", {"frames": 4, "image": 1, "motion_amount": 256}, "motion_amount is 256: must be at most 255"),
    ],
)
def test_what_a_model_of_clips_cannot_do_is_refused_by_name(drawing, kind, fields, says):
    _, studio, _ = drawing(kind)
    if "image" in fields:
        fields = {**fields, "image": photo()}
    with pytest.raises(UsageError, match=says):
        studio.prepare(prompt="a cat", **fields)


def test_a_photo_moves_by_the_command(drawing, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    *_, folder = drawing("svd")
    photo(40, 30).save("photo.png")
    line = ["video", "--image", "photo.png", "--model", str(folder), "--motion-amount", "60", "--seed", "1"]
    small = ["--frames", "3", "--steps", "1", "--width", "32", "--height", "16", "--device", "cpu", "-q"]
    assert outcome.run([*line, *small, "-o", "photo.webp"]) == 0
    request = metadata.read(tmp_path / "photo.webp").request
    assert (request.frames, request.motion_amount, request.image is None) == (3, 60, False)
    assert outcome.run(["video", "--model", str(folder), "-q"]) == 2
