"""Frames between those of a latent clip: their flow, number and order, on shapes that move as is known."""

import pytest
import torch

from sfumato.diffusion.frame_interpolation import (
    first_redrawn,
    interpolated,
    optical_flow,
    warped,
    with_frames_between,
)
from sfumato.diffusion.level import Level
from sfumato.diffusion.samplers.ddim import ddim
from sfumato.diffusion.sampling import run


def blob(x, y, side=24, radius=4.0):
    """(1, 2, side, side): two channels of a smooth spot."""
    rows, columns = torch.meshgrid(*2 * [torch.arange(float(side))], indexing="ij")
    spot = torch.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * radius**2))
    return torch.stack([spot, -2 * spot])[None]


def centre(frame):
    """(x, y) of a spot."""
    spot = frame[0].clamp(min=0)
    places = torch.arange(float(spot.shape[-1]))
    return [float((spot.sum(dim) * places).sum() / spot.sum()) for dim in (0, 1)]


def test_a_flow_is_how_far_what_is_seen_has_moved():
    flow = optical_flow(blob(9, 12), blob(13, 10))
    assert flow.shape == (1, 2, 24, 24)
    seen = blob(9, 12)[0, 0] > 0.5
    assert torch.allclose(flow[0, :, seen].mean(1), torch.tensor([4.0, -2.0]), atol=0.3)


def test_what_is_warped_by_whole_cells_is_moved_by_them():
    x = torch.randn(1, 2, 6, 6)
    flow = torch.tensor([1.0, -2.0]).view(1, 2, 1, 1).expand(1, 2, 6, 6)
    assert torch.allclose(warped(x, flow)[..., 2:, :-1], x[..., :-2, 1:], atol=1e-5)


def test_a_frame_in_between_shows_the_shape_half_the_way_and_not_twice():
    clip = torch.stack([blob(8, 12), blob(16, 12)], dim=2)
    middle = with_frames_between(clip, 2, loop=False)[0, :, 1]
    assert centre(middle) == pytest.approx([12, 12], abs=0.4)
    assert middle[0, 12, 12] > 0.85  # the mean of both is 0.61 there
    assert torch.allclose(middle[1], -2 * middle[0], atol=1e-5)


def test_what_changes_without_moving_is_mixed():
    a, b = torch.zeros(1, 2, 16, 16), torch.ones(1, 2, 16, 16)
    found = with_frames_between(torch.stack([a, b], dim=2), 2, loop=False)
    assert torch.allclose(found[:, :, 1], torch.full_like(a, 0.5))


def test_every_power_of_two_goes_evenly():
    clip = torch.stack([blob(10, 12, radius=2), blob(14, 12, radius=2)], dim=2)
    found = with_frames_between(clip, 4, loop=False)
    assert [centre(frame)[0] for frame in found[0].unbind(1)] == pytest.approx([10, 11, 12, 13, 14], abs=0.2)


def test_a_loop_is_closed_and_what_is_drawn_stays():
    clip = torch.stack([blob(8, 12), blob(12, 12), blob(10, 16)], dim=2)
    loop, way = (with_frames_between(clip, 2, loop=loop) for loop in (True, False))
    assert (loop.shape[2], way.shape[2]) == (6, 5)
    assert torch.equal(loop[:, :, ::2], clip)
    assert torch.equal(way[:, :, ::2], clip)
    assert centre(loop[0, :, 5]) == pytest.approx([9, 14], abs=0.4)


def test_what_stands_still_stays_as_it_is():
    clip = blob(10, 10)[:, :, None].repeat(1, 1, 3, 1, 1)
    found = with_frames_between(clip, 2, loop=True)
    assert torch.allclose(found, clip[:, :, :1].expand_as(found), atol=1e-5)


def test_frames_in_between_are_drawn_on_at_the_last_levels_and_the_others_kept():
    levels = [Level(0.1, 0.99, 900.0), Level(0.95, 0.3, 200.0), Level(1.0, 0.0, 0.0)]
    assert first_redrawn(levels) == 1
    assert first_redrawn([levels[0], levels[2]]) == 1
    clip = torch.stack([blob(8, 12), blob(16, 12)], dim=2)

    def drawn():
        return clip
        yield

    asked = []

    def denoise(x, level):
        asked.append((x, level.t))
        return torch.full_like(x, 7.0)

    found = run(interpolated(drawn(), 2, ddim, levels, torch.zeros_like, loop=False), denoise)
    assert [t for _, t in asked] == [200.0]
    assert torch.equal(found[:, :, ::2], clip)
    assert torch.allclose(found[:, :, 1], torch.tensor(7.0))
    due = with_frames_between(clip, 2, loop=False)
    assert torch.allclose(asked[0][0], 0.95 * due)
    few = [levels[0], levels[2]]
    undrawn = run(interpolated(drawn(), 2, ddim, few, torch.zeros_like, loop=False), denoise)
    assert len(asked) == 1
    assert torch.allclose(undrawn, due)


def test_frames_in_between_are_made_on_the_device_of_the_clip():
    clip = torch.zeros(1, 2, 3, 24, 24, device="meta")
    made = with_frames_between(clip, 2, loop=True)
    assert (made.device.type, made.shape) == ("meta", (1, 2, 6, 24, 24))
