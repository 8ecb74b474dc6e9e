"""Training on pictures of one's own, whatever they lie in: shapes, words, caches, and runs cut in two."""

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from making import changed, made
from PIL import Image

from sfumato import checkpoint, weights
from sfumato.data import shards
from sfumato.data.folder import FolderDataset
from sfumato.data.search import search
from sfumato.errors import CheckpointError, DataError, OutputError, SfumatoWarning, UsageError
from sfumato.formats import READABLE
from sfumato.train import cache
from sfumato.train.context import StepContext, seed_of
from sfumato.train.examples import INDEX
from sfumato.train.loop import train
from sfumato.train.objectives import task
from sfumato.train.recipe import MODEL
from sfumato.train.state import FILE

CPU = torch.device("cpu")
NOTHING = torch.zeros(1, 1, 1, 1)
RECIPE = {
    "steps": 8, "batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 2, "decay_steps": 2,
    "ema_decays": (0.9,), "precision": "float32", "checkpoint_every": 100, "log_every": 3,
}  # fmt: skip


def as_sidecars(folder, out):
    shutil.copytree(folder, out)


def as_metadata(folder, out):
    shutil.copytree(folder, out, ignore=shutil.ignore_patterns("*.txt"))
    for split in ("train", "test"):
        lines = [
            json.dumps({"file_name": path.with_suffix(".png").name, "text": path.read_text().splitlines()})
            for path in sorted((folder / split).glob("*.txt"))
        ]
        (out / split / "metadata.jsonl").write_text("\n".join(lines))


def as_shards(folder, out):
    shards.pack(search(folder), out, shard_bytes=500)


@pytest.fixture
def recipe(own_pictures, tiny_base, tmp_path):
    return made(
        "denoiser", folder=str(own_pictures), base=str(tiny_base), run=str(tmp_path / "run"), **RECIPE
    )


def prepared(recipe):
    """The task of a recipe, without what it makes of its result."""
    return replace(task(recipe, CPU), show=lambda state, path: None, finish=lambda state, folder: {})


def trained(recipe, **changes):
    """Everything that is left of a run."""
    recipe = changed(recipe, **changes)
    assert train(prepared(recipe), recipe, CPU).done
    return weights.read(Path(recipe.run) / FILE)


def are_equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def base_of(recipe):
    return checkpoint.load(recipe.base, dtype=torch.float32)


