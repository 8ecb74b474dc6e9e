"""The database: SQLite with a write-ahead log, or PostgreSQL by URL, brought up to date when it is opened."""

from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
from sqlalchemy import URL, Engine, create_engine, event, func, make_url, select
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from sfumato.errors import OutputError, UsageError

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_SECONDS = 30
"""How long a writer waits for another one."""
_MIGRATION_LOCK = 0x5F0A71
UNAVAILABLE = (OperationalError, InterfaceError, PoolTimeoutError)
"""What a database raises that is down, or whose disk is full: the same may succeed later."""


def opened(url: str | None, folder: Path) -> Engine:
    """The database at `url`, or the SQLite file in `folder`, with all migrations applied.

    Raises `UsageError` for a URL that names no supported database, `OutputError` where it cannot be opened.
    """
    target = _target(url, folder)
    shown = target.render_as_string(hide_password=True)
    try:
        engine = create_engine(target, **_options(target))
        if target.get_backend_name() == "sqlite":
            event.listen(engine, "connect", _configure_sqlite)
        _migrate(engine, folder)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the database {shown} needs the package {error.name}: pip install 'sfumato[postgresql]'"
        ) from None
    except SQLAlchemyError as error:
        raise OutputError(f"cannot open the database {shown}: {_cause(error)}") from None
    return engine


def _target(url: str | None, folder: Path) -> URL:
    if url is None:
        return URL.create("sqlite", database=str(folder / "sfumato.db"))
    try:
        target = make_url(url)
    except ArgumentError:
        raise UsageError(
            "database is no URL: it must be as postgresql+psycopg://user:password@host/name"
        ) from None
    if target.get_backend_name() not in ("sqlite", "postgresql"):
        raise UsageError(f"database {target.get_backend_name()!r} is not supported: sqlite or postgresql")
    return target.set(drivername="postgresql+psycopg") if target.drivername == "postgresql" else target


def _options(target: URL) -> dict[str, Any]:
    if target.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": BUSY_SECONDS}}
    # one that is gone without a word is noticed
    waits = {"connect_timeout": 5, "keepalives_idle": 10, "tcp_user_timeout": 10_000}
    return {"pool_pre_ping": True, "connect_args": waits}


def _configure_sqlite(connection: Any, record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    # every commit reaches the disk: what was accepted is there after a power cut
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _migrate(engine: Engine, folder: Path) -> None:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with engine.begin() as connection:
        config.attributes |= {"connection": connection, "folder": folder}
        if engine.dialect.name == "postgresql":
            # servers that start together
            connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        alembic.command.upgrade(config, "head")


def _cause(error: SQLAlchemyError) -> str:
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0]
