"""Jobs and pictures, kept so that what was accepted ends exactly once, whatever happens to the process."""

import json
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, literal, or_, select, update
from sqlalchemy.exc import IntegrityError

from sfumato.files import make_folder
from sfumato.server.jobs import MAX_CRASHES, OPEN, JobState, JobView, OnCrash, PictureView
from sfumato.server.store.database import opened
from sfumato.server.store.picture_files import PictureFiles
from sfumato.server.store.picture_store import SHOWN, PictureStore
from sfumato.server.store.quota import BusyError, Quota
from sfumato.server.store.tables import jobs, pictures, servers

QUEUE_SECONDS = 5
"""After which a client may try again where the queue is full."""
LEASE_SECONDS = 10
"""After which a server that was not heard of has lost its jobs to the others."""


class Store(PictureStore):
    """The server's memory in `folder`. Several threads may use it; with PostgreSQL several servers too, if
    they have the same `folder`.
    """

    def __init__(self, folder: Path, url: str | None = None) -> None:
        make_folder(folder)
        super().__init__(opened(url, folder), PictureFiles(folder / "pictures"), secrets.token_urlsafe(16))
        self.shared = self._engine.dialect.name == "postgresql"
        """Whether other servers may use the same database."""
        self._quota = Quota()

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    # -- jobs

    def submit(
        self,
        request: Mapping[str, Any],
        *,
        owner: str,
        count: int,
        queue: int,
        quota: int | None = None,
        priority: int = 0,
        on_crash: OnCrash = "retry",
        idempotency_key: str | None = None,
    ) -> tuple[JobView, bool]:
        """Accept a job, and whether it is new: the same `idempotency_key` of an owner is the same job.

        Raises `BusyError` where `queue` jobs wait already, and where the owner would have asked for more than
        `quota` pictures within an hour.
        """
        values = asked(request, owner, count, priority, on_crash) | {"idempotency_key": idempotency_key}
        try:
            return self._accepted(values, queue, quota)
        except IntegrityError:  # another server accepted it at the same time
            return self._accepted(values, queue, quota)

    def _accepted(self, values: Mapping[str, Any], queue: int, quota: int | None) -> tuple[JobView, bool]:
        owner, key = values["owner"], values["idempotency_key"]
        with self._lock, self._engine.begin() as connection:
            if key is not None:
                query = select(jobs).where(jobs.c.owner == owner, jobs.c.idempotency_key == key)
                if (found := connection.execute(query).first()) is not None:
                    return self._view(connection, found), False
            [identifier] = self._accept(connection, [values], queue, quota)
            return self._view(connection, _job(connection, identifier)), True

    def admit(self, *, owner: str, count: int, queue: int, quota: int | None = None, others: int = 0) -> None:
        """Count a job that is not stored. Raises `BusyError` as `submit` does; `others`: those of its kind
        that wait.
        """
        with self._lock, self._engine.connect() as connection:
            self._check_room(connection, owner, 1, count, queue, quota, others)
            if quota is not None:
                self._quota.count(owner, count)

    def job(self, identifier: str, owner: str | None = None) -> JobView | None:
        """The job of exactly this name, if there is one (of this owner)."""
        with self._engine.connect() as connection:
            row = connection.execute(select(jobs).where(jobs.c.id == identifier)).first()
            if row is None or (owner is not None and row.owner != owner):
                return None
            return self._view(connection, row)

    def owns(self, owner: str, identifier: str) -> bool:
        """Whether the job of exactly this name is the owner's."""
        query = select(jobs.c.owner).where(jobs.c.id == identifier)
        with self._engine.connect() as connection:
            return bool(connection.execute(query).scalar_one_or_none() == owner)

    def list_jobs(
        self,
        *,
        owner: str | None = None,
        states: Sequence[JobState] = (),
        before: str | None = None,
        limit: int,
    ) -> list[JobView]:
        """Jobs, the newest first, from the one after the job named `before`."""
        query = select(jobs).order_by(jobs.c.sequence.desc()).limit(limit)
        if owner is not None:
            query = query.where(jobs.c.owner == owner)
        if states:
            query = query.where(jobs.c.state.in_(states))
        with self._engine.connect() as connection:
            if before is not None:
                place = select(jobs.c.sequence).where(jobs.c.id == before).scalar_subquery()
                query = query.where(jobs.c.sequence < place)
            return self._views(connection, connection.execute(query).all())

    def waiting(self, limit: int) -> list[JobView]:
        """Jobs to begin next: by priority, then in the order of their acceptance."""
        query = (
            select(jobs)
            .where(jobs.c.state == JobState.QUEUED)
            .order_by(jobs.c.priority.desc(), jobs.c.sequence)
            .limit(limit)
        )
        with self._engine.connect() as connection:
            return self._views(connection, connection.execute(query).all())

    def counts(self) -> dict[JobState, int]:
        """How many jobs are in each state."""
        query = select(jobs.c.state, func.count()).group_by(jobs.c.state)
        with self._engine.connect() as connection:
            found = {JobState(state): count for state, count in connection.execute(query)}
        return {state: found.get(state, 0) for state in JobState}

    def begin(self, identifier: str) -> bool:
        """This server takes the job up; whether it was still waiting, and no other server is taking it."""
        which = (jobs.c.id == identifier, jobs.c.state == JobState.QUEUED)
        taken = {"state": JobState.RUNNING, "started": time.time(), "server": self.server}
        with self._lock, self._engine.begin() as connection:
            free = select(jobs.c.sequence).where(*which).with_for_update(skip_locked=True)
            if connection.execute(free).first() is None:
                return False
            return bool(connection.execute(update(jobs).where(*which).values(**taken)).rowcount)

    def end(self, identifier: str, state: JobState, error: str | None = None, *, drawn: bool = False) -> bool:
        """The job is over; whether it was not before. `drawn`: only if this server draws it."""
        which = [jobs.c.id == identifier, jobs.c.state.in_(OPEN)]
        if drawn:
            which.append(jobs.c.server == self.server)
        change = {"state": state, "error": error, "ended": time.time()}
        with self._lock, self._engine.begin() as connection:
            return bool(connection.execute(update(jobs).where(*which).values(**change)).rowcount)

    def prioritise(self, identifier: str, priority: int) -> bool:
        """Give the job another priority; whether it was not over."""
        which = (jobs.c.id == identifier, jobs.c.state.in_(OPEN))
        with self._lock, self._engine.begin() as connection:
            return bool(connection.execute(update(jobs).where(*which).values(priority=priority)).rowcount)

    def running(self) -> set[str]:
        """The jobs that this server draws."""
        query = select(jobs.c.id).where(jobs.c.state == JobState.RUNNING, jobs.c.server == self.server)
        with self._engine.connect() as connection:
            return set(connection.execute(query).scalars())

    def beat(self) -> None:
        """This server lives. Servers that share a database say so more often than `LEASE_SECONDS`."""
        with self._lock, self._engine.begin() as connection:
            now = self._now()
            if not connection.execute(
                update(servers).where(servers.c.id == self.server).values(seen=now)
            ).rowcount:
                connection.execute(insert(servers).values(id=self.server, seen=now))
            connection.execute(delete(servers).where(servers.c.seen < now - LEASE_SECONDS))

    def lost(self) -> set[str]:
        """Running jobs whose server lives no more: an SQLite database has one server, this one."""
        query = select(jobs.c.id).where(jobs.c.state == JobState.RUNNING)
        query = query.where(or_(jobs.c.server.is_(None), jobs.c.server != self.server))
        if self.shared:
            living = select(servers.c.id).where(servers.c.seen >= self._now() - LEASE_SECONDS)
            query = query.where(or_(jobs.c.server.is_(None), jobs.c.server.not_in(living)))
        with self._engine.connect() as connection:
            return set(connection.execute(query).scalars())

    def give_up(self, identifiers: Iterable[str], reason: str, *, crashed: bool = False) -> list[JobView]:
        """Running jobs that nobody draws any more: those that may be retried wait again, the others fail.
        What became of each.

        `crashed`: the process that drew them ended, perhaps for one of them. None is drawn after
        `MAX_CRASHES` of these.
        """
        with self._lock, self._engine.begin() as connection:
            query = select(jobs).where(jobs.c.state == JobState.RUNNING, jobs.c.id.in_(list(identifiers)))
            lost = connection.execute(query.with_for_update()).all()
            for row in lost:
                crashes = row.crashes + crashed
                change: dict[str, Any] = {"state": JobState.QUEUED, "started": None, "crashes": crashes}
                if row.on_crash != "retry" or crashes >= MAX_CRASHES:
                    times = f" {crashes} times" if crashes > 1 else ""
                    change |= {"state": JobState.FAILED, "error": f"{reason}{times}", "ended": time.time()}
                connection.execute(update(jobs).where(jobs.c.id == row.id).values(**change))
            return [self._view(connection, _job(connection, row.id)) for row in lost]

    # -- parts

    def _accept(
        self, connection: Connection, rows: Sequence[Mapping[str, Any]], queue: int, quota: int | None
    ) -> list[str]:
        """Insert jobs of one owner; their names. Raises `BusyError`."""
        total = sum(row["count"] for row in rows)
        self._check_room(connection, rows[0]["owner"], len(rows), total, queue, quota)
        fresh = {"state": JobState.QUEUED, "crashes": 0}
        new = [{"id": secrets.token_urlsafe(16), "created": time.time(), **fresh, **row} for row in rows]
        connection.execute(insert(jobs), new)
        return [row["id"] for row in new]

    def _check_room(
        self,
        connection: Connection,
        owner: str,
        new: int,
        total: int,
        queue: int,
        quota: int | None,
        others: int = 0,
    ) -> None:
        waiting = _count(connection, JobState.QUEUED) + others
        if waiting + new > queue:
            raise BusyError(
                f"{waiting} jobs are waiting, of {queue} that may; try again later", QUEUE_SECONDS
            )
        if quota is not None:
            self._quota.check(connection, owner, total, quota)

    def _now(self) -> Any:
        """The clock that all servers share, in seconds."""
        return func.extract("epoch", func.clock_timestamp()) if self.shared else literal(time.time())

    def _view(self, connection: Connection, row: Row[Any]) -> JobView:
        return self._views(connection, [row])[0]

    def _views(self, connection: Connection, rows: Sequence[Row[Any]]) -> list[JobView]:
        query = select(*SHOWN).where(pictures.c.job.in_([row.id for row in rows]))
        drawn: dict[str, list[PictureView]] = {row.id: [] for row in rows}
        for each in self._pictures(connection, connection.execute(query.order_by(pictures.c.number)).all()):
            drawn[each.job].append(each)
        return [
            JobView(
                id=row.id,
                state=JobState(row.state),
                priority=row.priority,
                on_crash=row.on_crash,
                crashes=row.crashes,
                model=row.model,
                request=json.loads(row.request),
                count=row._mapping["count"],
                group=row.group,
                place=row.place,
                pictures=tuple(drawn[row.id]),
                error=row.error,
                created=row.created,
                started=row.started,
                ended=row.ended,
            )
            for row in rows
        ]


def asked(
    request: Mapping[str, Any], owner: str, count: int, priority: int, on_crash: OnCrash
) -> dict[str, Any]:
    """What a new job's row has of its request."""
    return {
        "owner": owner,
        "priority": priority,
        "on_crash": on_crash,
        "model": request["model"],
        "request": json.dumps(request, ensure_ascii=False),
        "count": count,
    }


def _job(connection: Connection, identifier: str) -> Row[Any]:
    return connection.execute(select(jobs).where(jobs.c.id == identifier)).one()


def _count(connection: Connection, state: JobState) -> int:
    return int(connection.execute(select(func.count()).where(jobs.c.state == state)).scalar_one())
