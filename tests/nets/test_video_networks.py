"""The networks of clips against diffusers, live, and against themselves."""

import diffusers
import pytest
import torch
from nets_families import assert_close, norms, published, shapes
from video_families import CLASSES, NARROW, PUBLISHED, video_pair

from sfumato.checkpoint.loading import empty_network
from sfumato.diffusion.guidance import ClassifierFreeGuidance, Term
from sfumato.diffusion.level import VarianceExploding, VariancePreserving
from sfumato.diffusion.samplers import SAMPLERS
from sfumato.diffusion.sampling import Point, run
from sfumato.diffusion.spacing import karras, leading
from sfumato.errors import CheckpointError
from sfumato.nets.circular import circular
from sfumato.nets.denoiser import Denoiser
from sfumato.nets.inference import for_inference
from sfumato.nets.inputs import SizeConditioning

UNETS = ["SVD", "ModelScope"]
FRAMES = 5


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def given(config, rows, size=(8, 12)):
    """x, t, states and added conditioning for `rows` clips."""
    x = randn(rows, config.in_channels, FRAMES, *size)
    states = randn(rows, 1 if config.addition_embed_type else 7, config.context[0], seed=1)
    t = torch.tensor([0.7, -1.3, 1.6])[:rows] if config.addition_embed_type else torch.tensor([801.0, 40, 3])
    ids = torch.tensor([[6.0, 127, 0.02], [24, 12, 0.5], [7, 255, 0]])
    size = SizeConditioning(torch.empty(rows, 0), ids[:rows]) if config.addition_embed_type else None
    return x, t[:rows], states, size


def theirs_of(model, x, t, states, size):
    if size is None:
        return model(x, t, states).sample
    return model(x.transpose(1, 2), t, states, size.ids).sample.transpose(1, 2)


@pytest.mark.parametrize("family", CLASSES)
def test_published_network_of_clips_has_the_keys_and_shapes_of_diffusers(family):
    theirs_class, config, _ = CLASSES[family]
    with torch.device("meta"):
        theirs = theirs_class(**PUBLISHED[family])
    ours = empty_network(config.from_dict(PUBLISHED[family], family))
    assert shapes(ours) == shapes(theirs)
    assert norms(ours) == norms(theirs)


@pytest.mark.parametrize("family", CLASSES)
def test_saved_configuration_rebuilds_the_network_of_clips_in_diffusers(family):
    ours, theirs = video_pair(family)
    again = type(theirs).from_config(ours.config.to_dict())
    assert shapes(again) == shapes(theirs) == shapes(ours)
    assert published(again.config) == published(theirs.config)


@pytest.mark.parametrize("size", [(8, 12), (7, 5)], ids=["even", "odd"])
@pytest.mark.parametrize("family", UNETS)
def test_one_evaluation_of_a_clip_equals_diffusers(family, size):
    ours, theirs = video_pair(family)
    asked = given(ours.config, 2, size)
    with torch.no_grad():
        assert_close(ours(*asked), theirs_of(theirs, *asked), 1e-5)


def test_four_guided_steps_of_stable_video_diffusion_equal_diffusers():
    ours, theirs = video_pair("SVD")
    _, _, states, size = given(ours.config, 1)
    noise, picture = randn(1, 4, FRAMES, 8, 12), randn(1, 4, 1, 8, 12, seed=3).expand(1, 4, FRAMES, 8, 12)
    scales = torch.linspace(1, 3, FRAMES)[:, None, None]
    scheduler = diffusers.EulerDiscreteScheduler(
        prediction_type="v_prediction",
        timestep_type="continuous",
        use_karras_sigmas=True,
        sigma_min=0.002,
        sigma_max=700.0,
        beta_schedule="scaled_linear",
        timestep_spacing="leading",
        steps_offset=1,
    )
    scheduler.set_timesteps(4)
    x = noise.transpose(1, 2) * scheduler.init_noise_sigma
    with torch.no_grad():
        for t in scheduler.timesteps:
            shown, beside = scheduler.scale_model_input(x, t), picture.transpose(1, 2)
            without = theirs(torch.cat([shown, 0 * beside], 2), t, 0 * states, size.ids).sample
            out = theirs(torch.cat([shown, beside], 2), t, states, size.ids).sample
            x = scheduler.step(without + scales[:, None] * (out - without), t, x).prev_sample

    denoiser = Denoiser(ours, "edm-v:1", torch.device("cpu"))
    conditioned = denoiser.condition(states, size, channels=picture)
    unconditioned = denoiser.condition(0 * states, size, channels=0 * picture)

    def denoise(x, level):
        point = Point(x, level, 0)
        guided, plain = denoiser([(point, Term(conditioned)), (point, Term(unconditioned))])
        return plain + scales * (guided - plain)

    levels = karras(VarianceExploding(0.002, 700.0), 4)
    start = noise * scheduler.init_noise_sigma
    found = run(SAMPLERS["euler"].sample(start, levels, torch.zeros_like), denoise)
    assert_close(found, x.transpose(1, 2), 1e-4)


