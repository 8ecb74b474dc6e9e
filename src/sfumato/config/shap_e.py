"""`prior/config.json` and `shap_e_renderer/config.json`: the two networks of Shap-E (Jun & Nichol 2023)."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from sfumato.config.base import MOST_CHANNELS, Channels, Config, Layers, Tokens, same_length
from sfumato.validation import one_of

POSITION_WAVES, DIRECTION_WAVES = 93, 51
"""How many numbers a position and a direction are told by: 3 + 2·15·3, and 3 + 2·8·3."""
OUTPUTS = 12
"""A signed distance, two densities, and three colours (R, G, B)."""

Sides = Annotated[tuple[Channels, ...], Field(min_length=2, max_length=2)]


@dataclass(frozen=True)
class PriorConfig(Config):
    """diffusers' `PriorTransformer`, as Shap-E's: no text states beside the vector, no token of its own."""

    CLASS = "PriorTransformer"
    FIXED: ClassVar[Mapping[str, tuple[Any, ...]]] = {"dropout": (0.0,)}

    num_attention_heads: Channels = 32
    attention_head_dim: Channels = 64
    num_layers: Layers = 20
    embedding_dim: Channels = 768
    num_embeddings: Tokens = 77
    additional_embeddings: Annotated[int, Field(ge=0, le=MOST_CHANNELS)] = 4
    time_embed_act_fn: Annotated[str, one_of(("silu", "gelu"))] = "silu"
    norm_in_type: Annotated[str, one_of(("layer",))] | None = None
    embedding_proj_norm_type: Annotated[str, one_of(("layer",))] | None = None
    encoder_hid_proj_type: str | None = "linear"
    added_emb_type: str | None = "prd"
    time_embed_dim: Channels | None = None
    embedding_proj_dim: Channels | None = None
    clip_embed_dim: Channels | None = None

    @property
    def width(self) -> int:
        """Of its layers."""
        return self.num_attention_heads * self.attention_head_dim

    @property
    def condition_width(self) -> int:
        """Of the vectors that a text or a picture is told by."""
        return self.embedding_proj_dim or self.embedding_dim

    def check(self) -> None:
        others = self.encoder_hid_proj_type, self.added_emb_type, self.additional_embeddings
        if others != (None, None, 0):
            raise ValueError(
                "encoder_hid_proj_type, added_emb_type and additional_embeddings are "
                f"{others[0]!r}, {others[1]!r} and {others[2]}: must be None, None and 0, as Shap-E's; "
                "those of unCLIP and Kandinsky are not supported"
            )
        if self.clip_embed_dim != 2 * self.embedding_dim:
            raise ValueError(
                f"clip_embed_dim is {self.clip_embed_dim}: must be {2 * self.embedding_dim}, "
                "a mean and a variance for each number of embedding_dim"
            )


@dataclass(frozen=True)
class ShapERendererConfig(Config):
    """diffusers' `ShapERenderer`."""

    CLASS = "ShapERenderer"
    FIXED: ClassVar[Mapping[str, tuple[Any, ...]]] = {"act_fn": ("swish",), "n_output": (OUTPUTS,)}

    param_names: Annotated[tuple[str, ...], Field(min_length=1, max_length=64)] = tuple(
        f"nerstf.mlp.{layer}.weight" for layer in range(4)
    )
    param_shapes: tuple[Sides, ...] = ((256, 93), (256, 256), (256, 256), (256, 256))
    d_latent: Channels = 1024
    d_hidden: Channels = 256
    n_hidden_layers: Layers = 6
    insert_direction_at: int | None = 4
    background: Annotated[tuple[float, ...], Field(min_length=3, max_length=3)] = (255.0, 255.0, 255.0)

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(numbers out, numbers in) of each layer of the field's network."""
        read = [POSITION_WAVES, *[self.d_hidden] * self.n_hidden_layers]
        if self.insert_direction_at is not None:
            read[self.insert_direction_at] += DIRECTION_WAVES
        return list(zip([*[self.d_hidden] * self.n_hidden_layers, OUTPUTS], read, strict=True))

    @property
    def layers(self) -> list[int]:
        """The numbers of the layers whose weights a latent holds, in the order of `param_names`."""
        return [int(name.split(".")[2]) for name in self.param_names]

    @property
    def vectors(self) -> int:
        """How many vectors of a latent are read: one for each row of those weights."""
        return sum(rows for rows, _ in self.param_shapes)

    def check(self) -> None:
        same_length("param_shapes", self.param_shapes, len(self.param_names))
        most, inserted = self.n_hidden_layers, self.insert_direction_at
        if inserted is not None and not 0 <= inserted <= most:
            raise ValueError(f"insert_direction_at is {inserted}: must be 0 to {most}, a layer")
        due = {f"nerstf.mlp.{number}.weight": shape for number, shape in enumerate(self.shapes)}
        for name, shape in zip(self.param_names, self.param_shapes, strict=True):
            if name not in due:
                raise ValueError(
                    f"param_names has {name!r}: must be of nerstf.mlp.0.weight to nerstf.mlp.{most}.weight"
                )
            if shape != due[name]:
                raise ValueError(f"param_shapes gives {name} {shape}: must be {due[name]}")
        if len(set(self.param_names)) < len(self.param_names):
            raise ValueError("param_names names a weight twice")
