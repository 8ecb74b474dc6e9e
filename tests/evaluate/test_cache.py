"""What is kept comes back as it was, under its own name only."""

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.errors import DataError, OutputError
from sfumato.evaluate.cache import PictureCache, Sample, cached_features

CPU = torch.device("cpu")
PIXELS = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)


def test_a_picture_comes_back_bit_for_bit_with_its_seconds(tmp_path):
    album, sample = PictureCache(tmp_path, {"model": "a"}), Sample("a red apple", 7)
    assert not album.path(sample).exists()
    album.keep(sample, PIXELS, 1.25)
    assert np.array_equal(album.pixels(sample), PIXELS)
    assert album.seconds(sample) == 1.25
    assert np.array_equal(PictureCache(tmp_path, {"model": "a"}).pixels(sample), PIXELS)


@pytest.mark.parametrize("other", [Sample("a red apple", 8), Sample("a red apple ", 7)])
def test_another_prompt_or_seed_is_another_picture(tmp_path, other):
    album = PictureCache(tmp_path, {"model": "a"})
    album.keep(Sample("a red apple", 7), PIXELS, 1)
    assert not album.path(other).exists()


@pytest.mark.parametrize("other", [{"model": "b"}, {"model": "a", "steps": 4}])
def test_another_model_or_setting_is_another_album(tmp_path, other):
    assert PictureCache(tmp_path, other).folder != PictureCache(tmp_path, {"model": "a"}).folder


def test_an_album_says_what_its_pictures_are_of(tmp_path):
    album = PictureCache(tmp_path, {"model": "a", "steps": 4})
    assert '"steps": 4' in (album.folder / "identity.json").read_text()


@pytest.mark.parametrize("keep", [0, 30, 60, 70])
def test_a_damaged_picture_is_named(tmp_path, keep):
    album, sample = PictureCache(tmp_path, {}), Sample("x", 0)
    album.keep(sample, PIXELS, 1)
    album.path(sample).write_bytes(album.path(sample).read_bytes()[:keep])
    with pytest.raises(DataError, match="delete it and it is drawn again"):
        album.pixels(sample)


def test_a_picture_that_does_not_say_how_long_it_took_is_not_ours(tmp_path):
    album, sample = PictureCache(tmp_path, {}), Sample("x", 0)
    Image.fromarray(PIXELS).save(album.path(sample))
    with pytest.raises(DataError, match="delete it"):
        album.seconds(sample)


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        PictureCache(tmp_path / "file", {})


def test_vectors_are_worked_out_once_for_the_same_pictures(tmp_path):
    calls = []

    def mean(pictures):
        calls.append(len(pictures))
        return pictures.mean((2, 3))

    vectors = cached_features(tmp_path, "means", mean, CPU)
    pictures = torch.rand(2, 3, 4, 4)
    first = vectors(pictures)
    torch.testing.assert_close(first, mean(pictures))
    assert torch.equal(cached_features(tmp_path, "means", mean, CPU)(pictures.clone()), first)
    assert len(calls) == 2
    vectors(pictures + 1)
    assert len(calls) == 3


def test_a_damaged_file_of_vectors_is_named(tmp_path):
    vectors = cached_features(tmp_path, "means", lambda pictures: pictures.mean((2, 3)), CPU)
    vectors(torch.zeros(1, 3, 2, 2))
    (path,) = (tmp_path / "means").iterdir()
    path.write_bytes(b"damaged")
    with pytest.raises(DataError, match="delete it"):
        vectors(torch.zeros(1, 3, 2, 2))
