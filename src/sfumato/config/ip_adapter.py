"""What an IP-Adapter is built of. No file says it: its tensors do (`checkpoint.ip_adapter`)."""

from typing import Annotated

from pydantic.dataclasses import dataclass

from sfumato.config.base import Channels, Config, Layers, Tokens
from sfumato.validation import one_of

BASE, FULL, PLUS = "base", "full", "plus"


@dataclass(frozen=True)
class IPAdapterConfig(Config):
    """An IP-Adapter (Ye et al. 2023).

    `kind`: "base" makes `tokens` of CLIP's pooled vector of a picture, "full" a token of each of its states,
    and "plus" has `tokens` attend to its states in `depth` layers `hidden` wide, of `heads` heads, whose
    feed-forward part is `feed_forward` wide. `width`: of what it reads of CLIP. `context`: of the tokens,
    which is that of the model's text states. `attentions`: of each cross-attention of the UNet, in the order
    of the file: way down, way up, middle.
    """

    kind: Annotated[str, one_of((BASE, FULL, PLUS))]
    width: Channels
    context: Channels
    attentions: tuple[Channels, ...]
    tokens: Tokens = 4
    hidden: Channels = 1
    heads: Channels = 1
    depth: Layers = 1
    feed_forward: Channels = 1

    @property
    def pooled(self) -> bool:
        """Whether it reads CLIP's pooled vector of a picture, not its states."""
        return self.kind == BASE
