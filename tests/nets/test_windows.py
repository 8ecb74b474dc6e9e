"""MultiDiffusion: windows, their weights, and what a network is given for each."""

import pytest
import torch
from nets_families import ours_of

from sfumato.diffusion.guidance import Term
from sfumato.diffusion.level import CLEAN, Level
from sfumato.diffusion.sampling import Point
from sfumato.nets.controlnet import ControlNetInputs
from sfumato.nets.denoiser import Conditioning, Denoiser
from sfumato.nets.inputs import SizeConditioning, TextKV
from sfumato.nets.network import AppliedControl
from sfumato.nets.tiling import spans, weights
from sfumato.nets.windows import Windows, in_windows

CPU = torch.device("cpu")
LEVEL = Level(0.8, 0.6, 400.0)


@pytest.mark.parametrize("around", ["", "x", "y", "xy"])
@pytest.mark.parametrize("overlap", [0.125, 0.5, 0.75])
@pytest.mark.parametrize("shape", [(8, 8), (8, 20), (19, 23), (8, 9)])
def test_the_weights_of_windows_are_1_in_all_everywhere(shape, overlap, around):
    total = torch.zeros(1, 1, *shape)
    for window in Windows((8, 8), overlap, around).of(shape):
        window.add(total, torch.ones(1, 1, 8, 8))
    assert torch.allclose(total, torch.ones_like(total), atol=1e-5)


def test_a_side_that_goes_on_at_its_beginning_is_covered_evenly_and_fades_at_every_end():
    found = spans(12, 6, 3, around=True)
    assert found == [(0, 6), (3, 9), (6, 12), (9, 15)]
    shares = weights(found, 1, around=12)
    assert all(torch.allclose(share, shares[0]) for share in shares)
    assert torch.allclose(shares[0], shares[0].flip(0))


@pytest.mark.parametrize("at_once", [1, 4, 100])
def test_a_network_that_sees_no_farther_than_a_cell_answers_as_to_the_whole(at_once):
    x = torch.randn(1, 4, 13, 22)
    rows = [(Point(x, LEVEL, 0), Term(Conditioning(None), weight)) for weight in (1.0, 2.0)]
    asked = []

    def evaluate(rows):
        asked.append(len(rows))
        return [point.x * 2 + term.weight for point, term in rows]

    windows = Windows((8, 8), at_once=at_once)
    found = in_windows(evaluate, rows, windows)
    assert torch.allclose(found[0], 2 * x + 1, atol=1e-5)
    assert torch.allclose(found[1], 2 * x + 2, atol=1e-5)
    assert max(asked) <= max(at_once, len(rows))


def test_rows_of_one_window_still_share_their_point():
    x = torch.randn(1, 4, 8, 16)
    point = Point(x, LEVEL, 3)
    seen = []

    def evaluate(rows):
        seen.extend(rows)
        return [point.x for point, _ in rows]

    rows = [(point, Term(Conditioning(None))), (point, Term(Conditioning(None)))]
    in_windows(evaluate, rows, Windows((8, 8), 0.5))
    assert len({id(point) for point, _ in seen}) == len(seen) / 2
    assert {point.step for point, _ in seen} == {3}


