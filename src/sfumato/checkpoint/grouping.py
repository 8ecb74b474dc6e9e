"""The tensors of a single file by the part of a model that they belong to, and which parts are missing."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from sfumato.checkpoint import ldm_keys
from sfumato.checkpoint.layout import Part
from sfumato.checkpoint.report import Report
from sfumato.checkpoint.unsupported import described, family_of_tensors
from sfumato.errors import CheckpointError
from sfumato.weights import Header, TensorInfo


@dataclass(frozen=True)
class Place:
    """Where files keep a part: what its names begin with, and for a text encoder whose it is."""

    part: str
    prefix: str
    open_clip: bool = False


PLACES = (
    Place("unet", ldm_keys.UNET),
    Place("unet", "unet."),
    Place("vae", ldm_keys.VAE),
    Place("vae", "vae."),
    Place("text_encoder", f"{ldm_keys.TEXT}transformer."),
    Place("text_encoder", f"{ldm_keys.TEXT}model.", open_clip=True),
    Place("text_encoder", f"{ldm_keys.CONDITIONER}0.transformer."),
    Place("text_encoder_2", f"{ldm_keys.CONDITIONER}1.model.", open_clip=True),
    Place("text_encoder_2", f"{ldm_keys.CONDITIONER}0.model.", open_clip=True),
    Place("text_encoder", "text_encoder."),
    Place("text_encoder_2", "text_encoder_2."),
)
_CALLED = {"vae": "VAE", "text_encoder": "text encoder", "text_encoder_2": "second text encoder"}

SIZE_EMBEDDING = frozenset({"label_emb.0.0.weight", "add_embedding.linear_1.weight"})
"""What a UNet of the XL family has, by either name, and no other."""
FIRST = ("input_blocks.0.0.weight", "conv_in.weight")
_EMA = "model_ema."
_UNREAD = re.compile(
    r"betas|(?:sqrt_|log_)?(?:one_minus_)?alphas_cumprod(?:_prev)?|sqrt_recip(?:m1)?_alphas_cumprod|"
    r"posterior_.*|logvar|lvlb_weights|scale_factor|global_step|v_pred|ztsnr|edm_.*|denoiser\..*|"
    r"embedding_manager\..*|"
    r"(?:cond_stage_model|conditioner\.embedders\.\d)\.(?:logit_scale|text_projection)"
)


@dataclass(frozen=True)
class Group:
    """One part's tensors, by what their names are after the prefix."""

    place: Place
    tensors: dict[str, TensorInfo]

    @property
    def original(self) -> bool:
        """Whether the names are those of the original layout, not of diffusers and transformers."""
        if self.place.part == "unet":
            return FIRST[0] in self.tensors
        if self.place.part == "vae":
            return any(name.startswith(("encoder.down.", "decoder.up.", "taesd_")) for name in self.tensors)
        return not self.place.prefix.startswith("text_encoder")


def grouped(path: Path, header: Header, report: Report) -> dict[str, Group]:
    """The file's tensors by part. Raises `CheckpointError` for a part twice, and for tensors of no part."""
    if family_of_tensors(header.tensors):
        raise CheckpointError(f"{path} is {described(header.tensors)}")
    groups: dict[str, Group] = {}
    rest = dict(header.tensors)
    for place in PLACES:
        if not (inside := _inside(rest, place.prefix)):
            continue
        if place.part in groups:
            raise CheckpointError(
                f"{path} holds two of the {place.part}: as {groups[place.part].place.prefix!r} and "
                f"as {place.prefix!r}"
            )
        groups[place.part] = Group(place, inside)
        rest = {name: info for name, info in rest.items() if not name.startswith(place.prefix)}
    if "unet" not in groups and (
        "input_blocks.0.0.weight" in rest or "down_blocks.0.resnets.0.conv1.weight" in rest
    ):
        groups["unet"], rest = Group(Place("unet", ""), rest), {}
    unet = groups.get("unet")
    if unet is None or not any(name in unet.tensors for name in FIRST):
        what = described(header.tensors)
        names = ", ".join(repr(name) for name in list(header.tensors)[:3]) or "nothing"
        if unet is None or what:
            raise CheckpointError(
                f"{path} is {what}" if what else f"{path} is no model that is known here: it holds {names}"
            )
        raise CheckpointError(f"{path} holds no whole UNet: its first layer is missing")
    copies = [name for name in rest if name.startswith(_EMA)]
    unread = [name for name in rest if _UNREAD.fullmatch(name)]
    if unknown := [name for name in rest if not name.startswith(_EMA) and not _UNREAD.fullmatch(name)]:
        what = described({name: rest[name] for name in unknown})
        raise CheckpointError(
            f"{path} holds {unknown[0]!r}{f' and {len(unknown) - 1} more' if unknown[1:] else ''}, which "
            + (f"is {what}" if what else "belong to no part of a model")
        )
    forms = " and ".join(sorted({"original" if group.original else "diffusers" for group in groups.values()}))
    prefixes = ", ".join(group.place.prefix or "none" for group in groups.values())
    report.infer("layout", f"one file, {forms} keys", f"prefixes: {prefixes}")
    if copies:
        own = f"{groups['unet'].place.prefix} has the UNet itself"
        report.infer("moving average", f"{len(copies)} tensors left out", f"{_EMA} repeats the UNet; {own}")
    if unread:
        report.infer("not read", ", ".join(unread[:4]), "drawing does without, or they only mark something")
    return groups


def vae_group(tensors: Mapping[str, TensorInfo]) -> Group | None:
    """The autoencoder among `tensors`, in whichever place; that of a file of its own needs no prefix."""
    for place in (*(place for place in PLACES if place.part == "vae"), Place("vae", "")):
        inside = _inside(tensors, place.prefix)
        if any(name.startswith(("encoder.", "decoder.", "taesd_")) for name in inside):
            return Group(place, inside)
    return None


def borrowed(
    path: Path, groups: Mapping[str, Group], lent: Mapping[str, Part], given: Collection[str]
) -> dict[str, Part]:
    """Those parts of another model that stand in for what the file lacks.

    `given` are parts that come from elsewhere. Raises `CheckpointError` for what is missing even so, with how
    to give it.
    """
    told = not SIZE_EMBEDDING.isdisjoint(groups["unet"].tensors)
    needed = ["vae", "text_encoder_2" if told else "text_encoder"]
    if told and "text_encoder" not in groups and "text_encoder_2" not in groups:
        needed.append("text_encoder")
    there = {*groups, *given}
    taken = {name: lent[name] for name in needed if name in lent and name not in there}
    missing = [name for name in needed if name not in there and name not in taken]
    if "text_encoder_2" in taken and "text_encoder" in missing:
        missing.remove("text_encoder")
    if missing:
        alone = "a UNet alone" if set(groups) == {"unet"} else "not a whole model"
        named = " and the ".join(called for name, called in _CALLED.items() if name in missing)
        how = "--vae FILE gives it" if missing == ["vae"] else "--base MODEL takes them from another model"
        raise CheckpointError(
            f"{path} is {alone}: the {named} {'is' if len(missing) == 1 else 'are'} missing; {how}"
        )
    return taken


def _inside(tensors: Mapping[str, TensorInfo], prefix: str) -> dict[str, TensorInfo]:
    return {name[len(prefix) :]: info for name, info in tensors.items() if name.startswith(prefix)}
