"""Words that are searched alike in every database, owners of pictures, and several servers on one database.

Revision ID: 0002
"""

import sqlalchemy as sa
from alembic import op

from sfumato.server.store.words import words_of

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

INDEXES = (
    ("jobs_by_owner", "jobs", ["owner", "sequence"]),
    ("jobs_by_time", "jobs", ["owner", "created", "count"]),
    ("pictures_by_owner", "pictures", ["owner", "deleted", "sequence"]),
    ("pictures_by_favour", "pictures", ["owner", "favourite", "deleted", "sequence"]),
    ("pictures_by_deletion", "pictures", ["deleted", "favourite", "sequence", "bytes"]),
)


def upgrade() -> None:
    sqlite = op.get_bind().dialect.name == "sqlite"
    op.create_table(
        "servers",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("seen", sa.Float, nullable=False),
    )
    op.add_column("jobs", sa.Column("server", sa.String(32)))
    op.add_column("pictures", sa.Column("owner", sa.String(64), nullable=False, server_default=""))
    op.add_column("pictures", sa.Column("words", sa.Text, nullable=False, server_default=""))
    if sqlite:
        op.execute("DROP TRIGGER picture_words_in")
        op.execute("DROP TRIGGER picture_words_out")
        op.execute("DROP TABLE picture_words")
    else:
        op.execute("DROP INDEX picture_words")
    op.execute("UPDATE pictures SET owner = (SELECT owner FROM jobs WHERE jobs.id = pictures.job)")
    _fill_words()
    for name, table, columns in INDEXES:
        op.create_index(name, table, columns)
    if not sqlite:
        op.execute("CREATE INDEX picture_words ON pictures USING gin (to_tsvector('simple', words))")
        return
    op.execute(
        "CREATE VIRTUAL TABLE picture_words USING fts5"
        "(words, content='pictures', content_rowid='sequence', tokenize='unicode61')"
    )
    op.execute("INSERT INTO picture_words(picture_words) VALUES ('rebuild')")
    op.execute(
        "CREATE TRIGGER picture_words_in AFTER INSERT ON pictures BEGIN "
        "INSERT INTO picture_words(rowid, words) VALUES (new.sequence, new.words); END"
    )
    op.execute(
        "CREATE TRIGGER picture_words_out AFTER DELETE ON pictures BEGIN "
        "INSERT INTO picture_words(picture_words, rowid, words) "
        "VALUES ('delete', old.sequence, old.words); END"
    )


def _fill_words() -> None:
    """The words of pictures that are there already."""
    bind = op.get_bind()
    pictures = sa.table("pictures", *map(sa.column, ("sequence", "prompt", "negative", "words")))
    query = sa.select(pictures.c.sequence, pictures.c.prompt, pictures.c.negative)
    rows = [
        {"place": row.sequence, "found": " ".join(words_of(f"{row.prompt} {row.negative}"))}
        for row in bind.execute(query)
    ]
    change = sa.update(pictures).where(pictures.c.sequence == sa.bindparam("place"))
    if rows:
        bind.execute(change.values(words=sa.bindparam("found")), rows)
