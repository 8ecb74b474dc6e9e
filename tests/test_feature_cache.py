"""DeepCache: deep features that several steps share."""

from types import SimpleNamespace

import DeepCache
import pytest
import torch
from checkpoint_families import pipeline

import sfumato
from sfumato import checkpoint
from sfumato.errors import SfumatoWarning
from sfumato.nets.feature_cache import FeatureCache

SMALL = {"prompt": "a red apple", "steps": 7, "width": 64, "height": 64, "seed": 1}
pytestmark = pytest.mark.filterwarnings("ignore:.*far from the:sfumato.errors.SfumatoWarning")


@pytest.fixture(scope="module")
def studio():
    return sfumato.load(device="cpu", dtype="float32")


@pytest.fixture
def deep_steps(studio):
    """How often the deepest part computes."""
    calls = []
    hook = studio.model.unet.mid_block.register_forward_hook(lambda *given: calls.append(len(given[2])))
    yield calls
    hook.remove()


@pytest.mark.parametrize("interval", [2, 3])
def test_every_step_of_a_cached_network_equals_that_of_the_deepcache_package(interval, tmp_path):
    pipe = pipeline("sd1")
    pipe.save_pretrained(tmp_path)
    ours, theirs = checkpoint.load(tmp_path).unet, pipe.unet
    times = torch.tensor([900, 700, 500, 300, 100])
    helper = DeepCache.DeepCacheSDHelper(
        SimpleNamespace(unet=theirs, scheduler=SimpleNamespace(timesteps=times))
    )
    helper.set_params(cache_interval=interval, cache_branch_id=0)
    cache = FeatureCache(interval)
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(1, 77, 24, generator=generator)
    helper.enable()
    with torch.no_grad():
        for step, t in enumerate(times):
            x = torch.randn(1, 4, 8, 8, generator=generator)
            expected = theirs(x, t, encoder_hidden_states=states).sample
            kept = [(cache, step)]
            deep = FeatureCache.features(kept)
            found = ours.denoise(x, ours.embed_time(t[None]), ours.context(states), deep=deep)
            FeatureCache.keep(kept, deep)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
            if step % interval:
                assert (ours(x, t[None], states) - found).abs().max() > 1e-4


@pytest.mark.parametrize(("interval", "deep"), [(1, 7), (2, 4), (3, 3), (100, 1)])
def test_deep_layers_compute_in_one_of_so_many_steps(interval, deep, studio, deep_steps):
    studio.generate(**SMALL, cache_interval=interval)
    assert len(deep_steps) == deep


def test_steps_are_counted_from_the_first_of_a_picture_that_is_drawn_over(studio, deep_steps):
    apple = studio.generate(**SMALL)
    deep_steps.clear()
    studio.generate(**SMALL, image=apple, strength=0.6, cache_interval=2)  # steps 3 to 6
    assert len(deep_steps) == 2


def test_what_is_drawn_without_guidance_in_between_has_fresh_features_afterwards(studio, deep_steps):
    levels = [step.sigma for step in studio.stream(**SMALL)]
    deep_steps.clear()
    # guided in steps 3 and 4 alone: the negative prompt's first features are of step 3
    between = ((levels[4] + levels[5]) / 2, (levels[2] + levels[3]) / 2)
    studio.generate(**SMALL, cache_interval=3, guidance_interval=between)
    assert deep_steps == [1, 2, 1]


def test_pictures_with_and_without_a_cache_in_one_engine_are_what_they_are_alone(studio):
    requests = [
        sfumato.Request(**{**SMALL, "seed": seed}, cache_interval=interval)
        for seed, interval in enumerate((3, 1, 3, 2))
    ]
    alone = [studio.generate(each) for each in requests]
    budget, studio.budget = studio.budget, float("inf")
    try:
        together = studio.generate_batch(requests)
    finally:
        studio.budget = budget
    for one, other in zip(alone, together, strict=True):
        assert abs(one.pixels.astype(int) - other.pixels).max() <= 1


def test_a_cached_picture_differs_and_is_replayed_by_its_record(studio, tmp_path):
    plain = studio.generate(**SMALL)
    cached = studio.generate(**SMALL, cache_interval=2)
    assert cached.differs(plain) is not None
    again = sfumato.Image.open(cached.save(tmp_path / "cached.png"))
    assert again.request.cache_interval == 2
    assert studio.generate(again.request).differs(cached) is None


def test_windows_take_no_cache_and_say_so(studio):
    wide = {**SMALL, "steps": 1, "width": 512, "height": 256, "multidiffusion": True}
    with pytest.warns(SfumatoWarning, match="cache_interval does nothing"):
        studio.generate(**wide, cache_interval=2)
