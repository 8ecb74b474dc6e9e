"""Places of waiting jobs by the work they are; pictures that requests begin from, kept once by their content.

Revision ID: 0004
"""

import json
from typing import Any

import sqlalchemy as sa
from alembic import context, op

from sfumato.server.store.input_files import InputFiles, taken_out

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("came", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("turn", sa.Float, nullable=False, server_default="0"))
    op.drop_index("jobs_by_state", "jobs")
    op.create_index("jobs_by_turn", "jobs", ["state", "turn", "sequence"])
    op.execute(f"UPDATE jobs SET turn = -{10**9} * CAST(priority AS float)")
    op.create_table(
        "inputs",
        sa.Column("job", sa.String(32), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("sha256", sa.String(64), primary_key=True),
    )
    op.create_index("inputs_by_content", "inputs", ["sha256"])
    _take_out()


def _take_out() -> None:
    """The pictures of requests that are there already, from the database to their files."""
    bind, files = op.get_bind(), InputFiles(context.config.attributes["folder"] / "inputs")
    jobs = sa.table("jobs", *map(sa.column, ("sequence", "id", "request")))
    inputs = sa.table("inputs", *map(sa.column, ("job", "sha256")))
    holding = sa.select(jobs.c.sequence).where(jobs.c.request.like('%"sha256"%'))
    for place in bind.execute(holding).scalars().all():
        row: Any = bind.execute(sa.select(jobs).where(jobs.c.sequence == place)).one()
        request, contents = taken_out(json.loads(row.request))
        for digest in {files.add(content) for content in contents}:
            bind.execute(sa.insert(inputs).values(job=row.id, sha256=digest))
        change = sa.update(jobs).where(jobs.c.sequence == place)
        bind.execute(change.values(request=json.dumps(request, ensure_ascii=False)))
    groups = sa.table("groups", *map(sa.column, ("sequence", "facts")))
    for row in bind.execute(sa.select(groups)).all():
        facts, _ = taken_out(json.loads(row.facts))
        change = sa.update(groups).where(groups.c.sequence == row.sequence)
        bind.execute(change.values(facts=json.dumps(facts, ensure_ascii=False)))
