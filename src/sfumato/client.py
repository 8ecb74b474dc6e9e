"""A server elsewhere, used like a studio here: `sfumato.connect("http://127.0.0.1:7860")`."""

import base64
import io
import json
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self, Unpack
from weakref import WeakSet

import httpx2

from sfumato import pictures
from sfumato.calls import DrawingCalls
from sfumato.edit.instruction import check_edit
from sfumato.errors import SfumatoError, UsageError, nearest
from sfumato.image import Image
from sfumato.inputs import InputImage, PictureSource
from sfumato.request import Request, RequestFields, RequestOptions, Requests, requests_of
from sfumato.series.upscaling import enlargement
from sfumato.video import Video

CONNECT_SECONDS = 10.0


class ServerError(SfumatoError):
    """A server that cannot be reached, or that failed."""


@dataclass(frozen=True, eq=False)
class RemoteStep:
    """One network evaluation on the way to a picture, as `sfumato.Step`.

    `index` of `total` evaluations are done for picture `image_index` of `image_count`; `image` is the
    finished picture on its last step, else `None`; of a clip it is `video`. `webp`: a preview, where the
    server sent one, of a clip an animated one. Of a picture that was drawn before it was looked at there is
    one step, and `total` is its request's `steps`.
    """

    image_index: int
    image_count: int
    index: int
    total: int
    image: Image | None
    webp: bytes | None
    video: Video | None = None


def connect(
    url: str = "http://127.0.0.1:7860", *, api_key: str | None = None, store: bool = True
) -> "RemoteStudio":
    """A server to draw with. With `store=False` it keeps neither jobs nor pictures of what is drawn.

    Raises `ServerError` where none answers.
    """
    studio = RemoteStudio(url, api_key=api_key, store=store)
    studio.models()
    return studio


