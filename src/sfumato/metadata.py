"""What a picture file says about itself: our record, from which it can be redrawn, and the A1111 line.

| file | our record, as JSON | A1111 line |
|---|---|---|
| PNG, animated or not | text chunk `sfumato` | text chunk `parameters` |
| JPEG, WebP, animated or not | XMP property `sfumato:record` | EXIF UserComment, UTF-16 |
| GIF | comment | |
| MP4, WebM | metadata `comment` | |
| folder of frames | `video.json` | each frame has it |

The line is for other programs. It cannot hold every prompt (one with "Negative prompt:" in it reads as two),
so our record is never read back from it. Pictures of other programs are read by `sfumato.foreign`.
"""

import hashlib
import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL import ExifTags, PngImagePlugin
from pydantic import BaseModel, ConfigDict, ValidationError

from sfumato import animation, foreign, pictures
from sfumato.errors import CheckpointError, PictureError, UsageError
from sfumato.files import is_crowded, read_json
from sfumato.formats import FRAMES_RECORD, MAX_SIDES, VIDEOS, is_video, picture_format
from sfumato.names import SAMPLERS, SPACINGS
from sfumato.prompt.meaning import AdapterWeight
from sfumato.request import Request
from sfumato.validation import reworded

AnyRecord = TypeVar("AnyRecord", bound=BaseModel)
NAMESPACE = "urn:sfumato:1"
MAX_RECORD = 4 << 20
MAX_JPEG_RECORD = 65_000
"""Bytes of a record that one segment of a JPEG holds, with its head."""
MAX_INPUTS = {**dict.fromkeys(("PNG", "WEBP", "GIF", "MP4", "WEBM"), 2 << 20), "JPEG": 16 << 10}
"""Bytes of pictures that a request began from which a record holds, by the format of its file."""
_FOREIGN = "; it was drawn by {}, and `sfumato replay` takes over its settings"
_A1111_UPSCALERS = {"lanczos": "Lanczos", "latent": "Latent"}
_USER_COMMENT = int(ExifTags.Base.UserComment)


class Record(BaseModel):
    """How a picture was drawn: enough to draw it again and to tell why the result differs, if it does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sfumato: str
    """The version that drew it."""
    request: Request
    """With every field filled in, for this one picture: `count` is 1 and `seed` its own."""
    model: str
    """The model's display name: `embedded`, a folder's name, a hub id."""
    fingerprint: str
    """Of the model's weights, hexadecimal."""
    torch: str
    device: str
    """As "cpu" or "cuda:0 NVIDIA H100"."""
    dtype: str
    """`float32`, `bfloat16` or `float16`."""
    quantization: str | None = None
    """`int8` if the UNet multiplied in it."""
    threads: int | None = None
    """Of torch on the processor; not known of older pictures."""
    processor: str = ""
    """Its name, its instructions for bfloat16, and whether its attention was compiled for it."""
    pixels: str
    """`pixel_digest` of the picture as drawn, so that a lossy copy can still be checked.

    Of a clip that of its first frame.
    """
    frame_pixels: tuple[str, ...] = ()
    """The same of every frame of a clip, in their order; empty for a picture of its own."""
    adapters: dict[str, str] = {}
    """The fingerprint of every adapter that was in use, by its name."""
    embeddings: dict[str, str] = {}
    """The same of the learned embeddings that the prompts named."""
    controls: dict[str, str] = {}
    """The same of the networks of the request's controls, by their models."""
    upscalers: dict[str, str] = {}
    """The same of the network that enlarged it, by its name."""
    motion: str | None = None
    """The same of the motion adapter of a clip."""
    notes: tuple[str, ...] = ()
    """Warnings that applied."""

    def for_file(self, kind: str, embed: bool = True) -> "Record":
        """What a file of the format `kind` holds of it: all, or all but the bytes of pictures in its request.

        They are left out unless `embed`, and where they take more than `MAX_INPUTS`.
        """
        request = self.request
        most = MAX_INPUTS[kind] if embed else 0
        if sum(len(each.data or b"") for each in request.inputs.values()) <= most:
            return self
        return self.model_copy(update={"request": request.without_inputs()})

    def check_fits(self, path: Path) -> None:
        """Raise `UsageError` if the format that `path` names cannot hold a picture with this record."""
        kind, size = picture_format(path), self.request.size
        if max(size) > (most := MAX_SIDES[kind]):
            raise UsageError(
                "{}×{} pixels are too many for a {}: at most {} a side".format(*size, kind, most)
            )
        if kind == "JPEG" and self.request.has_alpha:
            raise UsageError(f"{str(path)!r} is a JPEG, which is never transparent; save as .png or .webp")
        held = self.for_file(kind)
        if kind == "JPEG" and max(len(exif(held)), len(xmp(held))) > MAX_JPEG_RECORD:
            raise UsageError("the prompt is too long for a JPEG, which holds 64 KB of it; save as .png")