def moments(recipe, steps, parts=1):
    for step in range(steps):
        for part in range(parts):
            seed = seed_of(recipe.seed, step, part)
            yield StepContext(step, part, parts, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", [as_sidecars, as_metadata, as_shards])
def test_a_denoiser_learns_from_pictures_in_anything(kind, recipe, own_pictures, tmp_path):
    kind(own_pictures, tmp_path / "data")
    recipe = changed(recipe, folder=str(tmp_path / "data"))
    learned = task(recipe, CPU)
    batches = [learned.batches(context, 4) for context in moments(recipe, 10)]
    assert {tuple(batch.x0.shape) for batch in batches} == {(4, 4, 8, 8), (4, 4, 6, 10), (4, 4, 10, 6)}
    assert {batch.states.shape for batch in batches} == {(4, 77, 256)}
    assert train(learned, recipe, CPU).done
    assert checkpoint.load(f"{recipe.run}/{MODEL}").native_size == (32, 32)


def test_without_buckets_all_pictures_are_cropped_to_squares(recipe):
    recipe = changed(recipe, max_aspect_ratio=1.0, resolution=16)
    batch = task(recipe, CPU).batches
    assert {tuple(batch(context, 4).x0.shape[2:]) for context in moments(recipe, 6)} == {(4, 4)}


@pytest.mark.parametrize(
    "changes",
    [
        {"crop": "random", "horizontal_flip": True},
        {"shuffle_tags": True, "tag_dropout": 0.3, "caption_template": ("{caption}", "photo of {caption}")},
        {"gradient_accumulation": 2},
    ],
    ids=str,
)
def test_a_run_resumed_in_the_middle_of_an_epoch_is_the_unbroken_one(recipe, changes, tmp_path):
    recipe = changed(recipe, **changes)
    unbroken = trained(recipe)
    cut = changed(recipe, run=str(tmp_path / "cut"))
    part = changed(cut, steps=6, decay_steps=0)  # an epoch is five batches
    train(prepared(part), part, CPU)
    assert are_equal(trained(cut), unbroken)
    assert not are_equal(trained(recipe, run=str(tmp_path / "other"), seed=1), unbroken)


def test_two_parts_of_a_step_are_its_whole(recipe):
    recipe = changed(recipe, caption_template="x")
    batch = task(recipe, CPU).batches
    for step in range(6):
        whole = batch(StepContext(step, 0, 1, torch.Generator()), 4).x0
        halves = [batch(StepContext(step, part, 2, torch.Generator()), 2).x0 for part in range(2)]
        assert torch.equal(torch.cat(halves), whole)


def test_a_caption_stays_with_its_picture(recipe):
    recipe = changed(recipe, caption_dropout=0.0)
    own = task(recipe, CPU)
    found = search(Path(recipe.data.folder))
    states = cache.CaptionEncoder(base_of(recipe), CPU)
    for context in moments(recipe, 5):
        batch = own.batches(context, 4)
        for row, said in zip(own.batches.order(context, 4)[1], batch.states, strict=True):
            captions = [one for one in found.pictures if not one.held_out][row].captions
            assert any(torch.allclose(said, each, atol=1e-2) for each in states(captions)[0])


def test_texts_are_dropped_as_often_as_asked(recipe):
    recipe = changed(recipe, caption_dropout=0.5, batch_size=10)
    batch = task(recipe, CPU).batches
    empty = cache.CaptionEncoder(base_of(recipe), CPU)([""])[0]
    said = torch.cat([batch(context, 10).states for context in moments(recipe, 20)])
    null_text = (said - empty).abs().amax((1, 2)) < 1e-2
    assert 70 < int(null_text.sum()) < 130


def test_kept_latents_are_those_that_fresh_ones_would_be(recipe):
    kept = task(recipe, CPU).batches
    fresh = replace(kept, latents=cache.LatentEncoder(kept.dataset, base_of(recipe), CPU, torch.float32))
    for context in moments(recipe, 5):
        torch.testing.assert_close(kept(context, 4).x0, fresh(context, 4).x0, atol=2e-3, rtol=2e-3)


def test_crops_and_mirror_images_differ_by_step_and_are_not_kept(recipe):
    recipe = changed(recipe, crop="random", horizontal_flip=True)
    shown = []
    batches = replace(task(recipe, CPU).batches, latents=lambda rows, crops: shown.extend(crops) or NOTHING)
    for context in moments(recipe, 10):
        batches(context, 4)
    assert {view.mirrored for view in shown} == {True, False}
    assert len({view.across for view in shown}) > 20
    assert not list(Path(recipe.run).glob(cache.LATENTS.format("*")))


@pytest.mark.parametrize("file", [cache.LATENTS.format("32x32-000"), cache.TEXTS])
def test_caches_are_used_again_made_again_for_other_data_and_mended(recipe, file, own_pictures, tmp_path):
    data = shutil.copytree(own_pictures, tmp_path / "data")
    recipe = changed(recipe, folder=str(data))
    path = Path(recipe.run) / file
    task(recipe, CPU)
    first = path.read_bytes()
    with pytest.MonkeyPatch.context() as patched:
        for name in ("nets.vae.AutoencoderKL.encode", "nets.text.CLIPText.forward"):
            patched.setattr(f"sfumato.{name}", None)
        task(recipe, CPU)
    path.write_bytes(first[:-9])
    task(recipe, CPU)
    assert path.read_bytes() == first
    Image.new("RGB", (40, 40), "black").save(data / "train" / "00-square.png")
    (data / "train" / "00-square.txt").write_text("a black wall")
    with pytest.warns(SfumatoWarning, match="has changed since"):
        task(recipe, CPU)
    assert path.read_bytes() != first
    assert weights.read(path).keys() == weights.header(path).tensors.keys()


def test_latents_that_were_encoded_before_a_kill_are_not_encoded_again(recipe, monkeypatch):
    monkeypatch.setattr(cache, "LATENTS_PER_FILE", 3)
    whole = task(recipe, CPU).batches.latents
    files = sorted(Path(recipe.run).glob(cache.LATENTS.format("*")))
    assert len(files) == 2 + 3 + 3  # of 6, 7 and 7 pictures of a shape
    for path in files[3:]:
        path.unlink()
    shown = []
    load = FolderDataset.load
    monkeypatch.setattr(
        FolderDataset, "load", lambda self, rows, crops: shown.extend(rows) or load(self, rows, crops)
    )
    again = task(recipe, CPU).batches.latents
    assert len(shown) == 20 - 9
    assert again.of_size.keys() == whole.of_size.keys()
    assert all(torch.equal(again.of_size[size], whole.of_size[size]) for size in whole.of_size)


def test_text_states_are_kept_unless_they_are_many_or_the_recipe_says_no(recipe, monkeypatch):
    assert isinstance(task(recipe, CPU).batches.states, cache.CachedCaptions)
    fresh = changed(recipe, cache_text_embeddings=False)
    assert isinstance(task(fresh, CPU).batches.states, cache.CaptionEncoder)
    monkeypatch.setattr("sfumato.train.examples.MAX_TEXT_BYTES", 1000)
    assert isinstance(task(recipe, CPU).batches.states, cache.CaptionEncoder)
    monkeypatch.setattr("sfumato.train.cache.MAX_TEXT_BYTES", 1000)
    (Path(recipe.run) / cache.TEXTS).unlink()
    assert isinstance(
        task(changed(recipe, cache_text_embeddings=True), CPU).batches.states, cache.CachedCaptions
    )
    assert not (Path(recipe.run) / cache.TEXTS).exists()


def test_text_states_of_icons_are_the_same_kept_or_fresh(tiny_data, tiny_base, tmp_path):
    recipe = made("denoiser", folder=str(tiny_data), base=str(tiny_base), run=str(tmp_path), **RECIPE)
    kept, fresh = (
        task(changed(recipe, cache_text_embeddings=cached), CPU).batches for cached in (True, False)
    )
    for context in moments(recipe, 3):
        torch.testing.assert_close(kept(context, 4).states, fresh(context, 4).states, atol=2e-3, rtol=2e-3)
        assert torch.equal(kept(context, 4).x0, fresh(context, 4).x0)


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl"])
def test_every_published_family_learns_from_pictures_of_every_shape(name, family, recipe):
    recipe = changed(recipe, base=str(family(name)), prompts=("a red wall",), steps=3, decay_steps=0)
    assert train(task(recipe, CPU), recipe, CPU).done
    assert Image.open(Path(recipe.run) / "samples" / "last.webp").size[1] == 16
    assert checkpoint.load(f"{recipe.run}/{MODEL}").kind == checkpoint.load(recipe.base).kind


def test_sdxl_is_told_how_each_picture_was_framed_and_nothing_by_zeros(family, recipe):
    recipe = changed(
        recipe,
        base=str(family("sdxl")),
        crop="random",
        horizontal_flip=True,
        caption_dropout=0.5,
        resolution=32,
    )
    batches = task(recipe, CPU).batches
    null_text = 0
    for context in moments(recipe, 6):
        (w, h), rows = batches.order(context, 4)
        batch = batches(context, 4)
        assert batch.added.pooled.shape == (4, 20)
        for row, ids in zip(rows, batch.added.ids.tolist(), strict=True):
            width, height = batches.dataset.sizes[row]
            assert ids[:2] == [height, width]
            assert ids[4:] == [h, w]
            scale = max(w / width, h / height)
            assert 0 <= ids[2] <= round(height * scale) - h
            assert 0 <= ids[3] <= round(width * scale) - w
        zeros = batch.states.abs().amax((1, 2)) == 0
        assert torch.equal(zeros, batch.added.pooled.abs().amax(1) == 0)
        null_text += int(zeros.sum())
    assert 3 < null_text < 21


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("inpaint", "an inpainting model"),
        ("instruct", "an instruction"),
        ("refiner", "refiner"),
        ("lcm", "a student, which reads the guidance"),
    ],
)
def test_a_model_that_is_told_more_than_captions_is_refused(name, said, family, recipe):
    with pytest.raises(UsageError, match=said):
        task(changed(recipe, base=str(family(name))), CPU)


