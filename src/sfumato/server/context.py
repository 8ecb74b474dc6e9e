"""What the routes share: the settings, the store, the dispatcher and the events of one server."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request

from sfumato.server.dispatcher import Dispatcher
from sfumato.server.events import Events
from sfumato.server.model_facts import ModelView, model_view
from sfumato.server.settings import ServerSettings
from sfumato.server.store import GroupStore


@dataclass(frozen=True, eq=False)
class Server:
    """The parts of a running server."""

    settings: ServerSettings
    store: GroupStore
    events: Events
    dispatcher: Dispatcher
    webui_settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What each key chose by A1111's `options`."""
    models: dict[str, ModelView] = field(default_factory=dict)
    """What is known so far of those that can be drawn with."""

    def model(self, name: str) -> ModelView:
        """What is known of a model, asked of a worker the first time. Raises `BusyError`."""
        view = self.models.get(name)
        if view is None:
            view = self.dispatcher.questions.ask(model_view, name)
            if view.problem is None:
                self.models[name] = view
        return view


def _server(request: Request) -> Server:
    found = request.app.state.server
    assert isinstance(found, Server)
    return found


def _owner(request: Request) -> str:
    return str(request.state.owner)


Shared = Annotated[Server, Depends(_server)]
Owner = Annotated[str, Depends(_owner)]
"""Whose key the request came with."""
