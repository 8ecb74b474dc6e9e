"""Jobs, pictures, tags, and an index of the words in prompts.

Revision ID: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("sequence", sa.Integer, primary_key=True),
        sa.Column("id", sa.String(32), nullable=False, unique=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("idempotency_key", sa.String(255)),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("on_crash", sa.String(8), nullable=False),
        sa.Column("crashes", sa.Integer, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("created", sa.Float, nullable=False),
        sa.Column("started", sa.Float),
        sa.Column("ended", sa.Float),
        sa.UniqueConstraint("owner", "idempotency_key"),
        sqlite_autoincrement=True,
    )
    op.create_index("jobs_by_state", "jobs", ["state", "priority", "sequence"])
    op.create_table(
        "pictures",
        sa.Column("sequence", sa.Integer, primary_key=True),
        sa.Column("id", sa.String(32), nullable=False, unique=True),
        sa.Column("job", sa.String(32), sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("negative", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
        sa.Column("favourite", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("created", sa.Float, nullable=False),
        sa.Column("deleted", sa.Float),
        sa.UniqueConstraint("job", "number"),
        sqlite_autoincrement=True,
    )
    op.create_index("pictures_by_content", "pictures", ["sha256"])
    op.create_table(
        "tags",
        sa.Column(
            "picture", sa.String(32), sa.ForeignKey("pictures.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("tag", sa.String(100), primary_key=True),
    )
    op.create_index("tags_by_name", "tags", ["tag"])
    if op.get_bind().dialect.name == "sqlite":
        op.execute(
            "CREATE VIRTUAL TABLE picture_words USING fts5"
            "(prompt, negative, content='pictures', content_rowid='sequence', tokenize='unicode61')"
        )
        op.execute(
            "CREATE TRIGGER picture_words_in AFTER INSERT ON pictures BEGIN "
            "INSERT INTO picture_words(rowid, prompt, negative) "
            "VALUES (new.sequence, new.prompt, new.negative); END"
        )
        op.execute(
            "CREATE TRIGGER picture_words_out AFTER DELETE ON pictures BEGIN "
            "INSERT INTO picture_words(picture_words, rowid, prompt, negative) "
            "VALUES ('delete', old.sequence, old.prompt, old.negative); END"
        )
    else:
        op.execute(
            "CREATE INDEX picture_words ON pictures "
            "USING gin (to_tsvector('simple', prompt || ' ' || negative))"
        )
