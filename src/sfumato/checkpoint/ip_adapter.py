"""IP-Adapters' files, and where the image encoders are through which they see pictures."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path, PurePath
from typing import TypeVar

from sfumato.checkpoint.layout import ENCODER, Part, config_of, read_network
from sfumato.checkpoint.ldm_keys import SourceKey, Table
from sfumato.config import IPAdapterConfig, VisionConfig
from sfumato.config.ip_adapter import BASE, FULL, PLUS
from sfumato.errors import CheckpointError
from sfumato.files import read_json
from sfumato.nets.ip_adapter import HEAD
from sfumato.weights import Header

P = TypeVar("P", bound=PurePath)
_KEYS = re.compile(r"ip_adapter\.(\d+)\.to_k_ip\.weight")
_OURS = re.compile(r"ip_adapter\.(\d+)\.(.+)")


def is_ip_adapter(names: Collection[str]) -> bool:
    """Whether these are the names of an IP-Adapter's tensors."""
    return any(_KEYS.fullmatch(name) for name in names)


def ip_adapter_part(path: Path, header: Header) -> Part:
    """The IP-Adapter in the file `path`, which has this header. Raises `CheckpointError`."""
    config = ip_adapter_config({name: info.shape for name, info in header.tensors.items()}, str(path))
    table = ip_adapter_table(header.tensors)
    return Part("control", "IPAdapter", config, str(path), {path: header}, dict(header.tensors), table=table)


def ip_adapter_table(names: Iterable[str]) -> Callable[[Iterable[str]], Table]:
    """Makes the table of where a file with these names keeps each parameter of an `IPAdapter`.

    The file counts the self-attentions too, for which it holds nothing: its numbers are 1, 3, 5 …
    """
    numbers = _numbers(names)

    def source(name: str) -> SourceKey:
        match = _OURS.fullmatch(name)
        return SourceKey(f"ip_adapter.{numbers[int(match[1])]}.{match[2]}" if match else name)

    return lambda expected: {name: source(name) for name in expected}


def _numbers(names: Iterable[str]) -> list[int]:
    return sorted(int(match[1]) for name in names if (match := _KEYS.fullmatch(name)))


def ip_adapter_config(shapes: Mapping[str, tuple[int, ...]], where: str) -> IPAdapterConfig:
    """What an IP-Adapter is built of, by the shapes of its tensors, a file called `where` in errors.

    Raises `CheckpointError` for kinds that are not supported, and for what is damaged.
    """

    def size(name: str, axis: int) -> int:
        shape = shapes.get(name, ())
        if len(shape) <= axis or 0 in shape:
            raise CheckpointError(f"{where} is no whole IP-Adapter: {name} is missing or damaged")
        return shape[axis]

    faces = "image_proj.proj.0.weight" in shapes and "image_proj.proj.3.weight" not in shapes
    if faces or any("_lora." in name for name in shapes):
        raise CheckpointError(
            f"{where} is an IP-Adapter FaceID, which reads another network's vectors of a face: that is not "
            "supported, only IP-Adapters that read pictures"
        )
    attentions = tuple(size(f"ip_adapter.{number}.to_k_ip.weight", 0) for number in _numbers(shapes))
    values: dict[str, object]
    if "image_proj.proj.weight" in shapes:
        context = size("image_proj.norm.weight", 0)
        tokens = size("image_proj.proj.weight", 0) // context
        values = {"kind": BASE, "width": size("image_proj.proj.weight", 1), "tokens": tokens}
    elif "image_proj.proj.3.weight" in shapes:
        context = size("image_proj.proj.3.weight", 0)
        values = {"kind": FULL, "width": size("image_proj.proj.0.weight", 1)}
    else:
        context = size("image_proj.norm_out.weight", 0)
        layers = {name.split(".")[2] for name in shapes if name.startswith("image_proj.layers.")}
        values = {
            "kind": PLUS,
            "width": size("image_proj.proj_in.weight", 1),
            "tokens": size("image_proj.latents", 1),
            "hidden": size("image_proj.latents", 2),
            "heads": size("image_proj.layers.0.0.to_q.weight", 0) // HEAD,
            "depth": len(layers),
            "feed_forward": size("image_proj.layers.0.1.1.weight", 0),
        }
    return IPAdapterConfig.from_dict({**values, "context": context, "attentions": attentions}, where)


def encoder_places(path: P) -> list[P]:
    """The folders in which the image encoder of the IP-Adapter `path` may be, as they were published."""
    here, above = path.parent, path.parent.parent
    return list(dict.fromkeys([here / ENCODER, above / ENCODER, above / "models" / ENCODER]))


def width_seen(adapter: IPAdapterConfig, file: Path) -> int:
    """The width of what the adapter reads of the image encoder that a `config.json` describes.

    Raises `CheckpointError`.
    """
    vision = config_of(ENCODER, read_json(file), str(file))[1]
    assert isinstance(vision, VisionConfig)
    return vision.projection_dim if adapter.pooled else vision.hidden_size


def encoder_part(path: Path, adapter: IPAdapterConfig, last: Path | None = None) -> Part:
    """The image encoder of the IP-Adapter in the file `path`: the first one that is as wide as it reads.

    It is looked for as it was published: in the folder `image_encoder` beside the file, then in that beside
    the file's folder, and in that of `models` there; the `last` folder is the drawing's model's. Raises
    `CheckpointError`.
    """
    places = [*encoder_places(path), *([last] if last else [])]
    wrong = []
    for place in places:
        file = place / "config.json"
        if file.is_file():
            if (width := width_seen(adapter, file)) == adapter.width:
                return read_network(place, ENCODER, {})
            wrong.append(f"{width} wide in {place}")
    what = "vectors" if adapter.pooled else "states"
    found = f"they are {', '.join(wrong)}" if wrong else f"it is in none of {', '.join(map(str, places))}"
    raise CheckpointError(
        f"the IP-Adapter {path} needs the image encoder that it was trained with, whose {what} are "
        f"{adapter.width} wide, in a folder {ENCODER} beside it: {found}"
    )
