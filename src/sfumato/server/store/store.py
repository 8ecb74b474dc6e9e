"""Jobs and pictures, kept so that what was accepted ends exactly once, whatever happens to the process."""

import json
import secrets
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, func, insert, literal, or_, select, update
from sqlalchemy.exc import IntegrityError

from sfumato.files import make_folder
from sfumato.server.jobs import (
    MAX_CRASHES,
    OPEN,
    JobKind,
    JobState,
    JobView,
    OnCrash,
    PictureView,
    WaitingJob,
)
from sfumato.server.limits import Limits
from sfumato.server.order import PRIORITY, Turn
from sfumato.server.store.database import opened
from sfumato.server.store.input_store import EMPTY, InputStore
from sfumato.server.store.picture_store import AT_ONCE, SHOWN
from sfumato.server.store.quota import QUEUE_SECONDS, BusyError, Quota
from sfumato.server.store.tables import inputs, jobs, pictures, servers

LEASE_SECONDS = 10
"""After which a server that was not heard of has lost its jobs to the others."""
INPUT_SECONDS = 24 * 3600
"""How long after a job of which no picture is left the pictures that it began from are kept."""
HISTORY_SECONDS = 30 * INPUT_SECONDS
"""How long such a job is remembered."""


@dataclass(frozen=True, eq=False)
class NewJob:
    """A job to accept. `work`: about how many evaluations it takes. `contents`: of the pictures that its
    request names, by their hashes. `place`: which of the jobs of its `group`.
    """

    request: Mapping[str, Any]
    count: int = 1
    priority: int = 0
    on_crash: OnCrash = "retry"
    work: int = 0
    contents: Mapping[str, bytes] = field(default_factory=dict)
    group: str | None = None
    place: int | None = None
    kind: JobKind = JobKind.DRAW

    def row(self, came: int) -> dict[str, Any]:
        """Its values in the table, where it is accepted when the clock says `came`."""
        return {
            "state": JobState.QUEUED,
            "priority": self.priority,
            "on_crash": self.on_crash,
            "crashes": 0,
            "model": self.request["model"],
            "request": json.dumps(self.request, ensure_ascii=False),
            "count": self.count,
            "group": self.group,
            "place": self.place,
            "kind": self.kind,
            "came": came,
            "turn": Turn(came, self.work, self.priority).place,
        }