@pytest.fixture
def autoencoder(own_pictures, tiny_base, tmp_path):
    return made(
        "autoencoder",
        folder=str(own_pictures),
        base=str(tiny_base),
        run=str(tmp_path / "run"),
        **RECIPE,
    )


@pytest.mark.parametrize("kind", [as_metadata, as_shards])
def test_an_autoencoder_learns_from_squares_of_pictures_in_anything(
    kind, autoencoder, own_pictures, tmp_path
):
    kind(own_pictures, tmp_path / "data")
    recipe = changed(autoencoder, folder=str(tmp_path / "data"), resolution=16)
    learned = task(recipe, CPU)
    batches = [learned.batches(context, 4) for context in moments(recipe, 5)]
    assert {tuple(x.shape) for x in batches} == {(4, 3, 16, 16)}
    assert all(x.abs().max() <= 1 for x in batches)
    outcome = train(learned, recipe, CPU)
    assert {"psnr_held_out", "psnr_seen"} <= outcome.metrics.keys()


def test_an_autoencoder_without_held_out_pictures_has_no_figure_of_them(autoencoder, own_pictures):
    recipe = changed(autoencoder, folder=f"{own_pictures}/train", steps=1, warmup_steps=0, decay_steps=0)
    assert not any(one.held_out for one in search(own_pictures / "train").pictures)
    figures = train(task(recipe, CPU), recipe, CPU).metrics
    assert "psnr_seen" in figures
    assert "psnr_held_out" not in figures


