"""A second pass: the first one's latent enlarged, noisy again, and drawn on from there."""

import torch
from paths import PATHS

from sfumato.diffusion.samplers import SAMPLERS
from sfumato.diffusion.sampling import Point, second_pass
from sfumato.diffusion.spacing import trailing

SMALL = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def doubled(x):
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_it_begins_with_the_enlarged_latent_and_fresh_noise_at_its_level_and_counts_on_from_there():
    levels, asked, drawn = trailing(PATHS["scaled-linear"], 8), [], []

    def first():
        yield Point(SMALL, levels[0], 0)
        return SMALL

    def noise(like):
        generator = torch.Generator().manual_seed(1 + len(drawn))
        drawn.append(torch.randn(like.shape, generator=generator, dtype=like.dtype))
        return drawn[-1]

    sampling = second_pass(first(), doubled, SAMPLERS["ddim"].sample, levels, noise, 5)
    point = next(sampling)
    try:
        while True:
            asked.append(point)
            point = sampling.send(torch.full_like(point.x, 0.7))
    except StopIteration as done:
        last = done.value
    assert [each.step for each in asked] == [0, 5, 6, 7]
    assert [each.level for each in asked] == [levels[0], *levels[5:8]]
    (eps,) = drawn
    torch.testing.assert_close(asked[1].x, levels[5].a * doubled(SMALL) + levels[5].s * eps)
    torch.testing.assert_close(last, torch.full_like(doubled(SMALL), 0.7))
