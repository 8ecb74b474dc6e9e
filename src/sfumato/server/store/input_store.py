"""Pictures that requests begin from: kept once by their content, as long as their jobs need them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, exists, func, insert, select
from sqlalchemy import Engine as Database

from sfumato.errors import PictureError
from sfumato.server.jobs import ENDED
from sfumato.server.limits import Limits
from sfumato.server.store.input_files import InputFiles, filled_in
from sfumato.server.store.picture_store import AT_ONCE, PictureStore
from sfumato.server.store.quota import QUEUE_SECONDS, BusyError
from sfumato.server.store.tables import inputs, jobs, pictures

EMPTY = (jobs.c.state.in_(ENDED), ~exists().where(pictures.c.job == jobs.c.id))
"""Of jobs that are over and of which no picture is left."""


class InputStore(PictureStore):
    """The pictures that the jobs of a server have drawn, and those that they began from."""

    def __init__(self, database: Database, folder: Path, server: str) -> None:
        super().__init__(database, folder / "pictures", server)
        self.inputs = InputFiles(folder / "inputs")

    def input(self, digest: str, owner: str) -> bytes | None:
        """A picture of this hash that a job of the owner began from, while it is kept."""
        named = select(inputs.c.job).join(jobs, jobs.c.id == inputs.c.job)
        named = named.where(inputs.c.sha256 == digest, jobs.c.owner == owner).limit(1)
        with self._engine.connect() as connection:
            found = connection.execute(named).first()
        return None if found is None else self.inputs.read(digest)

    def whole(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """A job's request with the bytes of its pictures. Raises `PictureError` where one is gone."""
        filled: dict[str, Any] = filled_in(request, self.content)
        return filled

    def content(self, digest: str) -> bytes:
        """The bytes of a picture that a request begins from. Raises `PictureError` where it is gone."""
        found = self.inputs.read(digest)
        if found is None:
            raise PictureError("a picture that the request begins from is no longer there")
        return found

    # -- parts

    def _hold_inputs(
        self,
        connection: Connection,
        named: Iterable[tuple[str, Mapping[str, bytes]]],
        owner: str,
        limits: Limits,
    ) -> None:
        """Keep the pictures, by their hashes, that each of these jobs of `owner` begins from. Raises
        `BusyError`.
        """
        contents: dict[str, bytes] = {}
        rows = []
        for job, each in named:
            contents |= each
            rows += [
                {"job": job, "sha256": digest, "bytes": len(content)} for digest, content in each.items()
            ]
        connection.execute(insert(inputs), rows)
        for limit, whose in ((limits.disk, None), (limits.disk_per_key, owner)):
            if limit is not None and (taken := self._open_input_bytes(connection, whose)) > limit:
                raise BusyError(
                    f"the pictures that jobs begin from would take {taken:,} bytes, of {limit:,} that may be "
                    "kept; try again later",
                    QUEUE_SECONDS,
                )
        for content in contents.values():
            self.inputs.add(content)

    def _drop_inputs(self, connection: Connection, names: Sequence[str]) -> None:
        """Forget the pictures that these jobs began from; the files that no other job has are removed."""
        which = inputs.c.job.in_(names)
        digests = set(connection.execute(select(inputs.c.sha256).where(which)).scalars())
        connection.execute(delete(inputs).where(which))
        kept = select(inputs.c.sha256).where(inputs.c.sha256.in_(digests))
        for digest in digests - set(connection.execute(kept).scalars()):
            self.inputs.remove(digest)

    def _sweep_inputs(self, connection: Connection) -> None:
        """Remove files that no job names: their submissions were cut off."""
        kept = set(connection.execute(select(inputs.c.sha256).distinct()).scalars())
        for digest in set(self.inputs.digests()) - kept:
            self.inputs.remove(digest)

    def _taken(self, connection: Connection, owner: str | None = None) -> int:
        whose = () if owner is None else (jobs.c.owner == owner,)
        return super()._taken(connection, owner) + _input_bytes(connection, *whose)

    def _open_input_bytes(self, connection: Connection, owner: str | None) -> int:
        """What the pictures take that jobs (of this owner) begin from which are not over."""
        whose = () if owner is None else (jobs.c.owner == owner,)
        return _input_bytes(connection, jobs.c.state.not_in(ENDED), *whose)

    def _remove(self, connection: Connection, rows: Sequence[Any]) -> None:
        """As in any store; with the last picture of a job go those that it began from."""
        super()._remove(connection, rows)
        query = select(jobs.c.id).where(jobs.c.id.in_({row.job for row in rows}), *EMPTY)
        self._drop_inputs(connection, connection.execute(query).scalars().all())

    def _make_room(self, connection: Connection, limit: int, owner: str | None = None) -> int:
        """As in any store; first go the pictures that jobs began from of which nothing is left."""
        query = select(jobs.c.id).where(jobs.c.id.in_(select(inputs.c.job)), *EMPTY)
        query = query.order_by(jobs.c.ended).limit(AT_ONCE)
        if owner is not None:
            query = query.where(jobs.c.owner == owner)
        while self._taken(connection, owner) > limit:
            names = connection.execute(query).scalars().all()
            if not names:
                break
            self._drop_inputs(connection, names)
        return super()._make_room(connection, limit, owner)


def _input_bytes(connection: Connection, *which: Any) -> int:
    """What the pictures take that jobs begin from, each counted once: of jobs where all of `which` is so."""
    each = select(inputs.c.sha256, inputs.c.bytes)
    if which:
        each = each.where(inputs.c.job.in_(select(jobs.c.id).where(*which)))
    once = each.distinct().subquery()
    return int(connection.execute(select(func.coalesce(func.sum(once.c.bytes), 0))).scalar_one())