class Store(InputStore):
    """The server's memory in `folder`. Several threads may use it; with PostgreSQL several servers too, if
    they have the same `folder`.
    """

    def __init__(self, folder: Path, url: str | None = None) -> None:
        make_folder(folder)
        super().__init__(opened(url, folder), folder, secrets.token_urlsafe(16))
        self.shared = self._engine.dialect.name == "postgresql"
        """Whether other servers may use the same database."""
        self._quota = Quota()
        self._evaluations = self._before = 0
        """Those of this server; those that others, or its last run, had done when it began."""
        with self._lock, self._engine.begin() as connection:
            self._wind(connection)
            self._hold_content(connection)
            self._sweep_inputs(connection)

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    # -- jobs

    def submit(
        self,
        new: NewJob,
        *,
        owner: str,
        limits: Limits,
        idempotency_key: str | None = None,
    ) -> tuple[JobView, bool]:
        """Accept a job, and whether it is new: the same `idempotency_key` of an owner is the same job.

        Raises `BusyError` where that passes the `limits`; `OutputError` where a picture cannot be written.
        """
        try:
            return self._accepted(new, owner, idempotency_key, limits)
        except IntegrityError:  # another server accepted it at the same time
            return self._accepted(new, owner, idempotency_key, limits)

    def _accepted(self, new: NewJob, owner: str, key: str | None, limits: Limits) -> tuple[JobView, bool]:
        with self._lock, self._engine.begin() as connection:
            if key is not None and (found := connection.execute(_submitted(owner, key)).first()) is not None:
                return self._view(connection, found), False
            [identifier] = self._accept(connection, [new], owner, limits, key)
            return self._view(connection, _job(connection, identifier)), True

    def admit(self, *, owner: str, count: int, limits: Limits, others: int = 0) -> None:
        """Count a job that is not stored. Raises `BusyError` as `submit` does; `others`: those of its kind
        that wait.
        """
        with self._lock, self._engine.connect() as connection:
            self._check_room(connection, owner, 1, count, limits, others)
            if limits.pictures_per_hour is not None:
                self._quota.count(owner, count)

    def _accept(
        self,
        connection: Connection,
        new: Sequence[NewJob],
        owner: str,
        limits: Limits,
        key: str | None = None,
    ) -> list[str]:
        """Insert jobs of one owner, one of them if with an idempotency `key`; their names. As `submit`."""
        self._check_room(connection, owner, len(new), sum(job.count for job in new), limits)
        came = self._wind(connection)
        common = {"owner": owner, "created": time.time(), "idempotency_key": key}
        rows = [{"id": secrets.token_urlsafe(16), **common, **job.row(came)} for job in new]
        connection.execute(insert(jobs), rows)
        if any(job.contents for job in new):
            self._hold_content(connection)
            named = ((row["id"], job.contents) for row, job in zip(rows, new, strict=True))
            self._hold_inputs(connection, named, owner, limits)
        return [row["id"] for row in rows]

    def job(self, identifier: str, owner: str | None = None, kind: JobKind | None = None) -> JobView | None:
        """The job of exactly this name, if there is one (of this owner, and of this kind)."""
        with self._engine.connect() as connection:
            row = connection.execute(select(jobs).where(jobs.c.id == identifier)).first()
            if row is None or owner not in (None, row.owner) or kind not in (None, row.kind):
                return None
            return self._view(connection, row)

    def submitted(self, owner: str, idempotency_key: str) -> JobView | None:
        """The job that an owner submitted with this key."""
        with self._engine.connect() as connection:
            row = connection.execute(_submitted(owner, idempotency_key)).first()
            return None if row is None else self._view(connection, row)

    def owns(self, owner: str, identifier: str) -> bool:
        """Whether the job of exactly this name is one of the owner's that draw."""
        query = select(jobs.c.owner).where(jobs.c.id == identifier, jobs.c.kind == JobKind.DRAW)
        with self._engine.connect() as connection:
            return bool(connection.execute(query).scalar_one_or_none() == owner)

    def list_jobs(
        self,
        *,
        owner: str | None = None,
        states: Sequence[JobState] = (),
        before: str | None = None,
        limit: int,
        kind: JobKind = JobKind.DRAW,
    ) -> list[JobView]:
        """Jobs of a kind, the newest first, from the one after the job named `before`."""
        query = select(jobs).where(jobs.c.kind == kind).order_by(jobs.c.sequence.desc()).limit(limit)
        if owner is not None:
            query = query.where(jobs.c.owner == owner)
        if states:
            query = query.where(jobs.c.state.in_(states))
        with self._engine.connect() as connection:
            if before is not None:
                place = select(jobs.c.sequence).where(jobs.c.id == before).scalar_subquery()
                query = query.where(jobs.c.sequence < place)
            return self._views(connection, connection.execute(query).all())

    def waiting(self, limit: int, kind: JobKind = JobKind.DRAW) -> list[WaitingJob]:
        """Jobs of a kind to begin next: by priority, then by the work they are and how long they have
        waited.
        """
        query = select(jobs).where(jobs.c.state == JobState.QUEUED, jobs.c.kind == kind)
        query = query.order_by(jobs.c.turn, jobs.c.sequence).limit(limit)
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
            views = self._views(connection, rows)
        now = self.clock
        return [
            WaitingJob(**vars(view), turn=row.turn, waited=max(now - row.came, 0))
            for view, row in zip(views, rows, strict=True)
        ]

    @property
    def clock(self) -> int:
        """How many evaluations were done, as far as this server knows."""
        return self._before + self._evaluations

    def evaluated(self) -> None:
        """The network was evaluated for some job. In one thread."""
        self._evaluations += 1

    def counts(self) -> dict[JobState, int]:
        """How many jobs are in each state."""
        query = select(jobs.c.state, func.count()).group_by(jobs.c.state)
        with self._engine.connect() as connection:
            found = {JobState(state): count for state, count in connection.execute(query)}
        return {state: found.get(state, 0) for state in JobState}

    def begin(self, identifiers: Collection[str]) -> set[str]:
        """This server takes jobs up; those that were still waiting, and that no other server is taking."""
        which = (jobs.c.id.in_(identifiers), jobs.c.state == JobState.QUEUED)
        taken = {"state": JobState.RUNNING, "started": time.time(), "server": self.server}
        with self._lock, self._engine.begin() as connection:
            free = select(jobs.c.id).where(*which).with_for_update(skip_locked=True)
            begun = set(connection.execute(free).scalars())
            if begun:
                connection.execute(update(jobs).where(jobs.c.id.in_(begun)).values(**taken))
            return begun

    def skip(self, identifier: str) -> int | None:
        """Leave out the first picture of a job that is neither drawn nor left out; its number, if there is
        one and the job is not over.
        """
        which = (jobs.c.id == identifier, jobs.c.state.in_(OPEN))
        with self._lock, self._engine.begin() as connection:
            row = connection.execute(select(jobs).where(*which).with_for_update()).first()
            if row is None:
                return None
            job = self._view(connection, row)
            over = {*job.skipped, *(picture.number for picture in job.pictures)}
            number = next((each for each in range(job.count) if each not in over), None)
            if number is not None:
                skipped = json.dumps([*job.skipped, number])
                connection.execute(update(jobs).where(jobs.c.id == identifier).values(skipped=skipped))
            return number

    def end(self, identifier: str, state: JobState, error: str | None = None, *, drawn: bool = False) -> bool:
        """The job is over; whether it was not before. `drawn`: only if this server draws it."""
        which = [jobs.c.id == identifier, jobs.c.state.in_(OPEN)]
        if drawn:
            which.append(jobs.c.server == self.server)
        change = {"state": state, "error": error, "ended": time.time()}
        with self._lock, self._engine.begin() as connection:
            return bool(connection.execute(update(jobs).where(*which).values(**change)).rowcount)

    def prioritise(self, priorities: Mapping[str, int], owner: str) -> dict[str, JobState]:
        """Give jobs of a key other priorities, all at once; the states of those that were not over."""
        which = (jobs.c.owner == owner, jobs.c.state.in_(OPEN))
        with self._lock, self._engine.begin() as connection:
            for identifier, priority in sorted(priorities.items()):
                turn = jobs.c.turn + PRIORITY * (jobs.c.priority - float(priority))
                change = update(jobs).where(jobs.c.id == identifier, *which)
                connection.execute(change.values(priority=priority, turn=turn))
            query = select(jobs.c.id, jobs.c.state).where(jobs.c.id.in_(list(priorities)), *which)
            return {row.id: JobState(row.state) for row in connection.execute(query)}

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

    def forget(
        self, *, input_seconds: float = INPUT_SECONDS, history_seconds: float = HISTORY_SECONDS
    ) -> None:
        """Of jobs that are over and of which no picture is left, remove the pictures that they began from,
        and later the jobs.
        """
        now = time.time()
        query = select(inputs.c.job).distinct().join(jobs, jobs.c.id == inputs.c.job)
        for names in self._pages(query.where(*EMPTY, jobs.c.ended < now - input_seconds)):
            with self._lock, self._engine.begin() as connection:
                self._hold_content(connection)
                self._drop_inputs(connection, names)
        query = select(jobs.c.id).where(*EMPTY, jobs.c.ended < now - history_seconds)
        for names in self._pages(query):
            with self._lock, self._engine.begin() as connection:
                connection.execute(delete(jobs).where(jobs.c.id.in_(names)))

    # -- parts

    def _check_room(
        self,
        connection: Connection,
        owner: str,
        new: int,
        total: int,
        limits: Limits,
        others: int = 0,
    ) -> None:
        waiting = _count(connection, JobState.QUEUED) + others
        if waiting + new > limits.queue:
            raise BusyError(
                f"{waiting} jobs are waiting, of {limits.queue} that may; try again later", QUEUE_SECONDS
            )
        if limits.pictures_per_hour is not None:
            self._quota.check(connection, owner, total, limits.pictures_per_hour)

    def _pages(self, query: Any) -> list[Sequence[str]]:
        """What a query of names finds, in parts that a statement can name."""
        with self._engine.connect() as connection:
            names = connection.execute(query).scalars().all()
        return [names[start : start + AT_ONCE] for start in range(0, len(names), AT_ONCE)]

    def _wind(self, connection: Connection) -> int:
        """The clock of evaluations, which goes on from where the last accepted job saw it."""
        last = connection.execute(select(jobs.c.came).order_by(jobs.c.sequence.desc()).limit(1)).scalar()
        self._before = max(self._before, (last or 0) - self._evaluations)
        return self.clock

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
                rank=round(row.turn + PRIORITY * row.priority, 3),
                on_crash=row.on_crash,
                crashes=row.crashes,
                model=row.model,
                request=json.loads(row.request),
                count=row._mapping["count"],
                group=row.group,
                place=row.place,
                pictures=tuple(drawn[row.id]),
                skipped=tuple(json.loads(row.skipped)),
                error=row.error,
                created=row.created,
                started=row.started,
                ended=row.ended,
                kind=JobKind(row.kind),
            )
            for row in rows
        ]


def _job(connection: Connection, identifier: str) -> Row[Any]:
    return connection.execute(select(jobs).where(jobs.c.id == identifier)).one()


def _submitted(owner: str, key: str) -> Select[Any]:
    return select(jobs).where(jobs.c.owner == owner, jobs.c.idempotency_key == key)


def _count(connection: Connection, state: JobState) -> int:
    return int(connection.execute(select(func.count()).where(jobs.c.state == state)).scalar_one())
