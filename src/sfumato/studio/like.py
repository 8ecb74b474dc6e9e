"""What another program drew, as it can be drawn here: with its model if that is here."""

import re
from dataclasses import replace

from sfumato import folders
from sfumato.checkpoint.library import by_name
from sfumato.errors import SfumatoError, UsageError
from sfumato.foreign import ForeignRecord
from sfumato.options import EMBEDDED
from sfumato.request import Request
from sfumato.studio.drawing import Studio


def with_model(record: ForeignRecord) -> ForeignRecord:
    """`record` with the model of its name in the user's folder; noted where there is none."""
    if record.model in (None, EMBEDDED):
        return record
    assert record.model is not None
    last = re.split(r"[\\/]", record.model)[-1]
    for name in (record.model, last, last.rpartition(".")[0]):
        if name and by_name(name):
            return replace(record, request=record.request.filled(model=name))
    note = f"the model {record.model}: it is not in your folder; drawn with the {EMBEDDED} one"
    return replace(record, left_out=(note, *record.left_out))


def fitted(record: ForeignRecord, studio: Studio) -> ForeignRecord:
    """`record` with a request that `studio` can draw; noted what had to be changed for that."""
    request, notes = record.request, list(record.left_out)
    sides = {name: side for name in ("width", "height") if (side := getattr(request, name))}
    fitting = {name: max(side // studio.factor, 1) * studio.factor for name, side in sides.items()}
    if fitting != sides:
        sizes = ("×".join(map(str, each.values())) for each in (sides, fitting))
        notes.append("size {}: drawn at {}, in multiples of {}".format(*sizes, studio.factor))
        request = request.filled(**fitting)
    if studio.model.kind.startswith("sdxl") and request.clip_skip:
        # its encoders' last layer but one, which others count as 2, is its own
        request = request.filled(clip_skip=request.clip_skip - 1)
    request = _with_adapters(request, studio, notes)
    known = {name.lower() for name in folders.found("embeddings", (".safetensors", ".pt", ".bin"))}
    missing = [name for name in record.embeddings if name.lower() not in known]
    for name in missing:
        notes.append(f"the embedding {name}: it is not in your folder; its name is read as words")
        texts = {key: _without_mark(getattr(request, key), name) for key in ("prompt", "negative")}
        request = request.filled(**texts)
    try:
        studio.prepare(request)
    except UsageError as error:
        if not request.clip_skip:
            raise
        notes.append(f"clip_skip {request.clip_skip}: {error}")
        request = request.filled(clip_skip=0)
    return replace(record, request=request, left_out=tuple(notes))


def _without_mark(text: str, name: str) -> str:
    """`text` with ComfyUI's "embedding:name" as "name"."""
    form = re.escape(name).replace("/", r"[\\/]")
    return re.sub(rf"embedding:({form})(?:\.safetensors|\.pt|\.bin)?", r"\1", text, flags=re.IGNORECASE)


def _with_adapters(request: Request, studio: Studio, notes: list[str]) -> Request:
    """`request` with those of its adapters that are in the user's folder and fit the model."""
    files = folders.found("adapters")
    kept = []
    for use in request.adapters:
        name = use.name if use.name in files else use.name.rpartition("/")[2]
        if name not in files:
            notes.append(f"the LoRA {use.name}: it is not in your folder")
            continue
        use = replace(use, name=name)
        try:
            with studio.lock:
                studio.library.fetch([use], allow_partial=False)
        except SfumatoError as error:
            notes.append(f"the LoRA {name}: {error}")
        else:
            kept.append(use)
    return request.filled(adapters=tuple(kept))
