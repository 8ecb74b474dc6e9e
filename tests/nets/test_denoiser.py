"""The denoiser: what a conditioning can carry, what rows may share a batch, and networks of other kinds."""

import math
from dataclasses import replace

import diffusers
import pytest
import torch
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from nets_families import assert_close, ours_of, pair

from sfumato.diffusion.guidance import ClassifierFreeGuidance, Term
from sfumato.diffusion.level import (
    Level,
    VarianceExploding,
    VariancePreserving,
    alphas_cumprod,
    scaled_linear_betas,
)
from sfumato.diffusion.samplers import SAMPLERS
from sfumato.diffusion.sampling import Point, SeededNoise
from sfumato.diffusion.spacing import spacing_named
from sfumato.engine import Engine, Finished, Job
from sfumato.nets.denoiser import Denoiser
from sfumato.nets.inputs import ImageKV, SizeConditioning
from sfumato.nets.network import AppliedControl, AppliedImage, Residuals

CPU = torch.device("cpu")
PATH = VariancePreserving(alphas_cumprod(scaled_linear_betas()))


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pooled_width(config):
    return config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim


def points(count, channels=4, size=8):
    return [
        Point(randn(1, channels, size, size, seed=i), PATH.level(100.0 + 250 * i), 0) for i in range(count)
    ]


def alone(denoiser, rows):
    return [denoiser([row])[0] for row in rows]


def agree(denoiser, rows, tolerance=1e-5):
    """Rows in one batch equal themselves alone."""
    assert len({denoiser.group(row) for row in rows}) == 1
    for together, single in zip(denoiser(rows), alone(denoiser, rows), strict=True):
        assert_close(together, single, tolerance)


def test_texts_of_different_lengths_share_a_batch():
    net = ours_of("SD 1.5")
    denoiser = Denoiser(net, "epsilon", CPU)
    width = net.config.context[0]
    texts = [denoiser.condition(randn(1, length, width, seed=length)) for length in (77, 154, 20, 231)]
    first, second, third = points(3)
    agree(denoiser, [(first, Term(texts[0])), (first, Term(texts[1])), (second, Term(texts[2]))])
    agree(denoiser, [(second, Term(texts[3])), (third, Term(texts[0]))])


@pytest.mark.parametrize("family", ["SDXL base", "LCM Dreamshaper"])
def test_rows_that_are_told_other_sizes_or_scales_share_a_batch(family):
    net = ours_of(family)
    denoiser = Denoiser(net, "epsilon", CPU)
    width = net.config.context[-1]

    def condition(seed):
        size = guidance = None
        if net.reads_guidance:
            guidance = 2.0 + seed
        else:
            pooled = net.config.projection_class_embeddings_input_dim - 6 * net.config.addition_time_embed_dim
            size = SizeConditioning(
                randn(1, pooled, seed=seed), torch.tensor([[64, 64, 0, 0, 64, 64 + seed]])
            )
        return denoiser.condition(randn(1, 9, width, seed=seed), size, guidance)

    first, second = points(2)
    agree(denoiser, [(first, Term(condition(1))), (first, Term(condition(2))), (second, Term(condition(3)))])


def nine_channels():
    config = replace(ours_of("SD 1.5").config, in_channels=9)
    torch.manual_seed(0)
    theirs = diffusers.UNet2DConditionModel.from_config(config.to_dict()).eval()
    ours = type(ours_of("SD 1.5"))(config).eval()
    ours.load_state_dict(theirs.state_dict())
    return ours.requires_grad_(False), theirs


def test_channels_besides_the_latents_reach_the_network_as_in_diffusers():
    ours, theirs = nine_channels()
    denoiser = Denoiser(ours, "epsilon", CPU)
    (point,) = points(1)
    states, channels = randn(1, 77, ours.config.context[0], seed=3), randn(1, 5, 8, 8, seed=4)
    (x0,) = denoiser([(point, Term(denoiser.condition(states, channels=channels)))])
    with torch.no_grad():
        eps = theirs(torch.cat([point.x, channels], 1), point.level.t, states).sample
    assert_close(x0, (point.x - point.level.s * eps) / point.level.a)


def test_rows_with_channels_equal_themselves_alone_whether_they_share_them_or_not():
    denoiser = Denoiser(nine_channels()[0], "epsilon", CPU)
    width = denoiser.net.config.context[0]
    one, other = randn(1, 5, 8, 8, seed=4), randn(1, 5, 8, 8, seed=5)
    texts = [
        denoiser.condition(randn(1, 77, width, seed=seed), channels=channels)
        for seed, channels in enumerate((one, one, other))
    ]
    first, second = points(2)
    agree(denoiser, [(first, Term(texts[0])), (first, Term(texts[1])), (second, Term(texts[2]))])
    agree(denoiser, [(first, Term(texts[0])), (first, Term(texts[2])), (second, Term(texts[1]))])
    bare = Denoiser(ours_of("SD 1.5"), "epsilon", CPU).condition(randn(1, 77, width))
    assert denoiser.group((first, Term(texts[0]))) != denoiser.group((first, Term(bare)))


