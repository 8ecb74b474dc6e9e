"""Whether a control was made for a model's kind of UNet."""

from sfumato.checkpoint import Model
from sfumato.checkpoint.control import ControlNetwork
from sfumato.checkpoint.families import FAMILIES
from sfumato.config.t2i_adapter import FULL_XL, T2IAdapterConfig
from sfumato.config.unet import EncoderConfig
from sfumato.errors import CheckpointError
from sfumato.nets.controlnet import ControlNet
from sfumato.nets.ip_adapter import IPAdapter
from sfumato.nets.t2i_adapter import T2IAdapter

_TITLES = {family.context: family.title for family in FAMILIES.values()}


def check_fits(name: str, network: ControlNetwork, model: Model) -> None:
    """Raise `CheckpointError` where a control was made for another kind of UNet than the model's."""
    if isinstance(network, IPAdapter):
        fits, kind = _ip_adapter_fits(network, model), "IP-Adapter"
        width, count = network.config.context, len(network.config.attentions)
        made_for = f"{_title(width)} ({count} attentions to text of {width})"
    elif isinstance(network, T2IAdapter):
        fits, kind, made_for = (
            _t2i_adapter_fits(name, network.config, model),
            "T2I-Adapter",
            _of(network.config),
        )
    else:
        fits, kind, made_for = _controlnet_fits(network, model), "ControlNet", _described(network.config)
    if not fits:
        raise CheckpointError(
            f"the {kind} {name} is for {made_for}; {model.name} is {_described(model.unet.config)}"
        )


def _controlnet_fits(network: ControlNet, model: Model) -> bool:
    own, unet = network.config, model.unet.config
    sizes = "addition_embed_type", "projection_class_embeddings_input_dim"
    return (
        own.skip_channels == unet.skip_channels
        and own.condition_factor == model.factor
        and own.in_channels == model.latent.channels
        and (not network.cross or own.context[-1] == unet.context[-1])
        and all(getattr(own, key) == getattr(unet, key) for key in sizes)
    )


def _ip_adapter_fits(network: IPAdapter, model: Model) -> bool:
    attentions = model.unet.cross_as_published
    widths = tuple(attention.to_k.out_features for attention in attentions)
    contexts = {attention.to_k.in_features for attention in attentions}
    return widths == network.config.attentions and contexts == {network.config.context}


def _t2i_adapter_fits(name: str, own: T2IAdapterConfig, model: Model) -> bool:
    if own.in_channels not in (1, 3):
        raise CheckpointError(
            f"the T2I-Adapter {name} reads pictures of {own.in_channels} channels: "
            "only those of 3, or of 1 (grey), are supported"
        )
    unet = model.unet.config
    levels = len(unet.block_out_channels)
    places = []
    for level, channels in enumerate(unet.block_out_channels):
        # where a level attends to no text it is added after halving
        halved = not unet.down_block_types[level].startswith("CrossAttn") and level < levels - 1
        places.append((channels, model.factor << (level + halved)))
    places.append((unet.block_out_channels[-1], model.factor << (levels - 1)))
    features = list(zip(own.widths, own.factors, strict=True))
    return features == places[: len(features)]


def _of(config: T2IAdapterConfig) -> str:
    """What a T2I-Adapter is for, as its configuration tells it."""
    title = "Stable Diffusion XL" if config.adapter_type == FULL_XL else "Stable Diffusion 1.x"
    widths, factors = (", ".join(map(str, each)) for each in (config.widths, config.factors))
    return f"{title} (features of {widths} channels, cells of {factors} pixels)"


def _described(config: EncoderConfig) -> str:
    """A UNet or what goes beside one, as its configuration tells it."""
    widths, text = ", ".join(map(str, config.block_out_channels)), config.context[-1]
    return f"{_title(text)} (levels of {widths} channels, text of {text})"


def _title(context: int) -> str:
    """The family whose text is so wide."""
    return _TITLES.get(context, "another kind of model")
