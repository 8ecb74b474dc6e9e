"""All that a run needs to go on as if it had never stopped, in one file, written whole or not at all."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sfumato import weights
from sfumato.errors import CheckpointError, UsageError
from sfumato.train import distributed, optimizers
from sfumato.train.recipe import Recipe

FILE = "state.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq")
_SCALER = {"scale": "scaler.scale", "_growth_tracker": "scaler.growth"}
_STEPS = "scaler.steps"


@dataclass
class Progress:
    """How far a run has come."""

    step: int = 0
    examples: int = 0
    seconds: float = 0.0
    best_step: int = 0
    """The step whose loss on what is held out is the lowest; 0: nothing has been measured."""
    best_loss: float | None = None
    measured_since: int = 0
    """How often it was measured since without a lower one."""


@dataclass(frozen=True, eq=False)
class State:
    """A run between two steps. There is nothing random to keep: every step is seeded by its number."""

    net: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    """Keeps float16 gradients within range, and leaves out the steps where it did not (Micikevicius et al.
    2018, §3.2); of no effect in other precisions."""
    averages: dict[str, dict[str, Tensor]]
    """Averages of the trained weights, by their decay as text."""
    progress: Progress
    frozen_base: str = ""
    """See `Task.frozen_base`."""
    best: dict[str, Tensor] = field(default_factory=dict)
    """The average of the trained weights at `progress.best_step`."""

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that are trained, by name."""
        return {name: weight for name, weight in self.net.named_parameters() if weight.requires_grad}

    def tensors(self) -> dict[str, Tensor]:
        """Everything that changes while training, by name."""
        frozen = {
            name
            for name, weight in self.net.named_parameters()
            if self.frozen_base and not weight.requires_grad
        }
        found = {
            f"net.{name}": tensor for name, tensor in self.net.state_dict().items() if name not in frozen
        }
        for decay, average in self.averages.items():
            found |= {f"ema-{decay}.{name}": tensor for name, tensor in average.items()}
        found |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        found |= optimizers.tensors_of(self.optimizer, self.trained)
        if self.scaler.is_enabled():
            kept = self.scaler.state_dict()
            found |= {name: torch.tensor(float(kept[key])) for key, name in _SCALER.items()}
        return found

    @property
    def optimizer_structure(self) -> optimizers.Structure:
        """See `optimizers.structure_of`."""
        return optimizers.structure_of(self.optimizer, self.trained)


def begin(
    net: nn.Module,
    recipe: Recipe,
    device: torch.device,
    ema_networks: Mapping[float, nn.Module] | None = None,
    frozen_base: str = "",
) -> State:
    """A run before its first step; the weights of `ema_networks` are the averages of their decay."""
    trained = {name: weight for name, weight in net.named_parameters() if weight.requires_grad}
    keys = recipe.optimizer
    text_factor = (keys.text_learning_rate or keys.learning_rate) / keys.learning_rate
    optimizer = optimizers.new(
        keys.name,
        optimizers.groups_of(trained, text_factor, keys.lora_plus_ratio),
        keys.learning_rate,
        (keys.beta1, keys.beta2),
        keys.weight_decay,
        device,
    )
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.dtype(device) == torch.float16)
    averages = {
        str(decay): {name: weight.detach().clone() for name, weight in trained.items()}
        for decay in recipe.ema_decays
    }
    for decay, copy in (ema_networks or {}).items():
        averages[str(decay)] = {name: copy.get_parameter(name).detach() for name in trained}
        with torch.no_grad():
            for name, weight in averages[str(decay)].items():
                weight.copy_(trained[name])
    return State(net, optimizer, scaler, averages, Progress(), frozen_base)


def save(state: State, recipe: Recipe, folder: Path) -> None:
    """Write `state` into `folder`; what was there stays until the new file is whole. Raises `OutputError`."""
    metadata = {"progress": json.dumps(vars(state.progress)), "recipe": json.dumps(recipe.identity())}
    metadata |= {"base": state.frozen_base} if state.frozen_base else {}
    metadata["optimizer"] = json.dumps(state.optimizer_structure)
    weights.write(folder / FILE, state.tensors(), metadata)


