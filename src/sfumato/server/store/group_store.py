"""Groups: jobs that were submitted together and are one thing, such as the pictures of a grid."""

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, delete, exists, insert, select
from sqlalchemy.exc import IntegrityError

from sfumato.server.jobs import JobGroup, JobView
from sfumato.server.limits import Limits
from sfumato.server.order import Turn
from sfumato.server.store.store import HISTORY_SECONDS, INPUT_SECONDS, NewJob, Store
from sfumato.server.store.tables import groups, inputs, jobs


class GroupStore(Store):
    """The server's memory, with groups of jobs."""

    def submit_group(
        self,
        kind: str,
        facts: Mapping[str, Any],
        new: Sequence[NewJob],
        *,
        owner: str,
        limits: Limits,
        idempotency_key: str | None = None,
    ) -> tuple[JobGroup, bool]:
        """Accept these jobs, all or none; their group, and whether it is new. As `submit`."""
        identifier = secrets.token_urlsafe(16)
        group = {
            "id": identifier,
            "owner": owner,
            "idempotency_key": idempotency_key,
            "kind": kind,
            "facts": json.dumps(facts, ensure_ascii=False),
            "created": time.time(),
        }
        placed = [replace(job, group=identifier, place=place) for place, job in enumerate(new)]
        try:
            return self._accepted_group(group, placed, limits)
        except IntegrityError:  # another server accepted it at the same time
            return self._accepted_group(group, placed, limits)

    def _accepted_group(
        self, group: Mapping[str, Any], new: Sequence[NewJob], limits: Limits
    ) -> tuple[JobGroup, bool]:
        owner, key = group["owner"], group["idempotency_key"]
        with self._lock, self._engine.begin() as connection:
            if key is not None:
                query = select(groups).where(groups.c.owner == owner, groups.c.idempotency_key == key)
                if (found := connection.execute(query).first()) is not None:
                    return _group(found), False
            self._accept(connection, new, owner, limits)
            connection.execute(insert(groups).values(**group))
            query = select(groups).where(groups.c.id == group["id"])
            return _group(connection.execute(query).one()), True

    def submit_again(self, identifiers: Sequence[str], *, limits: Limits) -> None:
        """Accept new jobs for the requests of others of one owner, in their groups and places. As `submit`.

        Raises `PictureError` where a picture that one began from is gone.
        """
        with self._lock, self._engine.begin() as connection:
            query = select(jobs).where(jobs.c.id.in_(identifiers)).order_by(jobs.c.sequence)
            rows = connection.execute(query).all()
            self._accept(
                connection, [self._once_more(connection, row) for row in rows], rows[0].owner, limits
            )

    def forget(
        self, *, input_seconds: float = INPUT_SECONDS, history_seconds: float = HISTORY_SECONDS
    ) -> None:
        """As in any store; and groups of which no job is left."""
        super().forget(input_seconds=input_seconds, history_seconds=history_seconds)
        gone = ~exists().where(jobs.c.group == groups.c.id)
        with self._lock, self._engine.begin() as connection:
            connection.execute(delete(groups).where(gone))

    def group(self, identifier: str, owner: str) -> JobGroup | None:
        """The group of exactly this name, if this owner has it."""
        query = select(groups).where(groups.c.id == identifier, groups.c.owner == owner)
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
            return None if row is None else _group(row)

    def group_jobs(self, identifier: str) -> dict[int, JobView]:
        """The jobs of a group by their places; of those of one place the newest."""
        query = select(jobs).where(jobs.c.group == identifier).order_by(jobs.c.sequence)
        with self._engine.connect() as connection:
            newest = {row.place: row for row in connection.execute(query)}
            return dict(zip(newest, self._views(connection, list(newest.values())), strict=True))

    def _once_more(self, connection: Connection, row: Row[Any]) -> NewJob:
        request = json.loads(row.request)
        self.whole(request)  # raises where a picture is gone, also one whose name is forgotten
        named = select(inputs.c.sha256).where(inputs.c.job == row.id)
        return NewJob(
            request,
            row._mapping["count"],
            row.priority,
            row.on_crash,
            round(row.turn - Turn(row.came, 0, row.priority).place),
            {digest: self.content(digest) for digest in connection.execute(named).scalars()},
            row.group,
            row.place,
        )


def _group(row: Row[Any]) -> JobGroup:
    return JobGroup(id=row.id, kind=row.kind, facts=json.loads(row.facts), created=row.created)
