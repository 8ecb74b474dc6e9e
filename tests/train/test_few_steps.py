"""Students of few steps, on a mixture whose exact flow map is known: how far one step and two are off."""

import copy
from dataclasses import replace
from functools import cache, partial
from itertools import pairwise

import pytest
import torch
from making import bare
from mixture import mixture
from torch import nn

from sfumato.diffusion.distill import LATENT, Boundary, LevelTable, ddim, pseudo_huber
from sfumato.diffusion.level import (
    CLEAN,
    Flow,
    VariancePreserving,
    alphas_cumprod,
    scaled_linear_betas,
    zero_terminal_snr,
)
from sfumato.diffusion.predict import prediction_named
from sfumato.diffusion.spacing import spacing_named
from sfumato.train.context import StepContext
from sfumato.train.examples import LatentBatch
from sfumato.train.loop import train
from sfumato.train.objectives.consistency import ConsistencyLoss
from sfumato.train.objectives.discretization import uniform
from sfumato.train.objectives.distillation import Teacher
from sfumato.train.objectives.progressive import ProgressiveLoss, half_steps
from sfumato.train.objectives.trajectories import (
    TrajectoryBatch,
    TrajectoryGenerator,
    TrajectoryLoss,
    cached_trajectories,
    level_table,
    trajectory,
)
from sfumato.train.objectives.unet import X0Model
from sfumato.train.state import begin, restore
from sfumato.train.task import Task
from sfumato.weights import read

CPU = torch.device("cpu")
PATH = VariancePreserving(zero_terminal_snr(alphas_cumprod(scaled_linear_betas())))
BLOBS = mixture(3, dim=2, components=4, stds=(0.1, 0.2))
X0, V = prediction_named("x0"), prediction_named("v")
COURSE = uniform(PATH, 50, CPU)
LEVELS = spacing_named("trailing").levels(PATH, 16)
SLOW = 0.95


def course(step):
    return COURSE


@cache
def signal(time):
    return PATH.level(time).a


class Exact(nn.Module):
    """The mixture's own clean estimate, all times of a batch at once."""

    def forward(self, x, t, states):
        a = torch.tensor([signal(time) for time in t.tolist()], dtype=torch.float64)[:, None, None]
        variance = (a * BLOBS.stds) ** 2 + (1 - a * a)
        pull = (x.double()[:, None] - a * BLOBS.means) / variance
        share = -((x.double()[:, None] - a * BLOBS.means) * pull + variance.log()).sum(2) / 2
        share = (share + BLOBS.weights.log()).softmax(1)[..., None]
        return (share * (BLOBS.means + a * BLOBS.stds**2 * pull)).sum(1).float()


class Small(nn.Module):
    """A student of 37,000 weights."""

    def __init__(self, width=128):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 + 32, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2),
        )  # fmt: skip
        self.register_buffer("waves", torch.exp(torch.linspace(0, 5, 16)))

    def forward(self, x, t, states):
        u = (t / 1000)[:, None] * self.waves
        return self.layers(torch.cat([x, u.sin(), u.cos()], 1))


def batches(context, count):
    generator = context.generator
    which = torch.multinomial(BLOBS.weights, count, replacement=True, generator=generator)
    spread = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    return LatentBatch((BLOBS.means[which] + BLOBS.stds[which] * spread).float(), torch.zeros(count, 1, 1))


def lesson(run, steps):
    return bare(
        run=str(run), steps=steps, batch_size=256, learning_rate=3e-3, warmup_steps=10,
        decay_steps=steps // 2,
        ema_decays=(0.99,), max_grad_norm=10.0, precision="float32", checkpoint_every=10**6, weight_decay=0.0,
    )  # fmt: skip


def learn(net, objective, run, steps, slow=None, batches=batches):
    kept = []
    task = Task(
        net, batches, objective, lambda state, path: None, lambda state, folder: kept.append(state) or {},
        ema_networks={} if slow is None else {SLOW: slow},
    )  # fmt: skip
    train(task, lesson(run, steps), CPU)
    learned = copy.deepcopy(net)
    learned.load_state_dict(kept[0])
    return learned.requires_grad_(False)


