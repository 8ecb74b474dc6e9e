"""Pictures of jobs that are left out; how large the pictures are that requests begin from.

Revision ID: 0005
"""

import sqlalchemy as sa
from alembic import context, op

from sfumato.server.store.input_files import InputFiles

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("skipped", sa.Text, nullable=False, server_default="[]"))
    op.add_column("inputs", sa.Column("bytes", sa.BigInteger, nullable=False, server_default="0"))
    bind, files = op.get_bind(), InputFiles(context.config.attributes["folder"] / "inputs")
    inputs = sa.table("inputs", *map(sa.column, ("sha256", "bytes")))
    for digest in bind.execute(sa.select(inputs.c.sha256).distinct()).scalars().all():
        content = files.read(digest) or b""
        bind.execute(sa.update(inputs).where(inputs.c.sha256 == digest).values(bytes=len(content)))
