"""The tables: jobs, their groups, pictures they begin from and pictures they drew, and the tags of these."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)

metadata = MetaData()

groups = Table(
    "groups",
    metadata,
    Column("sequence", Integer, primary_key=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("owner", String(64), nullable=False),
    Column("idempotency_key", String(255)),
    Column("kind", String(16), nullable=False),
    Column("facts", Text, nullable=False),
    Column("created", Float, nullable=False),
    UniqueConstraint("owner", "idempotency_key"),
    sqlite_autoincrement=True,
)
"""Jobs that were submitted together: `facts`, JSON, say what they are by their `kind`."""

jobs = Table(
    "jobs",
    metadata,
    Column("sequence", Integer, primary_key=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("state", String(16), nullable=False),
    Column("owner", String(64), nullable=False),
    Column("idempotency_key", String(255)),
    Column("priority", Integer, nullable=False),
    Column("on_crash", String(8), nullable=False),
    Column("crashes", Integer, nullable=False),
    Column("model", Text, nullable=False),
    Column("request", Text, nullable=False),
    Column("count", Integer, nullable=False),
    Column("error", Text),
    Column("created", Float, nullable=False),
    Column("started", Float),
    Column("ended", Float),
    Column("server", String(32)),
    Column("group", String(32)),
    Column("place", Integer),
    Column("came", BigInteger, nullable=False, server_default="0"),
    Column("turn", Float, nullable=False, server_default="0"),
    Column("skipped", Text, nullable=False, server_default="[]"),
    Column("kind", String(8), nullable=False, server_default="draw"),
    UniqueConstraint("owner", "idempotency_key"),
    Index("jobs_by_turn", "state", "turn", "sequence"),
    Index("jobs_by_owner", "owner", "sequence"),
    Index("jobs_by_time", "owner", "created", "count"),
    Index("jobs_by_group", "group", "sequence"),
    sqlite_autoincrement=True,
)
"""`sequence` counts the accepted jobs. `server`: which one draws it, or drew it last. `place`: which of the
jobs of its `group`, from 0; the newest of a place counts. `came`: the clock of evaluations when it was
accepted; `turn`: its place among those that wait, as `sfumato.server.order` has it. `skipped`, JSON: the
numbers of its pictures that are left out. `kind`: a `JobKind`. Times are seconds since 1970, UTC.
"""

inputs = Table(
    "inputs",
    metadata,
    Column("job", String(32), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("bytes", BigInteger, nullable=False, server_default="0"),
    Index("inputs_by_content", "sha256"),
)
"""The pictures that a job begins from, while their files are kept."""

servers = Table(
    "servers",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("seen", Float, nullable=False),
)
"""Servers that share the database, and when each was last heard of by the database's clock."""

pictures = Table(
    "pictures",
    metadata,
    Column("sequence", Integer, primary_key=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("job", String(32), ForeignKey("jobs.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("frames", Integer),
    Column("seed", BigInteger, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("negative", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("record", Text, nullable=False),
    Column("favourite", Boolean, nullable=False, server_default=false()),
    Column("created", Float, nullable=False),
    Column("deleted", Float),
    Column("owner", String(64), nullable=False, server_default=""),
    Column("words", Text, nullable=False, server_default=""),
    UniqueConstraint("job", "number"),
    Index("pictures_by_content", "sha256"),
    Index("pictures_by_owner", "owner", "deleted", "sequence"),
    Index("pictures_by_favour", "owner", "favourite", "deleted", "sequence"),
    Index("pictures_by_deletion", "deleted", "favourite", "sequence", "bytes"),
    sqlite_autoincrement=True,
)
"""`number` counts a job's pictures from 0. `frames`: of a clip, how many it has. `deleted`: when, of
one that can still be brought back. `owner` is its job's. `words`: those of its prompts, as they are searched.
"""

tags = Table(
    "tags",
    metadata,
    Column("picture", String(32), ForeignKey("pictures.id", ondelete="CASCADE"), primary_key=True),
    Column("tag", String(100), primary_key=True),
    Index("tags_by_name", "tag"),
)
