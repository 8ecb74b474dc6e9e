"""`sfumato serve`: an HTTP server that draws."""

import webbrowser
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from sfumato.cli import console
from sfumato.cli.help import MODEL, RUN
from sfumato.cli.options import Program, option
from sfumato.errors import UsageError
from sfumato.options import EDITOR, EMBEDDED

program = Program()
NEEDED = (
    "alembic",
    "fastapi",
    "prometheus_client",
    "pydantic_settings",
    "python_multipart",
    "sqlalchemy",
    "uvicorn",
)


@program.add(
    examples="""sfumato serve
sfumato serve --model embedded --model dreamy.safetensors --port 8000
sfumato serve --host 0.0.0.0 --api-key secret
sfumato serve --ray --workers 2 --max-workers 8"""
)
def serve(
    host: Annotated[
        str | None, option("--host ADDRESS", RUN, "Address to listen on. Default: 127.0.0.1.")
    ] = None,
    port: Annotated[int | None, option("--port N", RUN, "Port to listen on. Default: 7860.")] = None,
    models: Annotated[
        list[str] | None,
        option(
            "--model MODEL",
            MODEL,
            "A model to serve, the first is the default. Repeatable. Default: embedded and its editor.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        option("--data FOLDER", RUN, "Where jobs and pictures are kept. Default: in your data folder."),
    ] = None,
    api_keys: Annotated[
        list[str] | None,
        option("--api-key KEY", RUN, "A key that clients must send. Repeatable. Default: none."),
    ] = None,
    allowed_hosts: Annotated[
        list[str] | None,
        option(
            "--allowed-host NAME",
            RUN,
            "A name under which clients reach the server. Repeatable. Default: none.",
        ),
    ] = None,
    workers: Annotated[int | None, option("--workers N", RUN, "Processes that draw. Default: 1.")] = None,
    ray: Annotated[
        bool,
        option("--ray", RUN, "Draw on the nodes of a Ray cluster, or of a new one. Default: off."),
    ] = False,
    max_workers: Annotated[
        int | None, option("--max-workers N", RUN, "With --ray: workers under load. Default: --workers.")
    ] = None,
    devices: Annotated[
        list[str] | None,
        option("--device NAME", MODEL, "A device of the workers. Repeatable. Default: the fastest."),
    ] = None,
    queue: Annotated[int | None, option("--queue N", RUN, "Jobs that may wait. Default: 1000.")] = None,
    safety: Annotated[
        bool,
        option("--safety", RUN, "Refuse pictures that show nudity, by a local detector. Default: off."),
    ] = False,
    open_page: Annotated[bool, option("--open", RUN, "Open the page in a browser.")] = False,
    config: Annotated[
        Path | None, option("--config FILE", RUN, "A TOML file with these and more settings. Default: none.")
    ] = None,
) -> None:
    """Draw for programs: OpenAI's Images API, A1111's, and Sfumato's own.

    Settings also come from the environment, as SFUMATO_SERVE_PORT.
    """
    if any(find_spec(name) is None for name in NEEDED):
        raise UsageError("the server needs more packages: pip install 'sfumato[serve]'")
    from sfumato.server.settings import server_settings

    values = {
        "host": host,
        "port": port,
        "models": models,
        "data": data,
        "api_keys": api_keys,
        "allowed_hosts": allowed_hosts,
        "workers": workers,
        "ray": ray or None,
        "max_workers": max_workers,
        "devices": devices,
        "queue": queue,
        "safety": safety or None,
    }
    given = {name: value for name, value in values.items() if value not in (None, [])}
    settings = server_settings(config, **given)
    if settings.safety and find_spec("nudenet") is None:
        raise UsageError("--safety needs a detector: pip install 'sfumato[safety]'")
    if settings.ray and find_spec("ray") is None:
        raise UsageError("--ray needs Ray Serve: pip install 'sfumato[ray]'")
    _check_models(settings.models)
    from sfumato.server.serving import serve

    def started(address: str) -> None:
        console.result(f"serving at {address}")
        if open_page:
            webbrowser.open(address)

    # a signal is how a server ends
    with suppress(console.Interrupted):
        serve(settings, started)


def _check_models(models: tuple[str, ...]) -> None:
    """Raise `CheckpointError` for a model that is not there. Those of the hub are fetched when needed."""
    for model in models:
        if model not in (EMBEDDED, EDITOR) and not Path(model).expanduser().exists():
            # torch comes with it: not for the models that most servers have
            from sfumato.checkpoint.source import hub_name, locate

            if hub_name(model) is None:
                locate(model)