def pixel_digest(pixels: NDArray[np.uint8]) -> str:
    """SHA-256, hexadecimal, of a picture `(H, W, 3)` or `(H, W, 4)`: its shape and its bytes."""
    height, width, channels = pixels.shape
    digest = hashlib.sha256(f"{width}x{height}x{channels}:".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def a1111_line(record: Record) -> str:
    """The `parameters` text of AUTOMATIC1111's web UI: prompt, negative prompt, and one line of settings."""
    request = record.request
    settings: dict[str, object] = {"Steps": request.steps, "Sampler": _a1111_sampler(request.sampler or "")}
    if others := SPACINGS.get(request.spacing or "", ()):
        settings["Schedule type"] = others[0]
    settings |= {
        "CFG scale": f"{request.guidance:.10g}",
        "Seed": request.seed,
        **_a1111_variation(request),
        "Size": "{}x{}".format(*_a1111_size(request)),
        "Model hash": record.fingerprint[:10],
        "Model": record.model,
    }
    if request.upscale in (None, 1) and request.image is not None and request.strength is not None:
        settings["Denoising strength"] = f"{request.strength:.10g}"
    if request.clip_skip:
        settings["Clip skip"] = request.clip_skip + 1
    settings |= _a1111_second_pass(request)
    settings["Version"] = f"sfumato {record.sfumato}"
    fast = ["<lora:fast:1>"] if request.fast else []
    lines = [" ".join([request.prompt, *map(_a1111_lora, request.adapters), *fast])]
    if request.negative:
        lines.append(f"Negative prompt: {request.negative}")
    lines.append(", ".join(f"{name}: {_quoted(str(value))}" for name, value in settings.items()))
    return "\n".join(lines).replace("\0", "")


def held(record: Record, kind: str) -> dict[str, Any]:
    """What a file of the format `kind` is to hold of a record, by the names of Pillow's options.

    Of a video, "MP4" or "WEBM", it is the metadata `comment`.
    """
    if kind == "PNG":
        return {"pnginfo": png_info(record)}
    if kind == "GIF":
        return {"comment": _ascii(record).encode("ascii")}
    if kind in VIDEOS:
        return {"comment": _ascii(record)}
    return {"exif": exif(record), "xmp": xmp(record)}


def png_info(record: Record) -> PngImagePlugin.PngInfo:
    """The two text chunks of a PNG: ours in ASCII, the line in Latin-1 where that will do, else UTF-8."""
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", a1111_line(record))
    info.add_text("sfumato", _ascii(record))
    return info


def exif(record: Record) -> bytes:
    """An EXIF block whose UserComment is the A1111 line, in the byte order that its readers expect."""
    block = PIL.Image.Exif()
    block.endian = ">"
    comment = b"UNICODE\0" + a1111_line(record).encode("utf-16-be")
    block[int(ExifTags.IFD.Exif)] = {_USER_COMMENT: comment}
    return block.tobytes()


def xmp(record: Record) -> bytes:
    """An XMP packet with our record as one property, in ASCII so that re-encoding cannot harm it."""
    return packet("record", _ascii(record))


def packet(name: str, text: str) -> bytes:
    """An XMP packet with an ASCII `text` as our property `name`."""
    return (
        '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        f'xmlns:sfumato="{NAMESPACE}" sfumato:{name}="{html.escape(text)}"/></rdf:RDF></x:xmpmeta>'
        '<?xpacket end="w"?>'
    ).encode("ascii")


def read(path: str | Path) -> Record:
    """The record that the picture or clip at `path` carries. Raises `PictureError` where there is none.

    Raises `UsageError` for a video where PyAV is not installed.
    """
    if is_video(path) or Path(path).is_dir():
        text = _record_text(texts(path))
        if text is None:
            raise PictureError(f"no Sfumato record in {path}")
        return validated(Record, text, path)
    with pictures.opened(path, animated=True) as picture:
        return record_of(picture, path)


def texts(path: str | Path) -> dict[str, str]:
    """The texts in the picture or clip at `path`, as `pictures.texts` names them. Raises as `read`."""
    if is_video(path):
        return {"comment": animation.comment(path)}
    if Path(path).is_dir():
        try:
            found = read_json(Path(path) / FRAMES_RECORD, MAX_RECORD)
        except CheckpointError as error:
            raise PictureError(f"{path} is no folder of frames: {error}") from None
        return {"sfumato": json.dumps(found.get("record"))}
    with pictures.opened(path, animated=True) as picture:
        return pictures.texts(picture)


def record_of(picture: PIL.Image.Image, path: str | Path) -> Record:
    """The record in a picture that Pillow has opened from `path`, whose pixels need not be decoded yet."""
    text = _record_text(pictures.texts(picture))
    if text is None:
        theirs = foreign.record_of(picture)
        raise PictureError(f"no Sfumato record in {path}{_FOREIGN.format(theirs.program) if theirs else ''}")
    return validated(Record, text, path)


def validated(kind: type[AnyRecord], text: str, path: str | Path) -> AnyRecord:
    """A record of some kind from the `text` that the file at `path` holds. Raises `PictureError`."""
    if len(text) > MAX_RECORD:
        raise PictureError(f"the record in {path} is larger than {MAX_RECORD:,} bytes, the most that is read")
    if is_crowded(text.encode("utf-8", "replace")):
        raise PictureError(f"the record in {path} lists far more than a record may")
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, fault["loc"])) or "the whole"
        said = reworded(fault["msg"])
        raise PictureError(f"the record in {path} cannot be read: {where}: {said}") from None


