"""Jobs and pictures, kept so that what was accepted ends exactly once, whatever happens to the process."""

import json
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from threading import RLock
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, literal_column, or_, select, text, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from sfumato.errors import OutputError, SfumatoError
from sfumato.files import make_folder
from sfumato.server.jobs import MAX_CRASHES, OPEN, JobState, JobView, OnCrash, PictureView
from sfumato.server.store.database import opened
from sfumato.server.store.picture_files import PictureFiles
from sfumato.server.store.tables import jobs, pictures, tags

QUEUE_SECONDS = 5
"""After which a client may try again where the queue is full."""
QUOTA_SECONDS = 3600
UNDO_SECONDS = 24 * 3600
"""How long a deleted picture can be brought back."""


class BusyError(SfumatoError):
    """No more may be asked for now; `seconds` from now perhaps."""

    def __init__(self, text: str, seconds: int) -> None:
        super().__init__(text)
        self.seconds = seconds


class Store:
    """The server's memory in `folder`. Several threads may use it."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        make_folder(folder)
        self.files = PictureFiles(folder / "pictures")
        self._engine = opened(url, folder)
        self._lock = RLock()

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
        with self._lock, self._engine.begin() as connection:
            if idempotency_key is not None:
                found = connection.execute(
                    select(jobs).where(jobs.c.owner == owner, jobs.c.idempotency_key == idempotency_key)
                ).first()
                if found is not None:
                    return self._view(connection, found), False
            waiting = _count(connection, JobState.QUEUED)
            if waiting >= queue:
                raise BusyError(f"{waiting} jobs are waiting, as many as may; try again later", QUEUE_SECONDS)
            if quota is not None:
                _check_quota(connection, owner, count, quota)
            identifier = secrets.token_urlsafe(16)
            connection.execute(
                insert(jobs).values(
                    id=identifier,
                    state=JobState.QUEUED,
                    owner=owner,
                    idempotency_key=idempotency_key,
                    priority=priority,
                    on_crash=on_crash,
                    crashes=0,
                    model=request["model"],
                    request=json.dumps(request, ensure_ascii=False),
                    count=count,
                    created=time.time(),
                )
            )
            return self._view(connection, _job(connection, identifier)), True

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
        """A worker takes the job up; whether it was still waiting."""
        return self._move(identifier, (JobState.QUEUED,), {"state": JobState.RUNNING, "started": time.time()})

    def end(self, identifier: str, state: JobState, error: str | None = None) -> bool:
        """The job is over; whether it was not before."""
        return self._move(identifier, OPEN, {"state": state, "error": error, "ended": time.time()})

    def prioritise(self, identifier: str, priority: int) -> bool:
        """Give the job another priority; whether it was not over."""
        return self._move(identifier, OPEN, {"priority": priority})

    def give_up(
        self, identifiers: Iterable[str] | None, reason: str, *, crashed: bool = False
    ) -> list[JobView]:
        """Running jobs that nobody draws any more, or all of them: those that may be retried wait again, the
        others fail. What became of each.

        `crashed`: the process that drew them ended, perhaps for one of them. None is drawn after
        `MAX_CRASHES` of these.
        """
        with self._lock, self._engine.begin() as connection:
            query = select(jobs).where(jobs.c.state == JobState.RUNNING)
            if identifiers is not None:
                query = query.where(jobs.c.id.in_(list(identifiers)))
            lost = connection.execute(query).all()
            for row in lost:
                crashes = row.crashes + crashed
                change: dict[str, Any] = {"state": JobState.QUEUED, "started": None, "crashes": crashes}
                if row.on_crash != "retry" or crashes >= MAX_CRASHES:
                    times = f" {crashes} times" if crashes > 1 else ""
                    change |= {"state": JobState.FAILED, "error": f"{reason}{times}", "ended": time.time()}
                connection.execute(update(jobs).where(jobs.c.id == row.id).values(**change))
            return [self._view(connection, _job(connection, row.id)) for row in lost]

    # -- pictures

    def add_picture(
        self, job: str, number: int, content: bytes, facts: Mapping[str, Any]
    ) -> PictureView | None:
        """Keep a running job's picture, PNG bytes; `None` if the job is over or has that picture already.

        `facts`: width, height, seed, prompt, negative, model and record (text). Raises `OutputError` where it
        cannot be written.
        """
        values = {
            "id": secrets.token_urlsafe(16),
            "job": job,
            "number": number,
            "bytes": len(content),
            "created": time.time(),
            **facts,
        }
        with self._lock:
            try:
                with self._engine.begin() as connection:
                    if _job(connection, job).state != JobState.RUNNING:
                        return None
                    digest = self.files.add(content)
                    connection.execute(insert(pictures).values(sha256=digest, **values))
                    row = connection.execute(select(pictures).where(pictures.c.id == values["id"])).one()
                    return _picture(row, ())
            except IntegrityError:
                return None
            except SQLAlchemyError as error:
                raise OutputError(f"cannot keep a picture: {error}") from None

    def picture(self, identifier: str, owner: str | None = None) -> PictureView | None:
        """The picture of exactly this name, if there is one (of this owner's jobs)."""
        query = select(pictures).where(pictures.c.id == identifier)
        if owner is not None:
            query = query.join(jobs, jobs.c.id == pictures.c.job).where(jobs.c.owner == owner)
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
            return None if row is None else self._pictures(connection, [row])[0]

    def record(self, identifier: str) -> str:
        """The record of a picture, JSON text."""
        with self._engine.connect() as connection:
            query = select(pictures.c.record).where(pictures.c.id == identifier)
            return str(connection.execute(query).scalar_one())

    def search(
        self,
        words: str = "",
        *,
        owner: str | None = None,
        tag: str | None = None,
        favourite: bool | None = None,
        deleted: bool = False,
        before: str | None = None,
        limit: int,
    ) -> list[PictureView]:
        """Pictures, the newest first, whose prompts hold all `words`, from the one after `before`."""
        query = select(pictures).order_by(pictures.c.sequence.desc()).limit(limit)
        query = query.where(pictures.c.deleted.is_not(None) if deleted else pictures.c.deleted.is_(None))
        if owner is not None:
            query = query.join(jobs, jobs.c.id == pictures.c.job).where(jobs.c.owner == owner)
        if favourite is not None:
            query = query.where(pictures.c.favourite.is_(favourite))
        if tag is not None:
            query = query.where(pictures.c.id.in_(select(tags.c.picture).where(tags.c.tag == tag)))
        if before is not None:
            place = select(pictures.c.sequence).where(pictures.c.id == before).scalar_subquery()
            query = query.where(pictures.c.sequence < place)
        # no database takes NUL in a text
        if found := words.replace("\0", " ").split():
            query = query.where(self._holds(found))
        with self._engine.connect() as connection:
            return self._pictures(connection, connection.execute(query).all())

    def change_picture(
        self, identifier: str, *, favourite: bool | None = None, names: Iterable[str] | None = None
    ) -> None:
        """Make a picture a favourite or not, and give it other tags."""
        with self._lock, self._engine.begin() as connection:
            if favourite is not None:
                connection.execute(
                    update(pictures).where(pictures.c.id == identifier).values(favourite=favourite)
                )
            if names is not None:
                connection.execute(delete(tags).where(tags.c.picture == identifier))
                rows = [{"picture": identifier, "tag": name} for name in dict.fromkeys(names)]
                if rows:
                    connection.execute(insert(tags), rows)

    def delete_picture(self, identifier: str) -> None:
        """Delete a picture, for now."""
        self._mark(identifier, time.time())

    def restore_picture(self, identifier: str) -> None:
        """Bring a deleted picture back."""
        self._mark(identifier, None)

    def tidy(self, limit: int | None = None, *, undo_seconds: float = UNDO_SECONDS) -> int:
        """Remove what was deleted long ago, then the oldest pictures that are no favourites until all take at
        most `limit` bytes; how many went.
        """
        gone: list[Row[Any]] = []
        with self._lock:
            with self._engine.begin() as connection:
                old = pictures.c.deleted < time.time() - undo_seconds
                gone += connection.execute(select(pictures).where(old)).all()
                if limit is not None:
                    total = int(
                        connection.execute(select(func.coalesce(func.sum(pictures.c.bytes), 0))).scalar_one()
                    )
                    total -= sum(row.bytes for row in gone)
                    oldest = (
                        select(pictures)
                        .where(pictures.c.favourite.is_(False), or_(pictures.c.deleted.is_(None), ~old))
                        .order_by(pictures.c.deleted.is_(None), pictures.c.sequence)
                    )
                    for row in connection.execute(oldest) if total > limit else ():
                        if total <= limit:
                            break
                        gone.append(row)
                        total -= row.bytes
                names = [row.id for row in gone]
                connection.execute(delete(tags).where(tags.c.picture.in_(names)))
                connection.execute(delete(pictures).where(pictures.c.id.in_(names)))
                digests = {row.sha256 for row in gone}
                kept = select(pictures.c.sha256).where(pictures.c.sha256.in_(digests))
                digests -= set(connection.execute(kept).scalars())
            for digest in digests:
                self.files.remove(digest)
        return len(gone)

    # -- parts

    def _move(self, identifier: str, states: Sequence[JobState], change: Mapping[str, Any]) -> bool:
        """Change a job that is in one of `states`; whether it was."""
        where = (jobs.c.id == identifier, jobs.c.state.in_(states))
        with self._lock, self._engine.begin() as connection:
            return bool(connection.execute(update(jobs).where(*where).values(**change)).rowcount)

    def _mark(self, identifier: str, deleted: float | None) -> None:
        with self._lock, self._engine.begin() as connection:
            connection.execute(update(pictures).where(pictures.c.id == identifier).values(deleted=deleted))

    def _holds(self, words: Sequence[str]) -> Any:
        """The condition that a picture's prompts hold all words, each as the beginning of one."""
        if self._engine.dialect.name == "sqlite":
            asked = " ".join('"' + word.replace('"', '""') + '"*' for word in words)
            found = "pictures.sequence IN (SELECT rowid FROM picture_words WHERE picture_words MATCH :asked)"
            return text(found).bindparams(asked=asked)
        asked = " & ".join("'" + word.replace("'", "''").replace("\\", "\\\\") + "':*" for word in words)
        vector = func.to_tsvector("simple", pictures.c.prompt + " " + pictures.c.negative)
        return vector.op("@@")(func.to_tsquery(literal_column("'simple'"), asked))

    def _view(self, connection: Connection, row: Row[Any]) -> JobView:
        return self._views(connection, [row])[0]

    def _views(self, connection: Connection, rows: Sequence[Row[Any]]) -> list[JobView]:
        query = select(pictures).where(pictures.c.job.in_([row.id for row in rows]))
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
                pictures=tuple(drawn[row.id]),
                error=row.error,
                created=row.created,
                started=row.started,
                ended=row.ended,
            )
            for row in rows
        ]

    def _pictures(self, connection: Connection, rows: Sequence[Row[Any]]) -> list[PictureView]:
        names: dict[str, list[str]] = {row.id: [] for row in rows}
        query = select(tags).where(tags.c.picture.in_(list(names))).order_by(tags.c.tag)
        for tag in connection.execute(query):
            names[tag.picture].append(tag.tag)
        return [_picture(row, names[row.id]) for row in rows]


def _job(connection: Connection, identifier: str) -> Row[Any]:
    return connection.execute(select(jobs).where(jobs.c.id == identifier)).one()


def _count(connection: Connection, state: JobState) -> int:
    return int(connection.execute(select(func.count()).where(jobs.c.state == state)).scalar_one())


def _check_quota(connection: Connection, owner: str, count: int, quota: int) -> None:
    """Raise `BusyError` where an owner has asked for too much lately."""
    now = time.time()
    lately = (jobs.c.owner == owner, jobs.c.created > now - QUOTA_SECONDS)
    query = select(func.coalesce(func.sum(jobs.c.count), 0), func.min(jobs.c.created)).where(*lately)
    asked, first = connection.execute(query).one()
    if asked + count > quota:
        seconds = max(int((first or now) + QUOTA_SECONDS - now) + 1, 1)
        raise BusyError(f"{asked} pictures were asked for within an hour, of {quota} that may be", seconds)


def _picture(row: Row[Any], names: Sequence[str]) -> PictureView:
    given = {name: getattr(row, name) for name in PictureView.model_fields if name != "tags"}
    return PictureView(**given, tags=tuple(names))