@pytest.fixture(scope="module")
def noise():
    return torch.randn(1000, 2, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


@pytest.fixture(scope="module")
def truth(noise):
    return BLOBS.flow(noise, PATH.level(999), steps=100)


def off(found, truth):
    return float((found - truth).square().mean().sqrt())


def jump(net, boundary, x, level):
    """The student's picture from `x` at one level."""
    rows = LevelTable([level], CPU).rows(torch.zeros(len(x), dtype=torch.long), 2)
    with torch.no_grad():
        return boundary(
            X0Model(net, V).denoiser(LatentBatch(x, torch.zeros(len(x), 1, 1))), x.float(), rows
        ).double()


def walk(denoise, x, steps):
    """`steps` of DDIM at trailing times."""
    levels = [PATH.level(round(i / steps * 1000) - 1) for i in range(steps, 0, -1)] + [CLEAN]
    for here, there in pairwise(levels):
        x0 = denoise(x, here)
        x = there.a * x0 + there.s / here.s * (x - here.a * x0)
    return x


def consistency(teacher):
    """Nets and the objective of consistency, with `teacher` or without."""
    torch.manual_seed(0)
    net = Small()
    slow = copy.deepcopy(net).requires_grad_(False)
    objective = ConsistencyLoss(
        X0Model(net, V),
        X0Model(slow, V),
        teacher,
        (lambda step: COURSE),
        ddim,
        partial(pseudo_huber, c=0.01),
    )
    return net, slow, objective


@pytest.fixture(scope="module")
def distilled(tmp_path_factory):
    net, slow, objective = consistency(Teacher(X0Model(Exact(), X0)))
    return learn(net, objective, tmp_path_factory.mktemp("distilled"), 2000, slow)


def test_one_step_of_a_distilled_student_is_better_than_four_of_its_teacher(distilled, noise, truth):
    ours = off(jump(distilled, LATENT, noise, PATH.level(999)), truth)
    assert ours < off(walk(BLOBS.denoise, noise, 4), truth)
    assert ours < 0.35 * off(walk(BLOBS.denoise, noise, 1), truth)


def test_from_nearer_the_picture_the_student_is_nearer_the_truth(distilled, noise, truth):
    def from_time(t):
        start = BLOBS.flow(noise, PATH.level(999), PATH.level(t), steps=100)
        return off(jump(distilled, LATENT, start, PATH.level(t)), truth)

    errors = [from_time(t) for t in (999, 399, 199, 19)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.25 * errors[0]


def test_a_second_step_mends_what_the_first_has_left(distilled, noise):
    """The picture is noised anew for it: what is compared is how pictures lie, not which each is."""

    def spread(steps):
        x, fresh = noise, torch.randn(noise.shape, generator=torch.Generator().manual_seed(4)).double()
        for t in (999, 199)[:steps]:
            level = PATH.level(t)
            x = jump(distilled, LATENT, level.a * x + level.s * fresh if t < 999 else noise, level)
        distances = ((x[:, None] - BLOBS.means) / BLOBS.stds).norm(dim=-1)
        return float(distances.min(1).values.mean())

    assert spread(2) < 0.95 * spread(1)


def test_a_student_without_a_teacher_learns_from_pictures_alone(tmp_path, noise, truth):
    net, slow, objective = consistency(lambda batch, generator: (lambda x, level: batch.x0, None))
    student = learn(net, objective, tmp_path, 1000, slow)
    ours = off(jump(student, LATENT, noise, PATH.level(999)), truth)
    assert ours < 0.6 * off(walk(BLOBS.denoise, noise, 1), truth)


@pytest.fixture(scope="module")
def walked(noise):
    """The walks of the exact teacher from `noise`, in sixteen steps."""
    lead = X0Model(Exact(), X0).denoiser(LatentBatch(noise, torch.zeros(len(noise), 1, 1)))
    return trajectory(lead, noise.float(), LEVELS).double()


def test_a_walk_stays_on_the_way_and_ends_where_it_ends(walked, noise, truth):
    assert walked.shape == (1000, 17, 2)
    assert torch.equal(walked[:, -1].float(), noise.float())
    assert off(walked[:, 0], truth) < off(walk(BLOBS.denoise, noise, 16), truth)
    for place, level in enumerate(LEVELS[::-1]):
        if 199 < level.t < 999:
            there = BLOBS.flow(noise, PATH.level(999), level, steps=100)
            assert off(walked[:, place], there) < 0.05


def test_walks_are_kept_and_each_step_learns_from_one_batch_of_them_in_parts(tmp_path):
    asked = []

    def texts(context, count):
        asked.append(context.step)
        return replace(batches(context, count), states=torch.full((count, 1, 1), float(context.step)))

    def walks():
        generate = TrajectoryGenerator(Teacher(X0Model(Exact(), X0)), LEVELS, texts, 8, 5, CPU)
        return cached_trajectories(tmp_path, 20, generate, {"data": "blobs"})

    walks()
    assert asked == [0, 1, 2]
    kept = walks()
    assert asked == [0, 1, 2], "nothing is walked twice"
    halves = [kept(StepContext(4, part, 2, torch.Generator().manual_seed(part)), 4) for part in (0, 1)]
    number = int(halves[0].ends.states[0])
    whole = read(tmp_path / f"trajectories-{number:05}.safetensors")
    for part, half in enumerate(halves):
        points = whole["points"][4 * part : 4 * part + 4].float()
        assert torch.equal(half.ends.x0, points[:, 0])
        assert torch.equal(half.x, points[torch.arange(4), half.index])
        assert set(half.index.tolist()) <= set(range(1, 17))
    drawn = [kept(StepContext(step, 0, 1, torch.Generator()), 8).ends.states[0].item() for step in range(20)]
    assert set(drawn) == {0.0, 1.0, 2.0}


def test_one_step_of_a_student_of_whole_walks_is_better_than_four_of_its_teacher(
    walked, tmp_path, noise, truth
):
    torch.manual_seed(0)
    net = Small()
    objective = TrajectoryLoss(X0Model(net, V), level_table(LEVELS, CPU), partial(pseudo_huber, c=0.01))

    def standing(context, count):
        row = torch.randint(len(walked), (count,), generator=context.generator)
        place = torch.randint(1, 17, (count,), generator=context.generator)
        ends = LatentBatch(walked[row, 0].float(), torch.zeros(count, 1, 1))
        return TrajectoryBatch(walked[row, place].float(), place, torch.ones(count), ends)

    student = learn(net, objective, tmp_path, 600, batches=standing)
    other = torch.randn(1000, 2, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    there = BLOBS.flow(other, PATH.level(999), steps=100)
    assert off(jump(student, LATENT, other, PATH.level(999)), there) < off(
        walk(BLOBS.denoise, other, 4), there
    )


def test_halving_from_sixteen_steps_to_one_keeps_most_of_what_sixteen_knew(tmp_path, noise, truth):
    torch.manual_seed(0)
    net, teacher = Small(), Teacher(X0Model(Exact(), X0))
    straight, errors = Boundary(sigma_min=0.0), {}
    for steps in (16, 8, 4, 2, 1):
        objective = ProgressiveLoss(
            X0Model(net, V), teacher, LevelTable(half_steps(PATH, steps), CPU), "truncated-snr"
        )
        learned = learn(net, objective, tmp_path / str(steps), 250)
        errors[steps] = off(walk(partial(jump, learned, straight), noise, steps), truth)
        teacher, net = Teacher(X0Model(learned, V)), copy.deepcopy(learned).requires_grad_(True)
    assert errors[1] < off(walk(BLOBS.denoise, noise, 4), truth)
    assert errors[2] < 0.5 * off(walk(BLOBS.denoise, noise, 2), truth)


def test_the_slow_copy_is_the_average_and_is_kept_with_the_run(tmp_path):
    net, slow, objective = consistency(Teacher(X0Model(Exact(), X0)))
    learned = learn(net, objective, tmp_path, 3, slow)
    again, copied = Small(), Small().requires_grad_(False)
    recipe = lesson(tmp_path, 3)
    state = begin(again, recipe, CPU, {SLOW: copied})
    assert restore(state, recipe, tmp_path)
    for name, weight in slow.named_parameters():
        assert torch.equal(weight, copied.get_parameter(name))
        assert not torch.equal(weight, net.get_parameter(name))
    assert learned is not net


def test_a_course_of_equal_times_is_that_of_latent_consistency_models():
    assert COURSE.levels.t.tolist() == [0, *range(19, 1000, 20)]


@pytest.mark.parametrize("path", [PATH, Flow(), Flow(shift=3.0)], ids=["zero-snr", "flow", "shifted"])
@pytest.mark.parametrize("steps", [1, 4, 20])
def test_students_learn_at_the_very_times_that_they_are_drawn_at(path, steps):
    def told(levels):
        return pytest.approx([level.t for level in levels])

    few = spacing_named("trailing").levels(path, steps)
    assert [level.t for level in half_steps(path, steps)[::-2]] == told(few)
    jumps = spacing_named("lcm").levels(path, steps, origin=steps)[:-1]
    assert uniform(path, steps, CPU).levels.t.tolist()[:0:-1] == told(jumps)


def test_a_guided_teacher_is_asked_with_the_scale_that_the_student_is_told():
    class Told(nn.Module):
        def forward(self, x, t, states, guidance=None):
            seen.append(guidance)
            return states[:, 0, :1].expand_as(x) if guidance is None else torch.zeros_like(x)

    seen = []
    untold, states = torch.zeros(1, 1, 1), torch.ones(4, 1, 1)
    net = X0Model(Told(), X0)
    targets = []

    def solver(teacher, x, here, middle, there):
        targets.append(teacher(x, here))
        return x

    teacher = Teacher(net, (3.0, 5.0), untold)
    objective = ConsistencyLoss(net, net, teacher, course, solver, partial(pseudo_huber, c=0.01),
                                guidance_embedding=True)  # fmt: skip
    objective(LatentBatch(torch.zeros(4, 2), states), torch.Generator().manual_seed(0))
    told = [guidance for guidance in seen if guidance is not None]
    assert len(told) == 2
    assert torch.equal(told[0], told[1])
    torch.testing.assert_close(targets[0][:, 0], told[0])  # untold 0, told 1: the estimate is the scale
    assert bool(((told[0] >= 3) & (told[0] <= 5)).all())