class FixedControl:
    """Stands in for a ControlNet: residuals that depend on the latent's mean and the level."""

    def __init__(self, shapes, seed):
        self.skips = [randn(*shape, seed=seed + i) / 3 for i, shape in enumerate(shapes)]

    def residuals(self, x, t, inputs):
        assert x.shape[1] == 4
        assert len(x) == len(t) == len(inputs)
        scale = x.mean((1, 2, 3), keepdim=True) + t.view(-1, 1, 1, 1) / 1000
        *skips, mid = (scale * each for each in self.skips)
        return Residuals(tuple(skips), mid)


@pytest.mark.parametrize("family", ["SD 1.5", "SDXL base"])
def test_residuals_of_controls_are_added_as_in_diffusers(family):
    ours, theirs = pair(family)
    ours, theirs = ours.eval(), theirs.eval()
    config = ours.config
    shapes = [(1, config.block_out_channels[0], 8, 8)]
    for level, channels in enumerate(config.block_out_channels):
        side = 8 >> level
        shapes += [(1, channels, side, side)] * config.layers[level]
        if level < len(config.block_out_channels) - 1:
            shapes.append((1, channels, (side + 1) // 2, (side + 1) // 2))
    shapes.append((1, config.block_out_channels[-1], *shapes[-1][2:]))
    networks = [FixedControl(shapes, 10), FixedControl(shapes, 50)]
    controls = [
        AppliedControl(networks[0], None),
        AppliedControl(networks[1], None, 0.5),
        AppliedControl(networks[1], None, steps=range(1, 3)),
    ]
    denoiser = Denoiser(ours, "epsilon", CPU)
    (point,) = points(1)
    states = randn(1, 77, config.context[-1], seed=3)
    size = extra = None
    if config.addition_embed_type:
        size = SizeConditioning(
            randn(1, pooled_width(config), seed=9), torch.tensor([[64, 64, 0, 0, 64, 64]])
        )
        extra = {"text_embeds": size.pooled, "time_ids": size.ids}
    conditioning = denoiser.condition(states, size, controls=controls)
    (x0,) = denoiser([(point, Term(conditioning))])
    one, other = (network.residuals(point.x, torch.tensor([point.level.t]), [None]) for network in networks)
    other = other.map(lambda part: part / 2)
    with torch.no_grad():
        eps = theirs(
            point.x,
            point.level.t,
            states,
            added_cond_kwargs=extra,
            down_block_additional_residuals=tuple(map(torch.add, one.skips, other.skips)),
            mid_block_additional_residual=one.mid + other.mid,
        ).sample
    assert_close(x0, (point.x - point.level.s * eps) / point.level.a)
    plain = denoiser.condition(randn(1, 77, config.context[-1], seed=4), size, controls=controls[:1])
    agree(denoiser, [(point, Term(conditioning)), (point, Term(plain))])
    later = denoiser.condition(states, size, controls=controls[2:])
    assert denoiser.group((point, Term(later))) != denoiser.group((point, Term(plain)))
    agree(denoiser, [(replace(point, step=1), Term(conditioning)), (replace(point, step=1), Term(later))])


def test_keys_of_an_image_prompt_are_attended_to_as_in_diffusers():
    ours, theirs = pair("SD 1.5")
    width, tokens, scale = ours.config.context[0], 4, 0.6
    processors, pairs = {}, []
    image = randn(1, tokens, width, seed=7)
    for name, processor in theirs.attn_processors.items():
        processors[name] = processor
    modules = dict(theirs.named_modules())
    for number, attention in enumerate(ours.cross):
        name = next(path for path, module in ours.named_modules() if module is attention)
        hidden = modules[name].to_q.out_features
        own = IPAdapterAttnProcessor2_0(hidden, width, num_tokens=(tokens,), scale=[scale])
        for i, projection in enumerate((own.to_k_ip[0], own.to_v_ip[0])):
            projection.weight.data = randn(hidden, width, seed=100 * number + i) / math.sqrt(width)
        processors[f"{name}.processor"] = own
        pairs.append(tuple(image @ each[0].weight.T for each in (own.to_k_ip, own.to_v_ip)))
    theirs.set_attn_processor(processors)
    (point,) = points(1)
    states = randn(1, 77, width, seed=3)
    denoiser = Denoiser(ours, "epsilon", CPU)

    def conditioning(states, weight, steps=None):
        weights = torch.full((1, len(ours.cross)), weight)
        kv = ImageKV(tuple((k.detach(), v.detach()) for k, v in pairs), weights)
        return denoiser.condition(states, images=[AppliedImage(kv, steps)])

    with_image = conditioning(states, scale)
    (x0,) = denoiser([(point, Term(with_image))])
    with torch.no_grad():
        eps = theirs(point.x, point.level.t, (states, [image[:, None]])).sample
    assert_close(x0, (point.x - point.level.s * eps) / point.level.a)
    agree(
        denoiser, [(point, Term(with_image)), (point, Term(conditioning(randn(1, 20, width, seed=5), 0.2)))]
    )
    without = Term(denoiser.condition(states))
    assert denoiser.group((point, without)) != denoiser.group((point, Term(with_image)))
    later = Term(conditioning(states, scale, range(1, 3)))
    assert denoiser.group((point, without)) == denoiser.group((point, later))
    assert torch.equal(denoiser([(point, later)])[0], denoiser([(point, without)])[0])
    assert torch.equal(denoiser([(replace(point, step=1), later)])[0], x0)


class ToyContext:
    """The context of the toy networks: one number for each row."""

    group = None

    def __init__(self, numbers):
        self.numbers = numbers

    @classmethod
    def cat(cls, parts):
        return cls(torch.cat([part.numbers for part in parts]))


class Ideal:
    """A network that knows its data: a normal distribution of mean `states` and standard deviation `std`.

    It answers as EDM's networks do, to an input in their scale, (B, …) of any rank; in `seen` the spread of
    what it was shown.
    """

    dtype, reads_guidance = torch.float32, False

    def __init__(self, path, std=0.5):
        self.path, self.std, self.seen = path, std, []

    def context(self, states):
        return ToyContext(states[:, 0, 0])

    def embed_time(self, t, size=None, guidance=None):
        return (4 * t).exp()[:, None]

    def denoise(self, x, time, context, rows=None, **options):
        if rows is not None:
            x, time = x[rows], time[rows]
        self.seen.append(float(x.std()))
        shape = (-1,) + (1,) * (x.ndim - 1)
        sigma, mean = time.view(shape), context.numbers.view(shape)
        whole = (sigma**2 + 0.25).sqrt()
        noisy = x * whole
        x0 = mean + self.std**2 / (self.std**2 + sigma**2) * (noisy - mean)
        return (x0 - 0.25 / whole**2 * noisy) * whole / (0.5 * sigma)


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp-2m", "unipc", "dpmpp-2m-sde"])
@pytest.mark.parametrize("shape", [(1, 4, 24, 24), (1, 4, 5, 12, 12)], ids=["picture", "video"])
def test_a_network_that_wants_its_input_scaled_draws_from_its_distribution(sampler, shape):
    path = VarianceExploding(0.002, 80.0)
    net = Ideal(path)
    denoiser = Denoiser(net, "edm", CPU)
    levels, noise = spacing_named("karras").levels(path, 30), SeededNoise([1])
    x = levels[0].s * noise(torch.empty(shape))
    guidance = ClassifierFreeGuidance.of(denoiser.condition(torch.full((1, 1, 1), 2.0)))
    *_, finished = Engine(denoiser).run([Job(0, SAMPLERS[sampler].sample(x, levels, noise), guidance)])
    assert isinstance(finished, Finished)
    assert finished.latent.shape == shape
    assert abs(float(finished.latent.mean()) - 2) < 0.05
    assert abs(float(finished.latent.std()) - 0.5) < 0.05
    # seen with c_in the data's own spread is left out: from noise to picture about 1
    assert min(net.seen) > 0.8
    assert max(net.seen) < 1.2


class Toy(Ideal):
    """A toy network that predicts v of latents of any rank, towards each row's number."""

    def embed_time(self, t, size=None, guidance=None):
        return t[:, None] / 1000

    def denoise(self, x, time, context, rows=None, **options):
        if rows is not None:
            x, time = x[rows], time[rows]
        shape = (-1,) + (1,) * (x.ndim - 1)
        return torch.tanh(x + context.numbers.view(shape)) * time.view(shape)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_draws_latents_of_frames_as_each_frame_alone(sampler):
    """The toy has no eye for the other frames, so that each must come out as it does by itself."""
    denoiser = Denoiser(Toy(PATH), "v", CPU)
    levels = spacing_named("trailing").levels(PATH, 6)
    frames = randn(1, 4, 3, 8, 8)
    noises = iter(())

    def draw(x, take):
        nonlocal noises
        noises = (take(randn(1, 4, 3, 8, 8, seed=100 + i)) for i in range(1000))
        guidance = ClassifierFreeGuidance.of(
            *(denoiser.condition(torch.full((1, 1, 1), number)) for number in (1.0, 0.0)), scale=3.0
        )
        sampling = SAMPLERS[sampler].sample(x, levels, lambda like: next(noises))
        *_, finished = Engine(denoiser).run([Job(0, sampling, guidance)])
        return finished.latent

    video = draw(frames, lambda noise: noise)
    assert video.shape == frames.shape
    if sampler == "adams":
        return  # it chooses its order for each latent as a whole
    for frame in range(3):
        assert_close(
            video[:, :, frame], draw(frames[:, :, frame], lambda noise, f=frame: noise[:, :, f]), 1e-5
        )


def test_a_trainable_denoiser_can_be_differentiated_by_latent_and_weights():
    net = ours_of("SD 1.5").requires_grad_(True)
    denoiser = Denoiser(net, "v", CPU, trainable=True)
    x = randn(1, 4, 8, 8).requires_grad_()
    states = randn(1, 9, net.config.context[0])
    (x0,) = denoiser([(Point(x, Level(0.6, 0.8, 500), 0), Term(denoiser.condition(states)))])
    x0.square().mean().backward()
    assert x.grad.abs().max() > 0
    assert all(parameter.grad is not None for parameter in net.parameters())
