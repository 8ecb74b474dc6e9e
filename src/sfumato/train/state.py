"""All that a run needs to go on as if it had never stopped, in one file, written whole or not at all."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sfumato import weights
from sfumato.errors import CheckpointError, UsageError
from sfumato.train.recipe import Recipe, different

FILE = "state.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass
class Progress:
    """How far a run has come."""

    step: int = 0
    examples: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class State:
    """A run between two steps. There is nothing random to keep: every step is seeded by its number."""

    net: nn.Module
    optimizer: torch.optim.AdamW
    averages: dict[str, dict[str, Tensor]]
    """Averages of the trained weights, by their decay as text."""
    progress: Progress

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that are trained, by name."""
        return {name: weight for name, weight in self.net.named_parameters() if weight.requires_grad}

    def tensors(self) -> dict[str, Tensor]:
        """Everything that changes while training, by name."""
        found = {f"net.{name}": tensor for name, tensor in self.net.state_dict().items()}
        for decay, average in self.averages.items():
            found |= {f"ema-{decay}.{name}": tensor for name, tensor in average.items()}
        for name, weight in self.trained.items():
            moments = self.optimizer.state.get(weight, {})
            found |= {f"{key}.{name}": moments[key] for key in _MOMENTS if key in moments}
        return found

    def digest(self) -> str:
        """SHA-256 over every bit of it: equal for equal runs."""
        digest = hashlib.sha256(str(self.progress.step).encode())
        for name, tensor in sorted(self.tensors().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


def begin(net: nn.Module, recipe: Recipe, device: torch.device) -> State:
    """A run before its first step."""
    trained = {name: weight for name, weight in net.named_parameters() if weight.requires_grad}
    optimizer = torch.optim.AdamW(
        trained.values(),
        lr=recipe.rate,
        betas=(recipe.beta1, recipe.beta2),
        weight_decay=recipe.weight_decay,
        fused=device.type == "cuda",
    )
    averages = {
        str(decay): {name: weight.detach().clone() for name, weight in trained.items()}
        for decay in recipe.ema
    }
    return State(net, optimizer, averages, Progress())


def save(state: State, recipe: Recipe, folder: Path) -> None:
    """Write `state` into `folder`; what was there stays until the new file is whole. Raises `OutputError`."""
    metadata = {"progress": json.dumps(vars(state.progress)), "recipe": json.dumps(recipe.identity())}
    weights.write(folder / FILE, state.tensors(), metadata)


def restore(state: State, recipe: Recipe, folder: Path) -> bool:
    """Bring `state` to where the run in `folder` stopped; false if it has not begun.

    Raises `UsageError` if that run followed another recipe, `CheckpointError` for a damaged file.
    """
    path = folder / FILE
    if not path.exists():
        return False
    told = weights.metadata(path)
    try:
        progress, identity = json.loads(told["progress"]), json.loads(told["recipe"])
        came: dict[str, Any] = {key: progress[key] for key in vars(state.progress)}
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} is not the state of a run: {error}") from error
    if key := different(identity, recipe):
        then, now = identity.get(key), recipe.identity()[key]
        raise UsageError(
            f"{path} is of another recipe: {key} was {then!r} and is {now!r}; use another folder"
        )
    found = weights.read(path)
    _fill(state, found, path)
    for key, value in came.items():
        setattr(state.progress, key, value)
    return True


def _fill(state: State, found: dict[str, Tensor], path: Path) -> None:
    trained = state.trained
    for name, weight in trained.items():
        if f"exp_avg.{name}" in found:
            step = json.loads(weights.metadata(path)["progress"])["step"]
            state.optimizer.state[weight] = {
                "step": torch.tensor(float(step), device=weight.device if _fused(state) else "cpu"),
                **{key: torch.empty_like(weight, requires_grad=False) for key in _MOMENTS},
            }
    own = state.tensors()
    weights.check(found, {name: tensor.shape for name, tensor in own.items()}, str(path))
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(found[name])


def _fused(state: State) -> bool:
    return bool(state.optimizer.param_groups[0]["fused"])