def test_a_window_is_given_its_part_of_pictures_and_told_its_place():
    channels = torch.arange(8 * 12.0).view(1, 1, 8, 12)
    ids = torch.tensor([[64, 96, 0, 0, 64, 96]])
    condition = torch.stack([channels[0]] * 3, 1)
    control = AppliedControl(None, ControlNetInputs(condition, None))
    size = SizeConditioning(torch.zeros(1, 4), ids)
    whole = Conditioning(None, size, channels=channels, controls=(control,), windows=Windows((8, 8)))
    first, *_, last = Windows((8, 8), 0.5).of((8, 12))
    part = last.of(whole, 8)
    assert torch.equal(part.channels, channels[..., 4:])
    assert torch.equal(part.controls[0].inputs.condition, condition[..., 4:])
    assert part.size.ids.tolist() == [[64, 96, 0, 32, 64, 64]]
    assert part.windows is None
    features = AppliedControl(None, (channels, channels[..., ::2, ::2], channels[..., ::4, ::4]))
    found = features.within(last.cut).inputs
    assert [each.shape[-1] for each in found] == [8, 4, 2]
    assert all(torch.equal(each[..., 0], channels[..., :: 8 // each.shape[-1], 4]) for each in found)
    assert first.of(whole, 8).size.ids.tolist() == [[64, 96, 0, 0, 64, 64]]


@pytest.fixture(scope="module")
def denoiser():
    torch.manual_seed(0)
    return Denoiser(ours_of("SD 1.5").eval(), "epsilon", CPU)


def test_windows_of_the_whole_latent_change_nothing(denoiser):
    states, x = torch.randn(1, 5, 24), torch.randn(1, 4, 16, 16)
    plain, whole = (denoiser.condition(states, windows=each) for each in (None, Windows((16, 16))))
    one, other = (denoiser([(Point(x, LEVEL, 0), Term(each))])[0] for each in (plain, whole))
    assert torch.equal(one, other)


def test_a_denoiser_averages_its_estimates_in_windows(denoiser):
    states, x = torch.randn(1, 5, 24), torch.randn(1, 4, 16, 24)
    windows = Windows((16, 16), 0.5)
    plain, split = (denoiser.condition(states, windows=each) for each in (None, windows))
    found = denoiser([(Point(x, LEVEL, 0), Term(split))])[0]
    expected = torch.zeros_like(x)
    for window in windows.of(x.shape):
        window.add(expected, denoiser([(Point(window.cut(x), LEVEL, 0), Term(plain))])[0])
    assert torch.allclose(found, expected, atol=1e-5)


def test_seamless_windows_roll_with_the_latent(denoiser):
    states, x = torch.randn(1, 5, 24), torch.randn(1, 4, 16, 32)
    conditioning = denoiser.condition(states, windows=Windows((16, 16), 0.5, "xy"), seamless="xy")

    def estimate(x):
        return denoiser([(Point(x, LEVEL, 0), Term(conditioning))])[0]

    # by the distance of two windows along x, where there are several; by any even number of cells along y
    assert torch.allclose(estimate(x.roll((8, 8), (2, 3))), estimate(x).roll((8, 8), (2, 3)), atol=1e-4)


def test_rows_of_different_windows_and_edges_share_no_batch(denoiser):
    states, x = torch.randn(1, 5, 24), torch.randn(1, 4, 16, 16)
    point = Point(x, CLEAN, 0)
    kinds = [{}, {"windows": Windows((8, 8))}, {"seamless": "x"}, {"seamless": "xy"}]
    groups = [denoiser.group((point, Term(denoiser.condition(states, **kind)))) for kind in kinds]
    assert len(set(groups)) == 4
    assert isinstance(denoiser.condition(states).context, TextKV)


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("frames", [5, 16, 17, 40])
def test_the_weights_of_windows_of_frames_are_1_in_all_in_every_step(frames, loop):
    windows = Windows((8, 8), frames=16, frame_overlap=4, loop=loop)
    shape = (1, 1, frames, 8, 12)
    for step in range(4):
        total = torch.zeros(shape)
        for window in windows.of(shape, step):
            window.add(total, torch.ones(1, 1, min(16, frames), 8, 8))
        assert torch.allclose(total, torch.ones(shape), atol=1e-5)


def test_windows_of_a_loop_go_on_at_the_first_frame_and_begin_elsewhere_in_every_step():
    windows = Windows((8, 8), frames=16, frame_overlap=4, loop=True)
    begins = {int(windows.of((1, 1, 16, 8, 8), step)[0].places[0][0]) for step in range(4)}
    assert begins == {0, 8, 4, 12}
    last = windows.of((1, 1, 40, 8, 8))[-1].places[0]
    assert last[0] < 40 <= last[0] + 15
    assert last[-1] == (last[0] + 15) % 40


def test_a_clip_without_longer_windows_is_evaluated_whole():
    windows = Windows((8, 8), frames=16)
    assert not windows.split((1, 4, 16, 8, 8))
    assert windows.split((1, 4, 17, 8, 8))
    assert not windows.split((1, 4, 8, 8))
    assert Windows((8, 8), loop=True).split((1, 4, 4, 8, 8))


@pytest.mark.parametrize("at_once", [1, 100])
def test_a_network_that_sees_no_farther_than_a_frame_answers_as_to_the_whole_clip(at_once):
    x = torch.randn(1, 4, 30, 6, 10)
    rows = [(Point(x, LEVEL, 3), Term(Conditioning(None), 1.0))]
    windows = Windows((6, 6), at_once=at_once, frames=8, frame_overlap=2, loop=True)
    (found,) = in_windows(lambda rows: [point.x * 2 for point, _ in rows], rows, windows)
    assert torch.allclose(found, 2 * x, atol=1e-5)


def test_what_lies_over_every_frame_alike_is_cut_as_a_picture():
    window = Windows((8, 8), frames=4, frame_overlap=1).of((1, 1, 10, 8, 12))[-1]
    picture, clip = torch.arange(96.0).view(1, 1, 8, 12), torch.arange(960.0).view(1, 1, 10, 8, 12)
    assert torch.equal(window.cut(picture), picture[..., 4:])
    assert torch.equal(window.cut(clip), clip[:, :, 6:, :, 4:])
