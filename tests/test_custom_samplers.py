"""Samplers of one's own: registered by a program or a file, drawn with, recorded, and refused when wrong."""

import os
import re
import warnings
from itertools import pairwise
from pathlib import Path

import pytest
import torch

import sfumato
from sfumato import metadata, names
from sfumato.cli import outcome
from sfumato.diffusion import samplers
from sfumato.diffusion.level import Flow
from sfumato.diffusion.sampling import Point, SeededNoise, run
from sfumato.diffusion.spacing import linspace
from sfumato.errors import SfumatoWarning, UsageError

PAGE = Path(__file__).parents[1] / "docs" / "custom-sampler.md"
PROGRAM, USE = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
SMALL = {"steps": 2, "width": 64, "height": 64, "seed": 7}

pytestmark = pytest.mark.filterwarnings("ignore:64×64")


@pytest.fixture(autouse=True)
def registries(monkeypatch, tmp_path):
    """The registries as they were after each test, and a folder of samplers of its own for each."""
    monkeypatch.setattr(samplers, "SAMPLERS", dict(samplers.SAMPLERS))
    monkeypatch.setattr(names, "SAMPLERS", dict(names.SAMPLERS))
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "samplers").mkdir(parents=True)
    return tmp_path / "home" / "samplers"


@pytest.fixture(scope="module")
def studio():
    return sfumato.load(device="cpu", dtype="float32")


def ddim_by_hand(x, levels, noise):
    for step, (here, there) in enumerate(pairwise(levels)):
        x0 = yield Point(x, here, step)
        x = there.a * x0 + there.s * (x - here.a * x0) / here.s
    return x


def test_the_program_of_the_page_registers_its_sampler_and_draws_with_it(monkeypatch):
    given = {}
    exec(compile(PROGRAM, "ralston.py", "exec"), given)
    exec(compile(USE, "use.py", "exec"), given)
    assert given["image"].record.request.sampler == "ralston"
    info = samplers.sampler_named("ralston")
    assert (info.order, info.evaluations_per_step, info.random) == (2, 2, False)


def test_the_sampler_of_the_page_is_of_second_order():
    given = {}
    exec(compile(PROGRAM, "ralston.py", "exec"), given)
    x, wide = torch.tensor([[[[1.5]]]], dtype=torch.float64), 0.5

    def denoise(x, level):
        """E[x0 | x] of a normal distribution of standard deviation `wide`, whose ODE has a closed form."""
        return level.a * wide**2 / (level.a**2 * wide**2 + level.s**2) * x

    def spread(level):
        return (level.a**2 * wide**2 + level.s**2) ** 0.5

    errors = []
    for steps in (32, 64):
        levels = [level for level in linspace(Flow(), steps) if level.a > 0 and level.s > 0.05]
        found = run(given["ralston"](x, levels, SeededNoise([0])), denoise)
        errors.append(abs(found - x * spread(levels[-1]) / spread(levels[0])).item())
    assert errors[0] / errors[1] > 3


def test_a_registered_sampler_draws_what_the_same_built_in_draws_and_is_recorded(studio, tmp_path):
    assert sfumato.register_sampler("mine", summary="by hand")(ddim_by_hand) is ddim_by_hand
    image = studio.generate("a red apple", sampler="mine", **SMALL)
    same = studio.generate("a red apple", sampler="ddim", **SMALL)
    assert abs(image.pixels.astype(int) - same.pixels).max() <= 1
    assert metadata.read(image.save(tmp_path / "a.png")).request.sampler == "mine"
    assert "Sampler: mine" in metadata.a1111_line(image.record)


def test_a_sampler_of_ones_own_takes_labels_and_spacings_as_the_others_do():
    sfumato.register_sampler("my-own")(ddim_by_hand)
    assert sfumato.Request("a", sampler="My Own Karras").spacing == "karras"
    with pytest.raises(UsageError, match="did you mean 'my-own'"):
        sfumato.Request("a", sampler="my-onw")