def reached(recipe: Recipe, folder: Path) -> dict[str, Any] | None:
    """How far the run in `folder` came, as `Progress`; `None` if it has not begun.

    Raises `UsageError` if that run followed another recipe, `CheckpointError` for a damaged file.
    """
    path = folder / FILE
    if not path.exists():
        return None
    with _advice():
        metadata = weights.metadata(path)
        try:
            progress, identity = json.loads(metadata["progress"]), json.loads(metadata["recipe"])
            came: dict[str, Any] = vars(Progress()) | {key: progress[key] for key in ("step", *progress)}
        except (KeyError, ValueError, TypeError) as error:
            raise CheckpointError(f"{path} is not the state of a run: {error!r}") from error
    if "objective.name" not in identity:
        raise UsageError(
            f"{path} was written by an earlier version, whose recipes had other keys: finish the run with "
            "that version, or use another folder"
        )
    if key := recipe.changed_since(identity):
        then, now = identity.get(key), recipe.identity().get(key)
        raise UsageError(
            f"{path} is of another recipe: {key} was {then!r} and is {now!r}; "
            "set it back to go on, or use another folder"
        )
    return came


def restore(state: State, recipe: Recipe, folder: Path) -> bool:
    """Bring `state` to where the run in `folder` stopped; false if it has not begun. Raises as `reached`."""
    path, came = folder / FILE, reached(recipe, folder)
    if came is None:
        return False
    if weights.metadata(path).get("base", state.frozen_base) != state.frozen_base:
        raise UsageError(
            f"{path} is of an adapter for other weights than {recipe.base} has now: "
            "bring those back to go on, or use another folder"
        )
    for key, value in came.items():
        setattr(state.progress, key, value)
    with _advice():
        _make_best(state)
        _fill(state, weights.read(path), weights.metadata(path).get("optimizer"), came["step"], path)
    return True


def tidy(folder: Path) -> None:
    """Remove what writing a state left in `folder` when it was killed."""
    for half in folder.glob(f".{FILE}.*.tmp"):
        half.unlink(missing_ok=True)


def broadcast(state: State) -> None:
    """Bring the `state` of every process to that of the first."""
    if distributed.world_size() == 1:
        return
    progress, scaler, structure = distributed.broadcast_object(
        (vars(state.progress), state.scaler.state_dict(), state.optimizer_structure)
    )
    for key, value in progress.items():
        setattr(state.progress, key, value)
    if scaler:
        state.scaler.load_state_dict(scaler)
    if not distributed.is_main():
        optimizers.prepare(state.optimizer, state.trained, structure)
        _make_best(state)
    distributed.broadcast(state.tensors().values())


def _fill(state: State, found: dict[str, Tensor], structure: str | None, step: int, path: Path) -> None:
    if structure is None:
        found, made = _as_today(state, found, step)
    else:
        made = json.loads(structure)
    optimizers.prepare(state.optimizer, state.trained, made)
    own = state.tensors()
    if state.frozen_base:  # which earlier versions kept as well
        found = {name: tensor for name, tensor in found.items() if name in own or not name.startswith("net.")}
    weights.check(found, {name: tensor.shape for name, tensor in own.items()}, str(path))
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(found[name])
    if state.scaler.is_enabled():
        kept = {key: found[name].item() for key, name in _SCALER.items()}
        kept["_growth_tracker"] = int(kept["_growth_tracker"])
        state.scaler.load_state_dict({**state.scaler.state_dict(), **kept})


def _make_best(state: State) -> None:
    """Make room for the weights of the best step, if there is one."""
    if state.progress.best_step:
        room = {name: torch.empty_like(weight.detach()) for name, weight in state.trained.items()}
        state.best.update(room)


def _as_today(
    state: State, found: dict[str, Tensor], step: int
) -> tuple[dict[str, Tensor], optimizers.Structure]:
    """A state of an earlier version, which had AdamW alone and counted steps once for all weights."""
    steps = found.pop(_STEPS, torch.tensor(float(step)))
    begun = [name for name in state.trained if f"{_MOMENTS[0]}.{name}" in found]
    kept = {
        name: {key: ["float32", list(state.trained[name].shape)] for key in _MOMENTS}
        | {"step": ["float32", []]}
        for name in begun
    }
    return found | {f"step.{name}": steps for name in begun}, {"weights": kept, "groups": [{}]}


@contextmanager
def _advice() -> Iterator[None]:
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}; put a sound copy in its place to go on, or delete it to begin the run anew"
        ) from error