class RemoteStudio(DrawingCalls):
    """Draws on a server with the calls of a `Studio`. Close it, or use it in a `with` statement."""

    def __init__(self, url: str, *, api_key: str | None = None, store: bool = True) -> None:
        headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        timeout = httpx2.Timeout(None, connect=CONNECT_SECONDS)
        self.url, self.store = url.rstrip("/"), store
        # as many connections as there are requests that are drawn at once
        limits = httpx2.Limits(max_connections=None)
        self._client = httpx2.Client(base_url=self.url, headers=headers, timeout=timeout, limits=limits)
        self._streams: WeakSet[Generator[RemoteStep]] = WeakSet()

    def __repr__(self) -> str:
        return f"<RemoteStudio {self.url!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what is still drawn, and let go of the connection."""
        for steps in list(self._streams):
            steps.close()
        self._client.close()

    def models(self) -> list[str]:
        """The models that are served, the default first."""
        return [each["name"] for each in self._models()]

    def _models(self) -> list[dict[str, Any]]:
        served: list[dict[str, Any]] = self._json("GET", "/api/v1/models")
        return served

    def _facts(self, request: Request) -> dict[str, Any]:
        """What the server says of the model of a request. Raises `UsageError` for one that it lacks."""
        return self._facts_of(request.model if "model" in request.model_fields_set else None)

    def _facts_of(self, model: str | None) -> dict[str, Any]:
        served = {each["name"]: each for each in self._models()}
        name = next(iter(served)) if model is None else model
        if name not in served:
            raise UsageError(f"model {name!r} is not served; {nearest(name, served)}")
        if problem := served[name]["problem"]:
            raise UsageError(f"model {name!r} cannot be drawn with: {problem}")
        return served[name]

    def clip_frames(self, model: str | None = None) -> int:
        """Frames of a clip that does not say, by `model`, the server's first if `None`."""
        frames: int = self._facts_of(model)["defaults"]["frames"]
        return frames

    def enlargement(self, request: Request) -> Request:
        """`request` for the enlargement of a picture, with a size that the model can draw and an upscaler."""
        facts = self._facts(request)
        return enlargement(request, facts["factor"], facts["defaults"]["upscaler"])

    def check_edit(self, request: Request) -> None:
        """Raise `UsageError` for an edit that the model cannot carry out in the way that is asked for."""
        facts = self._facts(request)
        check_edit(request, facts["name"], facts["task"])

    def edit(
        self, image: PictureSource | InputImage, instruction: str, /, **fields: Unpack[RequestOptions]
    ) -> Image:
        """A picture changed as `instruction` says, as `Studio.edit`: unless `model` or `source` is given, by
        the first served model that edits so.
        """
        editors = [each["name"] for each in self._models() if each["task"] == "instruct"]
        if editors and not fields.get("model") and not fields.get("source"):
            fields["model"] = editors[0]
        return super().edit(image, instruction, **fields)

    def teach(
        self,
        examples: Iterable[PictureSource],
        name: str,
        *,
        of_class: str | None = None,
        method: str = "lora",
        model: str | None = None,
        steps: int | None = None,
        adapter: str | None = None,
        progress: Callable[[int, int, float | None], None] = lambda *_: None,
    ) -> str:
        """Have the server learn a subject or a style from `examples`, pictures of it, as `sfumato teach`; the
        name of what draws it: an adapter, of textual inversion a word.

        `adapter`: what it shall be called. `progress(step, steps, loss)` is called while it learns, without a
        loss while something else takes long. Who interrupts it cancels it. Raises `UsageError`,
        `PictureError`.
        """
        contents = [InputImage.of(each).data for each in examples]
        body = {
            "name": name,
            "class": of_class,
            "method": method,
            "model": model,
            "steps": steps,
            "adapter": adapter,
            "pictures": [base64.b64encode(each).decode() for each in contents if each is not None],
        }
        teaching = self._json("POST", "/api/v1/teach", body)
        path = f"/api/v1/teach/{teaching['id']}"
        state = teaching["state"]
        try:
            for kind, data in self._events("GET", f"{path}/events"):
                if kind == "progress":
                    now = data["progress"]
                    progress(now["done"], now["total"], now.get("loss"))
                else:
                    state = data["state"]
                    if state in ("failed", "cancelled"):
                        raise UsageError(data.get("error") or f"the teaching was {state}")
        finally:
            if state in ("queued", "running"):
                with suppress(ServerError):  # one that is gone cannot be told
                    self._json("DELETE", path)
        return str(teaching["adapter"])

    def stream(
        self, request: Requests | None = None, *, previews: bool = False, **fields: Unpack[RequestFields]
    ) -> Iterator[RemoteStep]:
        """Draw, one step for each evaluation; closing the iterator cancels the rest."""
        steps = self._steps(request, fields, previews)
        self._streams.add(steps)
        return steps

    def _steps(
        self, request: Requests | None, fields: RequestFields, previews: bool
    ) -> Generator[RemoteStep]:
        requests = requests_of(request, fields)
        yield from self._stored(requests, previews) if self.store else self._unstored(requests, previews)

    def _stored(self, requests: Iterable[Request], previews: bool) -> Iterator[RemoteStep]:
        jobs = [self._json("POST", "/api/v1/jobs", {"request": _given(each)}) for each in requests]
        total, before = sum(job["count"] for job in jobs), 0
        ended: set[str] = set()
        try:
            for job in jobs:
                path = f"/api/v1/jobs/{job['id']}/events?previews={str(previews).lower()}"
                yield from self._follow(self._events("GET", path), before, total)
                ended.add(job["id"])
                before += job["count"]
        finally:
            for job in jobs:
                if job["id"] not in ended:
                    with suppress(ServerError):  # one that is gone cannot be told
                        self._json("DELETE", f"/api/v1/jobs/{job['id']}")

    def _unstored(self, requests: Iterable[Request], previews: bool) -> Iterator[RemoteStep]:
        streams = [
            self._events("POST", "/api/v1/draw", {"request": _given(each), "previews": previews})
            for each in requests
        ]
        try:
            counts = [next(events)[1]["count"] for events in streams]
            before = 0
            for events, count in zip(streams, counts, strict=True):
                yield from self._follow(events, before, sum(counts))
                before += count
        finally:
            for events in streams:
                events.close()  # who closes the connection cancels the job

    def _follow(self, events: Iterable[tuple[str, Any]], before: int, count: int) -> Iterator[RemoteStep]:
        last = {"done": 0, "total": 0}
        for kind, data in events:
            if kind == "progress":
                last = data["progress"]
                webp = base64.b64decode(last["preview"]) if "preview" in last else None
                # the last evaluation of a picture comes with the picture
                if last["done"] < last["total"]:
                    yield RemoteStep(before + last["number"], count, last["done"], last["total"], None, webp)
            elif kind == "picture":
                picture = data["picture"]
                drawn = self._drawn(picture)
                total = last["total"] or drawn.request.steps or 1  # none was seen: it was drawn before
                image, video = (None, drawn) if isinstance(drawn, Video) else (drawn, None)
                yield RemoteStep(before + picture["number"], count, total, total, image, None, video)
            elif data["state"] in ("failed", "cancelled"):
                raise UsageError(data.get("error") or f"the job was {data['state']}")

    def _drawn(self, picture: dict[str, Any]) -> Image | Video:
        if "content" in picture:
            name, content = f"picture {picture['number']}", base64.b64decode(picture["content"])
        else:
            name = picture["id"]
            content = self._answer("GET", f"/api/v1/pictures/{name}/file").content
        kind = Image if picture.get("frames") is None else Video
        with pictures.opened_content(io.BytesIO(content), name, animated=kind is Video) as opened:
            return kind.decode(opened, name)

    def _events(self, method: str, path: str, body: Any = None) -> Generator[tuple[str, Any]]:
        try:
            with self._client.stream(method, path, json=body) as response:
                if response.status_code >= 400:
                    response.read()
                    raise _error(response)
                for event in httpx2.EventSource(response):
                    yield event.event, json.loads(event.data)
        except httpx2.HTTPError as error:
            raise ServerError(f"the connection to {self.url} broke: {error}") from None

    def _json(self, method: str, path: str, body: Any = None) -> Any:
        return self._answer(method, path, body).json()

    def _answer(self, method: str, path: str, body: Any = None) -> httpx2.Response:
        try:
            response = self._client.request(method, path, json=body)
        except httpx2.HTTPError as error:
            raise ServerError(f"no server answers at {self.url}: {error}") from None
        if response.status_code >= 400:
            raise _error(response)
        return response


def _given(request: Request) -> dict[str, Any]:
    return request.model_dump(mode="json", exclude_unset=True)


def _error(response: httpx2.Response) -> SfumatoError:
    try:
        text = str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        text = f"the server answered {response.status_code}"
    return UsageError(text) if response.status_code < 500 else ServerError(text)