def test_a_tiny_autoencoder_learns_from_pictures_of_ones_own(autoencoder, own_pictures):
    recipe = made(
        "tiny", **{**RECIPE, "folder": str(own_pictures), "base": autoencoder.base, "run": autoencoder.run,
                   "steps": 1, "decay_steps": 0, "warmup_steps": 0, "start": "scratch", "crop_size": 16},
    )  # fmt: skip
    learned = task(recipe, CPU)
    assert {learned.batches(context, 4).shape for context in moments(recipe, 3)} == {(4, 3, 16, 16)}


def test_a_run_that_has_no_place_is_an_error(recipe):
    (Path(recipe.run).parent / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        task(changed(recipe, run=f"{Path(recipe.run).parent}/file/run"), CPU)


def test_an_autoencoder_resumed_in_the_middle_of_an_epoch_is_the_unbroken_one(autoencoder, tmp_path):
    unbroken = trained(autoencoder)
    cut = changed(autoencoder, run=str(tmp_path / "cut"))
    part = changed(cut, steps=3, decay_steps=0)
    train(prepared(part), part, CPU)
    assert are_equal(trained(cut), unbroken)


def test_pictures_without_words_teach_an_autoencoder_and_a_denoiser_that_needs_none(
    autoencoder, recipe, own_pictures, tmp_path
):
    data = str(shutil.copytree(own_pictures, tmp_path / "data", ignore=shutil.ignore_patterns("*.txt")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert task(changed(autoencoder, folder=data), CPU).net is not None
        assert task(changed(recipe, folder=data, caption_template="a wall"), CPU).net is not None
    with (
        pytest.warns(SfumatoWarning, match="22 pictures without a caption are left out"),
        pytest.raises(DataError, match="none of 22 pictures has a caption"),
    ):
        task(changed(recipe, folder=data), CPU)


def test_what_is_left_out_is_said_once_and_training_goes_on(recipe, own_pictures, tmp_path):
    data = shutil.copytree(own_pictures, tmp_path / "data")
    (data / "train" / "00-square.txt").unlink()
    (data / "train" / "01-wide.png").write_bytes(b"\x89PNG")
    with pytest.warns(SfumatoWarning) as caught:
        trained(changed(recipe, folder=str(data)))
    said = {str(one.message).split(": ", 1)[1] for one in caught}
    assert said == {
        f"1 broken picture is left out: train/01-wide.png is not a {READABLE} picture",
        "1 picture without a caption is left out: train/00-square.png",
    }
    assert (Path(recipe.run) / INDEX).is_file()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"resolution": 30}, "resolution = 30 must be a multiple of 4"),
        ({"bucket_step": 6}, "bucket_step = 6 must be a multiple of 4"),
        ({"folder": "nowhere"}, "cannot read the folder nowhere"),
    ],
)
def test_what_does_not_fit_is_an_error(changes, said, recipe):
    with pytest.raises((UsageError, DataError), match=said):
        task(changed(recipe, **changes), CPU)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"caption_dropout": 2.0}, "caption_dropout is 2.0: must be .*at most 1"),
        ({"caption_template": ["a {name}"]}, r"\{name\} is not known"),
        ({"caption_template": []}, r"caption_template is \(\): must"),
        ({"crop": "centre"}, "did you mean 'center'"),
        ({"max_aspect_ratio": 0.5}, "max_aspect_ratio is 0.5: must be .*at least 1"),
        ({"resolution": -1}, "resolution is -1: must be .*at least 0"),
        ({"cache_text_embeddings": True, "shuffle_tags": True}, "cache_text_embeddings is not possible"),
        ({"tag_dropout": "often"}, "tag_dropout is 'often': must be a valid number"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(changes, said):
    with pytest.raises(UsageError, match=said):
        made("denoiser", **{"folder": "x", "run": "y", **changes})


def test_a_key_that_the_network_has_not_is_told_before_pictures_are_looked_at(recipe):
    recipe = changed(recipe, start="scratch", network={"foo": 3})
    with pytest.raises(CheckpointError, match=r"^\[network\]: unknown key 'foo'; known: addition_embed_type"):
        task(recipe, CPU)
    assert not (Path(recipe.run) / INDEX).exists()
