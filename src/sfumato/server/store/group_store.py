"""Groups: jobs that were submitted together and are one thing, such as the pictures of a grid."""

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, insert, select
from sqlalchemy.exc import IntegrityError

from sfumato.server.jobs import JobGroup, JobView, OnCrash
from sfumato.server.store.store import Store, asked
from sfumato.server.store.tables import groups, jobs


class GroupStore(Store):
    """The server's memory, with groups of jobs."""

    def submit_group(
        self,
        kind: str,
        facts: Mapping[str, Any],
        requests: Sequence[Mapping[str, Any]],
        *,
        owner: str,
        queue: int,
        quota: int | None = None,
        priority: int = 0,
        on_crash: OnCrash = "retry",
        idempotency_key: str | None = None,
    ) -> tuple[JobGroup, bool]:
        """Accept a job of one picture for each of `requests`, all or none; the group, and whether it is new.

        As `submit`.
        """
        identifier = secrets.token_urlsafe(16)
        group = {
            "id": identifier,
            "owner": owner,
            "idempotency_key": idempotency_key,
            "kind": kind,
            "facts": json.dumps(facts, ensure_ascii=False),
            "created": time.time(),
        }
        rows = [
            {**asked(each, owner, 1, priority, on_crash), "group": identifier, "place": place}
            for place, each in enumerate(requests)
        ]
        try:
            return self._accepted_group(group, rows, queue, quota)
        except IntegrityError:  # another server accepted it at the same time
            return self._accepted_group(group, rows, queue, quota)

    def _accepted_group(
        self, group: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], queue: int, quota: int | None
    ) -> tuple[JobGroup, bool]:
        owner, key = group["owner"], group["idempotency_key"]
        with self._lock, self._engine.begin() as connection:
            if key is not None:
                query = select(groups).where(groups.c.owner == owner, groups.c.idempotency_key == key)
                if (found := connection.execute(query).first()) is not None:
                    return _group(found), False
            self._accept(connection, rows, queue, quota)
            connection.execute(insert(groups).values(**group))
            query = select(groups).where(groups.c.id == group["id"])
            return _group(connection.execute(query).one()), True

    def submit_again(self, identifiers: Sequence[str], *, queue: int, quota: int | None = None) -> None:
        """Accept new jobs for the requests of others, in their groups and places. As `submit`."""
        names = ("owner", "priority", "on_crash", "model", "request", "count", "group", "place")
        with self._lock, self._engine.begin() as connection:
            query = select(*(jobs.c[name] for name in names)).where(jobs.c.id.in_(identifiers))
            rows = [dict(row._mapping) for row in connection.execute(query.order_by(jobs.c.sequence))]
            self._accept(connection, rows, queue, quota)

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


def _group(row: Row[Any]) -> JobGroup:
    return JobGroup(id=row.id, kind=row.kind, facts=json.loads(row.facts), created=row.created)