def holds_record(texts: Mapping[str, str]) -> bool:
    """Whether a record of ours, sound or not, is among the texts of a picture or a clip."""
    return _record_text(texts) is not None


def _record_text(texts: Mapping[str, str]) -> str | None:
    comment = texts.get("comment", "")
    ours = comment if comment.startswith('{"sfumato":') else None
    return texts.get("sfumato") or xmp_property(texts, "record") or ours


def xmp_property(texts: Mapping[str, str], name: str) -> str | None:
    """Our property `name` in the XMP packet among a picture's texts."""
    found = re.search(rf'\ssfumato:{name}="([^"<>]*)"', texts.get("xmp", ""))
    return html.unescape(found.group(1)) if found else None


def _ascii(record: Record) -> str:
    return json.dumps(record.model_dump(mode="json"), separators=(",", ":"))


def _a1111_sampler(name: str) -> str:
    """A1111's label of a sampler; ours where the web UI has none."""
    others = SAMPLERS.get(name, ())
    return next((other for other in others if not other.endswith("Scheduler")), name)


def _a1111_variation(request: Request) -> dict[str, object]:
    """The web UI's settings of a variation, of which it has one."""
    if len(request.variation_amount) != 1:
        return {}
    (amount,), (seed,) = request.variation_amount, request.variation_seed
    return {"Variation seed": seed, "Variation seed strength": f"{amount:.10g}"}


def _a1111_size(request: Request) -> tuple[int, int]:
    """The web UI's size, which is that of the first pass."""
    width, height = request.size
    return round(width / (request.upscale or 1)), round(height / (request.upscale or 1))


def _a1111_second_pass(request: Request) -> dict[str, object]:
    """The web UI's settings of its "hires fix": its steps are those that are taken."""
    if request.upscale in (None, 1) or request.upscale_strength is None:
        return {}
    assert request.upscale is not None
    whole = tuple(round(side * request.upscale) for side in _a1111_size(request)) == request.size
    enlarged = {"Hires upscale": f"{request.upscale:.10g}"}
    name = request.upscaler or ""
    return {
        "Denoising strength": f"{request.upscale_strength:.10g}",
        **(enlarged if whole else {"Hires resize": "{}x{}".format(*request.size)}),
        "Hires steps": request.upscale_steps_taken,
        "Hires upscaler": _A1111_UPSCALERS.get(name, Path(name).stem),
    }


def _a1111_lora(use: AdapterWeight) -> str:
    """A tag of the web UI, which knows an adapter by its file's name, and the text encoder's weight first."""
    text = "" if use.text_weight is None else f"{use.text_weight:.10g}:"
    name = Path(use.name).name.removesuffix(".safetensors")
    return f"<lora:{name}:{text}{use.weight:.10g}>"


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if any(mark in value for mark in ",:\n") else value
