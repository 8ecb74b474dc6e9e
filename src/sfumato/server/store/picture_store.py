"""Pictures and clips: kept once by their content, found by their words, changed, deleted and brought back."""

import json
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from threading import RLock
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    Select,
    column,
    delete,
    false,
    func,
    insert,
    literal_column,
    select,
    table,
    text,
    update,
)
from sqlalchemy import Engine as Database
from sqlalchemy.exc import IntegrityError

from sfumato.server.jobs import JobState, PictureView
from sfumato.server.limits import Limits
from sfumato.server.store.conditions import drawn_in_style, drawn_with_sampler
from sfumato.server.store.picture_files import ClipFiles, PictureFiles
from sfumato.server.store.tables import jobs, pictures, tags
from sfumato.server.store.words import words_of

UNDO_SECONDS = 24 * 3600
"""How long a deleted picture can be brought back."""
AT_ONCE = 500
"""Rows that one statement names: databases have limits."""
SHOWN = tuple(pictures.c[name] for name in PictureView.model_fields if name != "tags")
_CONTENT_LOCK = 0x5F0A70
_GOING = select(pictures.c.id, pictures.c.job, pictures.c.sha256, pictures.c.bytes, pictures.c.frames)
"""What is known of pictures that are removed."""


class PictureStore:
    """The pictures that the jobs of one server, of the name `server`, have drawn; their files in `folder`."""

    def __init__(self, database: Database, folder: Path, server: str) -> None:
        self._engine, self.server = database, server
        self._picture_files, self._clip_files = PictureFiles(folder), ClipFiles(folder)
        self._lock = RLock()

    def files(self, frames: int | None) -> PictureFiles:
        """Where the file is of a picture, whose `frames` are `None`, or of a clip."""
        return self._picture_files if frames is None else self._clip_files

    def add_picture(
        self, job: str, number: int, content: bytes, facts: Mapping[str, Any]
    ) -> PictureView | None:
        """Keep a picture, PNG bytes, or a clip, animated WebP, of a job that this server draws; `None` if it
        no more does, has it or leaves it out.

        `facts`: width, height, seed, prompt, negative, model and record (text), of a clip also frames. Raises
        `OutputError` where the file cannot be written.
        """
        values = {
            "id": secrets.token_urlsafe(16),
            "job": job,
            "number": number,
            "bytes": len(content),
            "created": time.time(),
            "words": " ".join(words_of(f"{facts['prompt']} {facts['negative']}")),
            **facts,
        }
        with self._lock:
            try:
                with self._engine.begin() as connection:
                    self._hold_content(connection)
                    row = connection.execute(select(jobs).where(jobs.c.id == job)).one()
                    if row.state != JobState.RUNNING or row.server != self.server:
                        return None
                    if number in json.loads(row.skipped):
                        return None
                    digest = self.files(facts.get("frames")).add(content)
                    connection.execute(insert(pictures).values(sha256=digest, owner=row.owner, **values))
                    added = connection.execute(select(*SHOWN).where(pictures.c.id == values["id"])).one()
                    return _view(added, ())
            except IntegrityError:
                return None

    def picture(self, identifier: str, owner: str | None = None) -> PictureView | None:
        """The picture of exactly this name, if there is one (of this owner's jobs)."""
        query = select(*SHOWN).where(pictures.c.id == identifier)
        if owner is not None:
            query = query.where(pictures.c.owner == owner)
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
        model: str | None = None,
        seed: int | None = None,
        sampler: str | None = None,
        style: str | None = None,
        since: float | None = None,
        until: float | None = None,
        before: str | None = None,
        limit: int,
    ) -> list[PictureView]:
        """Pictures, the newest first, whose prompts hold all `words`, from the one after `before`."""
        query = select(*SHOWN).order_by(pictures.c.sequence.desc()).limit(limit)
        query = query.where(pictures.c.deleted.is_not(None) if deleted else pictures.c.deleted.is_(None))
        if owner is not None:
            query = query.where(pictures.c.owner == owner)
        if favourite is not None:
            query = query.where(pictures.c.favourite.is_(favourite))
        if model is not None:
            query = query.where(pictures.c.model == model)
        if seed is not None:
            query = query.where(pictures.c.seed == seed)
        if sampler is not None:
            query = query.where(drawn_with_sampler(sampler, self._engine.dialect.name))
        if style is not None:
            query = query.where(drawn_in_style(style, self._engine.dialect.name))
        if since is not None:
            query = query.where(pictures.c.created >= since)
        if until is not None:
            query = query.where(pictures.c.created < until)
        if tag is not None:
            query = query.where(pictures.c.id.in_(select(tags.c.picture).where(tags.c.tag == tag)))
        if before is not None:
            place = select(pictures.c.sequence).where(pictures.c.id == before).scalar_subquery()
            query = query.where(pictures.c.sequence < place)
        if words.replace("\0", " ").split():
            query = self._holding(query, words_of(words))
        with self._engine.connect() as connection:
            return self._pictures(connection, connection.execute(query).all())

    def change_picture(
        self, identifier: str, *, favourite: bool | None = None, names: Iterable[str] | None = None
    ) -> None:
        """Make a picture a favourite or not, and give it other tags."""
        with self._lock, self._engine.begin() as connection:
            # also where nothing changes in it: two that change its tags go one after the other
            favour = pictures.c.favourite if favourite is None else favourite
            connection.execute(update(pictures).where(pictures.c.id == identifier).values(favourite=favour))
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

    def tidy(self, limits: Limits | None = None, *, undo_seconds: float = UNDO_SECONDS) -> int:
        """Remove what was deleted long ago, then the oldest pictures that are no favourites until those of
        each key, and all together, take no more bytes than `limits` has; how many pictures went.
        """
        with self._lock, self._engine.begin() as connection:
            self._hold_content(connection)
            old = connection.execute(_GOING.where(pictures.c.deleted < time.time() - undo_seconds)).all()
            for start in range(0, len(old), AT_ONCE):
                self._remove(connection, old[start : start + AT_ONCE])
            count = len(old)
            if limits is not None and limits.disk_per_key is not None:
                for owner in connection.execute(select(jobs.c.owner).distinct()).scalars().all():
                    count += self._make_room(connection, limits.disk_per_key, owner)
            if limits is not None and limits.disk is not None:
                count += self._make_room(connection, limits.disk)
            return count

    # -- parts

    def _taken(self, connection: Connection, owner: str | None = None) -> int:
        """The bytes that are kept (of this owner's)."""
        query = select(func.coalesce(func.sum(pictures.c.bytes), 0))
        if owner is not None:
            query = query.where(pictures.c.owner == owner)
        return int(connection.execute(query).scalar_one())

    def _make_room(self, connection: Connection, limit: int, owner: str | None = None) -> int:
        """Remove pictures (of this owner's) that are no favourites, the deleted ones and then the oldest
        first, until all that is kept of them takes at most `limit` bytes; how many went.
        """
        query = _GOING.where(pictures.c.favourite.is_(False)).order_by(pictures.c.sequence).limit(AT_ONCE)
        if owner is not None:
            query = query.where(pictures.c.owner == owner)
        count = 0
        for which in (pictures.c.deleted.is_not(None), pictures.c.deleted.is_(None)):
            while (excess := self._taken(connection, owner) - limit) > 0:
                oldest = connection.execute(query.where(which)).all()
                if not oldest:
                    break
                before = accumulate((row.bytes for row in oldest), initial=0)
                going = [row for row, freed in zip(oldest, before, strict=False) if freed < excess]
                self._remove(connection, going)
                count += len(going)
        return count

    def _remove(self, connection: Connection, rows: Sequence[Any]) -> None:
        """The rows, then the files that no other row has. Within the transaction: what it fails to undo are
        files of pictures that go the next time.
        """
        names, frames = [row.id for row in rows], {row.sha256: row.frames for row in rows}
        connection.execute(delete(tags).where(tags.c.picture.in_(names)))
        connection.execute(delete(pictures).where(pictures.c.id.in_(names)))
        kept = select(pictures.c.sha256).where(pictures.c.sha256.in_(frames))
        for digest in frames.keys() - set(connection.execute(kept).scalars()):
            self.files(frames[digest]).remove(digest)

    def _hold_content(self, connection: Connection) -> None:
        """Until the transaction ends, no other server adds or removes files."""
        if self._engine.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(_CONTENT_LOCK)))

    def _mark(self, identifier: str, deleted: float | None) -> None:
        with self._lock, self._engine.begin() as connection:
            connection.execute(update(pictures).where(pictures.c.id == identifier).values(deleted=deleted))

    def _holding(self, query: Select[Any], words: Sequence[str]) -> Select[Any]:
        """Of the pictures of `query` those whose prompts hold all words, each as the beginning of one."""
        if not words:
            return query.where(false())
        if self._engine.dialect.name == "sqlite":
            # the index is walked from the newest on, so that neither a rare word nor a frequent one is slow
            index = table("picture_words", column("rowid"))
            matched = index.join(pictures, pictures.c.sequence == index.c.rowid)
            asked = " ".join(f'"{word}"*' for word in words)
            matches = text("picture_words MATCH :asked").bindparams(asked=asked)
            return query.select_from(matched).where(matches).order_by(None).order_by(index.c.rowid.desc())
        asked = " & ".join(f"'{word}':*" for word in words)
        simple: Any = literal_column("'simple'")
        vector = func.to_tsvector(simple, pictures.c.words)
        return query.where(vector.op("@@")(func.to_tsquery(simple, asked)))

    def _pictures(self, connection: Connection, rows: Sequence[Row[Any]]) -> list[PictureView]:
        names: dict[str, list[str]] = {row.id: [] for row in rows}
        query = select(tags).where(tags.c.picture.in_(list(names))).order_by(tags.c.tag)
        for tag in connection.execute(query):
            names[tag.picture].append(tag.tag)
        return [_view(row, names[row.id]) for row in rows]


def _view(row: Row[Any], names: Sequence[str]) -> PictureView:
    return PictureView(**row._mapping, tags=tuple(names))
