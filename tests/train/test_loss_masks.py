"""The loss of the subject alone: by masks beside the pictures, by what is opaque, by what is cut out."""

import numpy as np
import pytest
import torch
from making import made
from PIL import Image, ImageDraw

from sfumato.data.crops import Crop
from sfumato.data.search import search
from sfumato.diffusion.level import VariancePreserving
from sfumato.diffusion.predict import prediction_named
from sfumato.errors import DataError, SfumatoWarning, UsageError
from sfumato.train.context import StepContext
from sfumato.train.examples import LatentBatch
from sfumato.train.loss_masks import LossMasks
from sfumato.train.objectives import task
from sfumato.train.objectives.denoiser import DenoisingLoss

CPU = torch.device("cpu")
HALF = torch.tensor([[1.0, 1, 0, 0]] * 4)
"""Of 4 × 4 cells, those on the left."""


def half_white(mode="L"):
    """(32, 32), the left half of it white."""
    grey = np.zeros((32, 32), np.uint8)
    grey[:, :16] = 255
    return Image.fromarray(grey).convert(mode)


@pytest.fixture
def folder(tmp_path):
    """A picture of a red square on white, whose mask is its left half."""
    folder = tmp_path / "own"
    folder.mkdir()
    picture = Image.new("RGB", (32, 32), "white")
    ImageDraw.Draw(picture).rectangle((0, 8, 15, 23), fill="red")
    picture.save(folder / "a.png")
    return folder


def masks(folder, kind, outside=0.0):
    return LossMasks(search(folder).chosen(held_out=None, captioned=False), kind, outside, 8, CPU)


def cells(folder, kind, outside=0.0, **crop):
    return masks(folder, kind, outside)([0], [Crop((32, 32), (32, 32), **crop)])[0, 0]


@pytest.mark.parametrize("name", ["a-masklabel.png", "a.mask.png", "a_mask.png", "masks/a.png"])
def test_a_mask_beside_a_picture_says_which_cells_count(folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    half_white().save(folder / name)
    assert torch.equal(cells(folder, "files"), HALF)
    assert torch.allclose(cells(folder, "files", outside=0.25), HALF * 0.75 + 0.25)


def test_a_mask_is_mirrored_and_cropped_with_its_picture(folder):
    half_white().save(folder / "a-masklabel.png")
    assert torch.equal(cells(folder, "files", mirrored=True), HALF.flip(1))
    crop = Crop((32, 32), (32, 16), down=1.0)
    assert masks(folder, "files")([0], [crop]).shape == (1, 1, 2, 4)


def test_a_mask_may_be_smaller_than_its_picture_but_of_no_other_shape(folder):
    half_white().resize((16, 16)).save(folder / "a-masklabel.png")
    assert torch.allclose(cells(folder, "files").round(), HALF)
    Image.new("L", (32, 16), "white").save(folder / "a-masklabel.png")
    with pytest.raises(DataError, match="32×16 pixels: must have the shape of its picture"):
        cells(folder, "files")


def test_what_is_opaque_counts(folder):
    picture = Image.open(folder / "a.png").convert("RGBA")
    picture.putalpha(half_white())
    picture.save(folder / "a.png")
    assert torch.equal(cells(folder, "alpha"), HALF)


def test_what_stands_before_a_plain_background_counts(folder):
    picture = Image.new("RGB", (32, 32), "white")
    ImageDraw.Draw(picture).rectangle((8, 8, 23, 23), fill="red")
    picture.save(folder / "a.png")
    found = cells(folder, "background")
    assert found[1:3, 1:3].min() > 0.8
    assert found[0].max() < 0.1


def test_pictures_without_a_mask_are_named_and_all_of_them_counts(folder):
    Image.new("RGB", (32, 32), "blue").save(folder / "b.png")
    half_white().save(folder / "a-masklabel.png")
    found = masks(folder, "files")
    with pytest.warns(SfumatoWarning, match=r"all counts of b\.png: it has no mask beside it"):
        found.check([(32, 32)] * 2, lambda *_: None)
    both = found([0, 1], [Crop((32, 32), (32, 32))] * 2)[:, 0]
    assert torch.equal(both, torch.stack([HALF, torch.ones(4, 4)]))
    (folder / "a-masklabel.png").unlink()
    with pytest.raises(DataError, match="but every picture has no mask beside it"):
        masks(folder, "files").check([(32, 32)] * 2, lambda *_: None)


def losses(net, batch):
    prediction = prediction_named("epsilon")
    loss = DenoisingLoss(net, VariancePreserving(torch.linspace(0.999, 0.01, 1000)), prediction, "plain", CPU)
    return loss(batch, torch.Generator().manual_seed(1))[0]


def test_the_gradient_is_that_of_the_weighted_mean_and_nothing_outside_has_one():
    """Of Σ m·e² / (C·Σ m) by the network's output it is 2·m·e / (C·Σ m)."""
    out = torch.randn(2, 3, 4, 4, requires_grad=True)
    m = torch.stack([HALF, torch.rand(4, 4)])[:, None]
    batch = LatentBatch(torch.randn(2, 3, 4, 4), torch.zeros(2, 1, 1), cells=m)
    losses(lambda *_: out, batch).sum().backward()
    generator = torch.Generator().manual_seed(1)
    torch.rand(2, generator=generator)
    eps = torch.randn(2, 3, 4, 4, generator=generator)
    expected = 2 * m * (out - eps) / (3 * m.sum((1, 2, 3), keepdim=True))
    torch.testing.assert_close(out.grad, expected.detach())
    assert not out.grad[0, :, :, 2:].any()


def test_a_mask_of_all_is_no_mask():
    out = torch.randn(2, 3, 4, 4)
    given = torch.randn(2, 3, 4, 4), torch.zeros(2, 1, 1)
    whole = losses(lambda *_: out, LatentBatch(*given, cells=torch.ones(2, 1, 4, 4)))
    torch.testing.assert_close(whole, losses(lambda *_: out, LatentBatch(*given)))


def test_a_recipe_learns_the_subject_alone(folder, tiny_base, tmp_path):
    half_white().save(folder / "a-masklabel.png")
    keys = {"folder": str(folder), "base": str(tiny_base), "run": str(tmp_path / "run"), "batch_size": 2}
    keys |= {
        "caption_template": ("a wall",),
        "hold_out": False,
        "unmasked_weight": 0.0,
        "steps": 1,
        "warmup_steps": 0,
    }
    learned = task(made("denoiser", loss_mask="files", precision="float32", **keys), CPU)
    batch = learned.batches(StepContext(0, 0, 1, torch.Generator().manual_seed(0)), 2)
    assert torch.equal(batch.cells[0, 0], torch.tensor([[1.0, 1, 1, 1, 0, 0, 0, 0]] * 8))
    with pytest.raises(UsageError, match=r"consistency. reads no data\.loss_mask"):
        made("consistency", loss_mask="files", **keys)
