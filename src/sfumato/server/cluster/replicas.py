"""The replicas that this process may send jobs to, as Ray Serve tells of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Replica:
    """A replica: its name in its deployment, and those of its actor and its node in the cluster."""

    name: str
    actor: str
    node: str


class ReplicaLeftError(Exception):
    """A request was for a replica that is no more."""


_listeners: dict[str, Callable[[Sequence[Replica]], None]] = {}


def listen(application: str, listener: Callable[[Sequence[Replica]], None]) -> None:
    """Have `listener` told the replicas of an application whenever there are others, in any thread."""
    _listeners[application] = listener


def told(application: str, replicas: Sequence[Replica]) -> None:
    """These are the replicas of an application from now on."""
    if application in _listeners:
        _listeners[application](replicas)
