"""Indexes of the runs that wait: the queue takes as long however many have ended."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_waiting = sa.text("status = 'pending' AND event_id IS NOT NULL")
_ordered = sa.text("order_key IS NOT NULL AND (status = 'pending' OR status = 'running')")


def upgrade() -> None:
    op.drop_index("ix_khotan_runs_order_key", "khotan_runs")
    op.create_index(
        "ix_khotan_runs_waiting",
        "khotan_runs",
        ["flow", "event_id"],
        sqlite_where=_waiting,
        postgresql_where=_waiting,
    )
    op.create_index(
        "ix_khotan_runs_order_key",
        "khotan_runs",
        ["order_key", "status", "event_id"],
        sqlite_where=_ordered,
        postgresql_where=_ordered,
    )


def downgrade() -> None:
    op.drop_index("ix_khotan_runs_order_key", "khotan_runs")
    op.drop_index("ix_khotan_runs_waiting", "khotan_runs")
    op.create_index("ix_khotan_runs_order_key", "khotan_runs", ["order_key", "event_id"])
