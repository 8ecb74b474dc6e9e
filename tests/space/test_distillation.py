"""A field distilled from clean estimates that are known: shape and colours; stopped and resumed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sfumato.diffusion.level import VariancePreserving, alphas_cumprod, scaled_linear_betas
from sfumato.errors import CheckpointError, NumericsError, UsageError
from sfumato.space import distillation as distilling
from sfumato.space.distillation import VIEWS, FieldDistillation, view_of
from sfumato.space.settings import QUALITIES, check_method
from sfumato.space.volume import fit

SIDE = 16
PATH = VariancePreserving(alphas_cumprod(scaled_linear_betas()))
SETTINGS = replace(QUALITIES["draft"], steps=80, side=20, samples=24, roughness=0.1, guidance=30.0, seed=3)
Y, X = torch.meshgrid(*[torch.arange(SIDE) - SIDE / 2 + 0.5] * 2, indexing="ij")
DISC = (X.hypot(Y) < 5).float()
TARGET = torch.stack([DISC, -DISC])[None]
"""What every picture is taken to be: a disc of the feature (1, −1) in front of zeros."""


def distillation(denoise=lambda x, level: TARGET, student=None, **changed):
    settings = replace(SETTINGS, **changed)
    denoisers = dict.fromkeys(VIEWS, denoise)
    return FieldDistillation("a ball", settings, denoisers, PATH, torch.zeros(2, SIDE, SIDE), student)


def decode(latent):
    """The two features as red and blue, at twice the size."""
    rgb = torch.stack([latent[:, 0], torch.zeros_like(latent[:, 0]), latent[:, 1]], dim=1)
    white = torch.where(latent[:, :1].abs() < 0.1, torch.ones(()), rgb)
    return F.interpolate(white, scale_factor=2)


@pytest.fixture(scope="module", params=["sds", "reconstruction"])
def ball(request):
    found = distillation(objective=request.param)
    for _ in range(SETTINGS.steps):
        found.step()
    return found


def test_a_field_takes_the_shape_that_every_view_asks_for(ball):
    with torch.no_grad():
        for azimuth, elevation in ((0, 0), (77, 20), (180, 40), (300, -10)):
            latent, opacity = ball.latent(ball.view(azimuth, elevation))
            assert opacity.view(SIDE, SIDE)[X.hypot(Y) < 4].mean() > 0.9
            assert opacity.view(SIDE, SIDE)[X.hypot(Y) > 7].mean() < 0.1
            assert (latent - TARGET)[0, :, X.hypot(Y) < 4].abs().mean() < 0.15


def test_its_surface_is_closed_and_has_the_colours_of_the_decoded_views(ball, monkeypatch):
    monkeypatch.setattr(distilling, "fit", lambda *given, **how: fit(*given, **{**how, "steps": 30}))
    mesh = ball.mesh(decode, faces=600)
    radii = np.linalg.norm(mesh.vertices, axis=1)
    assert mesh.is_watertight
    assert radii.max() / radii.min() < 1.6
    red, green, blue = mesh.sampled(500).colours.mean(0)
    assert red > 200
    assert blue < 60
    assert 90 < green < 170  # zero, in the middle of [−1, 1]


@pytest.mark.parametrize("size", [(16, 24), (24, 16)])
def test_pictures_that_are_not_square_are_distilled_and_coloured_too(size, monkeypatch):
    monkeypatch.setattr(distilling, "fit", lambda *given, **how: fit(*given, **{**how, "steps": 30}))
    y, x = torch.meshgrid(*[torch.arange(side) - side / 2 + 0.5 for side in size], indexing="ij")
    disc = (x.hypot(y) < 5).float()
    target = torch.stack([disc, -disc])[None]
    denoisers = dict.fromkeys(VIEWS, lambda x, level: target)
    found = FieldDistillation("a ball", SETTINGS, denoisers, PATH, torch.zeros(2, *size))
    for _ in range(SETTINGS.steps):
        found.step()
    with torch.no_grad():
        opacity = found.latent(found.view(77, 20))[1].view(size)
    assert opacity[x.hypot(y) < 4].mean() > 0.9
    assert opacity[x.hypot(y) > 7].mean() < 0.1
    mesh = found.mesh(decode, faces=600)
    radii = np.linalg.norm(mesh.vertices, axis=1)
    assert mesh.is_watertight
    assert radii.max() / radii.min() < 1.6
    red, _, blue = mesh.sampled(500).colours.mean(0)
    assert red > 200
    assert blue < 60


@pytest.mark.parametrize(
    ("azimuth", "view"),
    [
        (0, "front view"), (44, "front view"), (-44, "front view"), (316, "front view"), (90, "side view"),
        (270, "side view"), (180, "back view"), (-136, "back view"),
    ],
)  # fmt: skip
def test_the_prompt_says_from_which_side_a_camera_looks(azimuth, view):
    assert view_of(azimuth) == view


def whole_and_resumed(path, given):
    """A distillation of six steps, and one that was saved and resumed after three; `given` makes options."""
    whole, first, second = (distillation(**given()) for _ in range(3))
    for _ in range(6):
        whole.step()
    for _ in range(3):
        first.step()
    first.save(path)
    second.resume(path)
    assert second.done == 3
    for _ in range(3):
        second.step()
    return whole, second


def test_a_distillation_that_is_resumed_is_the_same(tmp_path):
    whole, second = whole_and_resumed(tmp_path / "state.safetensors", dict)
    for one, other in zip(whole.field.parameters(), second.field.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


class Learner:
    """A student that knows one latent of all views, by which it answers."""

    def __init__(self):
        self.known = torch.nn.Parameter(torch.zeros(1, 2, SIDE, SIDE))
        self.weights = {"student.known": self.known}

    def __call__(self, x, level, view):
        return self.known.expand_as(x)


def test_a_student_learns_what_is_rendered_and_is_resumed_with_the_field(tmp_path):
    path = tmp_path / "state.safetensors"
    whole, second = whole_and_resumed(path, lambda: {"objective": "vsd", "student": Learner()})
    known, again = whole.student.known, second.student.known
    assert known.abs().max() > 1e-3
    assert torch.allclose(known, again, atol=1e-5)
    assert torch.allclose(whole.field.features, second.field.features, atol=1e-5)


def test_an_estimate_that_is_not_finite_stops_it_with_the_field_as_it_was(tmp_path):
    estimates = iter([TARGET, TARGET * float("nan")])
    stopped = distillation(lambda x, level: next(estimates))
    stopped.step()
    kept = stopped.field.density.detach().clone()
    with pytest.raises(NumericsError, match="the estimate of step 2 is not finite"):
        stopped.step()
    assert torch.equal(stopped.field.density, kept)
    stopped.save(tmp_path / "state.safetensors")
    again = distillation()
    again.resume(tmp_path / "state.safetensors")
    assert torch.equal(again.field.density, kept)


def test_the_state_of_another_distillation_or_a_damaged_one_is_refused(tmp_path):
    path = tmp_path / "state.safetensors"
    distillation().save(path)
    with pytest.raises(UsageError, match="is of another prompt or other settings"):
        distillation(seed=4).resume(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError):
        distillation().resume(path)


def test_a_field_in_which_nothing_formed_says_so():
    empty = distillation()
    empty.field.density.data.fill_(-50.0)
    with pytest.raises(UsageError, match="no surface has formed"):
        empty.mesh(decode, faces=500)


def test_methods_and_qualities_are_checked_by_name():
    with pytest.raises(UsageError, match="method is 'views': must be puff or field"):
        check_method("views", "draft", "sds", 1.0, "inpaint")
    with pytest.raises(UsageError, match="quality is 'best': must be draft or good"):
        check_method("field", "best", "sds", 1.0, "inpaint")
    with pytest.raises(UsageError, match="objective is 'ism': must be sds, sjc, vsd or reconstruction"):
        check_method("field", "draft", "ism", 1.0, "inpaint")
