"""How much may be asked of the server at once."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Up to where jobs are accepted and pictures kept: `queue` jobs may wait, and a key may ask for
    `pictures_per_hour`. Pictures, and those that jobs begin from, may take `disk` bytes, and those of each
    key `disk_per_key`.
    """

    queue: int
    pictures_per_hour: int | None = None
    disk: int | None = None
    disk_per_key: int | None = None