def test_a_file_in_the_folder_is_named_on_the_command_line_and_listed(
    registries, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    (registries / "ralston.py").write_text(PROGRAM)
    line = ["generate", "a red apple", "-q", "-o", "a.png", "-W", "64", "-H", "64", "--steps", "2"]
    assert outcome.run([*line, "--sampler", "ralston"]) == 0
    assert metadata.read(tmp_path / "a.png").request.sampler == "ralston"
    assert outcome.run(["replay", "a.png", "-q"]) == 0
    assert outcome.run(["samplers"]) == 0
    assert re.search(
        r"ralston +2 +2 +- +second order: Ralston's rule \(Ralston 1962\)", capfd.readouterr().out
    )


def test_a_file_is_found_by_name_without_being_run(registries):
    (registries / "loud_one.py").write_text("raise SystemError('run')")
    assert sfumato.Request("a", sampler="loud-one").sampler == "loud-one"
    with pytest.raises(UsageError, match=r"loud_one\.py cannot be run: SystemError: run"):
        samplers.sampler_named("loud-one")


def test_a_file_that_ends_the_process_ends_only_itself(registries):
    (registries / "one.py").write_text("raise SystemExit(3)")
    with pytest.raises(UsageError, match=r"one\.py cannot be run: SystemExit: 3"):
        samplers.sampler_named("one")


def test_a_pipe_in_the_folder_is_not_waited_for(registries):
    os.mkfifo(registries / "waits.py")
    with pytest.raises(UsageError, match=r"cannot read .*waits\.py: it is a named pipe, not a file"):
        samplers.sampler_named("waits")


def test_a_file_that_registers_another_name_is_told_so_and_the_list_goes_on(registries):
    (registries / "one.py").write_text("")
    with pytest.raises(UsageError, match=r"one\.py registers no sampler 'one': add @sfumato.register"):
        samplers.sampler_named("one")
    with pytest.warns(SfumatoWarning, match="registers no sampler 'one'"):
        samplers.read_own_samplers()


@pytest.mark.parametrize(
    ("name", "said"),
    [("ddim", "ddim is built in"), ("DDIMScheduler", "lower-case"), ("k-heun", "heun is built in")]
    + [(wrong, "must be a text of lower-case") for wrong in ("My", "a b", "../x", "", "a_b", len)],
)
def test_a_name_that_is_ours_or_no_name_is_refused(name, said):
    with pytest.raises(UsageError, match=said):
        sfumato.register_sampler(name)


def no_generator(x, levels, noise):
    return x


def yields_latents(x, levels, noise):
    for _ in levels:
        x = yield x
    return x


def returns_nothing(x, levels, noise):
    yield Point(x, levels[0], 0)


def divides_by_zero(x, levels, noise):
    yield Point(x, levels[0], 0)
    return x * (1 / 0)


def takes_less(x, levels):
    yield Point(x, levels[0], 0)
    return x


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        (no_generator, "it must be a generator function"),
        (yields_latents, "it must yield Point"),
        (returns_nothing, "it must return the last latent"),
        (divides_by_zero, "ZeroDivisionError: division by zero"),
        (takes_less, "TypeError: takes_less"),
    ],
)
def test_a_sampler_that_cannot_work_is_refused_with_its_mistake(sample, said):
    with pytest.raises(UsageError, match=f"the sampler 'mine' failed: .*{said}"):
        sfumato.register_sampler("mine")(sample)
    assert "mine" not in names.SAMPLERS


def test_a_sampler_that_fails_while_drawing_is_named(studio):
    @sfumato.register_sampler("mine")
    def picky(x, levels, noise):
        x0 = yield Point(x, levels[0], 0)
        return x0 if len(levels) > 3 else x0[0]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UsageError, match="the sampler 'mine' failed"):
            studio.generate("a", sampler="mine", **SMALL)
