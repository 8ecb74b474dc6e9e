"""How much may be asked of the server at once."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Up to where jobs are accepted: `queue` of them may wait, a key may ask for `pictures_per_hour`, and the
    pictures that jobs begin from which are not over may take `disk` bytes.
    """

    queue: int
    pictures_per_hour: int | None = None
    disk: int | None = None