def test_four_guided_steps_of_modelscope_equal_diffusers():
    ours, theirs = video_pair("ModelScope")
    x, _, states, _ = given(ours.config, 1)
    negative = randn(*states.shape, seed=9)
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )
    scheduler.set_timesteps(4)
    stepped = x
    with torch.no_grad():
        for t in scheduler.timesteps:
            without = theirs(stepped, t, negative).sample
            guided = without + 9 * (theirs(stepped, t, states).sample - without)
            stepped = scheduler.step(guided, t, stepped).prev_sample

    denoiser = Denoiser(ours, "epsilon", torch.device("cpu"))
    guidance = ClassifierFreeGuidance.of(denoiser.condition(states), denoiser.condition(negative), 9.0)

    def denoise(x, level):
        point = Point(x, level, 0)
        terms = guidance.terms(point)
        estimates = denoiser([(point, term) for term in terms])
        return guidance.combine(point, list(zip(terms, estimates, strict=True)))

    levels = leading(VariancePreserving(scheduler.alphas_cumprod), 4, offset=1)
    found = run(SAMPLERS["ddim"].sample(x, levels, torch.zeros_like), denoise)
    assert_close(found, stepped, 1e-4)


@pytest.mark.parametrize("frames", [1, FRAMES])
def test_clip_decoded_together_equals_diffusers(frames):
    ours, theirs = video_pair("SVD's autoencoder")
    z = randn(2, 4, frames, 6, 5)
    with torch.no_grad():
        pictures = ours.decode(z)
        decoded = theirs.decode(z.transpose(1, 2).flatten(0, 1), num_frames=frames).sample
        assert_close(pictures.transpose(1, 2).flatten(0, 1), decoded, 1e-5)
        assert_close(ours.decode(z[:, :, 0]), ours.decode(z[:, :, :1])[:, :, 0], 1e-5)
        x = randn(2, 3, 12, 10)
        assert_close(ours.encode(x).mean, theirs.encode(x).latent_dist.mean, 1e-5)


@pytest.mark.parametrize("rows", [[0, 0, 1, 1], [1, 0, 1], [1, 0], [0, 1]], ids=str)
@pytest.mark.parametrize("family", UNETS)
def test_rows_that_share_a_clip_equal_rows_alone(family, rows):
    net, _ = video_pair(family)
    x, t, _, size = given(net.config, 2)
    states = given(net.config, 3)[2][torch.arange(len(rows)) % 3]
    rows = torch.tensor(rows)
    with torch.no_grad():
        time, text = net.embed_time(t, size), net.context(states)
        assert_close(net.denoise(x, time, text, rows), net.denoise(x[rows], time[rows], text), 1e-5)


@pytest.mark.parametrize("family", UNETS)
def test_clips_in_one_batch_equal_clips_alone_and_frames_are_seen_by_each_other(family):
    net, _ = video_pair(family)
    x, t, states, size = given(net.config, 2)
    first = None if size is None else SizeConditioning(size.pooled[:1], size.ids[:1])
    with torch.no_grad():
        both, alone = net(x, t, states, size), net(x[:1], t[:1], states[:1], first)
        changed = x[:1].clone()
        changed[:, :, -1] += 1
        moved = net(changed, t[:1], states[:1], first) - alone
    assert_close(both[:1], alone, 1e-5)
    assert all(moved[:, :, frame].abs().max() > 1e-3 for frame in range(FRAMES))


@pytest.mark.parametrize("family", CLASSES)
def test_network_of_clips_made_ready_for_a_cpu_answers_and_saves_the_same(family):
    net, _ = video_pair(family)
    plain = net.state_dict()
    if family in UNETS:
        asked, function = given(net.config, 2), net
    else:
        asked, function = (randn(2, 4, FRAMES, 6, 5),), lambda z: net.decode(z)
    with torch.no_grad():
        before = function(*asked)
        for_inference(net, torch.device("cpu"), torch.float32)
        assert_close(function(*asked), before, 1e-5)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, plain[name]), name


def test_frames_do_not_go_on_at_the_opposite_end_where_the_picture_does():
    net, _ = video_pair("ModelScope")
    convolve = net.down_blocks[0].temp_convs[0].conv4[-1]
    x = randn(1, 16, FRAMES, 8)
    with torch.no_grad(), circular("xy"):
        seamless = convolve(x)
    assert torch.equal(seamless, convolve(x))


@pytest.mark.parametrize("family", UNETS)
def test_every_parameter_of_a_network_of_clips_learns(family):
    net, _ = video_pair(family)
    x, t, _, size = given(net.config, 2)
    states = randn(2, 3, net.config.context[0])  # to one token every query gets the same answer
    net(x, t, states, size).square().mean().backward()
    still = [name for name, parameter in net.named_parameters() if not parameter.grad.abs().max() > 0]
    assert still == []


@pytest.mark.parametrize(
    ("family", "key", "value", "says"),
    [
        ("SVD", "down_block_types", ["DownBlock2D"] * 2, "down_block_types"),
        ("SVD", "num_attention_heads", [2], "num_attention_heads has 1 entries, must have 2"),
        ("SVD", "addition_time_embed_dim", 16, "must be 3 times addition_time_embed_dim, 48"),
        ("SVD", "norm_num_groups", 16, "unknown key 'norm_num_groups'"),
        ("ModelScope", "attention_head_dim", 12, "must be a multiple of attention_head_dim = 12"),
        ("ModelScope", "num_attention_heads", 8, "num_attention_heads is 8: not supported"),
        ("SVD's autoencoder", "layers_per_block", 1, "layers_per_block is 1: not supported, only 2"),
        ("SVD's autoencoder", "up_block_types", [], "unknown key 'up_block_types'"),
    ],
)
def test_configuration_of_another_network_of_clips_is_refused_by_name(family, key, value, says):
    with pytest.raises(CheckpointError, match=says):
        CLASSES[family][1].from_dict({**NARROW[family], key: value}, family)
