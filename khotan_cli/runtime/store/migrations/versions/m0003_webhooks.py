"""Wires, their events, and the runs of their handlers."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_moment = sa.DateTime(timezone=True)
_json = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
_big_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "khotan_wires",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("subscribed", sa.Boolean, nullable=False),
        sa.Column("callback_url", sa.Text),
        sa.Column("remote_id", sa.Text),
        sa.Column("data", _json),
        sa.Column("expires_at", _moment),
        sa.Column("renew_at", _moment),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("error", _json),
        sa.Column("updated_at", _moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_khotan_wires"),
    )
    op.create_table(
        "khotan_webhook_handlers",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("updated_at", _moment, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_khotan_webhook_handlers"),
    )
    op.create_table(
        "khotan_webhook_events",
        sa.Column("id", _big_id, nullable=False),
        sa.Column("wire", sa.Text, nullable=False),
        sa.Column("remote_id", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("method", sa.Text, nullable=False),
        sa.Column("headers", _json),
        sa.Column("content_type", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("repeats", sa.Integer, nullable=False),
        sa.Column("altered", sa.Integer, nullable=False),
        sa.Column("parked", sa.Text),
        sa.Column("organisation", sa.Text),
        sa.Column("received_at", _moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_khotan_webhook_events"),
        sa.UniqueConstraint("wire", "remote_id", name="uq_khotan_webhook_events_wire"),
    )
    op.create_index("ix_khotan_webhook_events_received_at", "khotan_webhook_events", ["received_at"])
    op.add_column("khotan_runs", sa.Column("event_id", sa.BigInteger))
    op.add_column("khotan_runs", sa.Column("order_key", sa.Text))
    op.add_column("khotan_runs", sa.Column("next_at", _moment))
    op.add_column("khotan_runs", sa.Column("failures", sa.Integer, nullable=False, server_default="0"))
    op.add_column("khotan_runs", sa.Column("worker", sa.Text))
    op.create_index("ix_khotan_runs_event_id", "khotan_runs", ["event_id"])
    op.create_index("ix_khotan_runs_order_key", "khotan_runs", ["order_key", "event_id"])


def downgrade() -> None:
    op.drop_index("ix_khotan_runs_order_key", "khotan_runs")
    op.drop_index("ix_khotan_runs_event_id", "khotan_runs")
    for name in ("worker", "failures", "next_at", "order_key", "event_id"):
        op.drop_column("khotan_runs", name)
    for table in ("khotan_webhook_events", "khotan_webhook_handlers", "khotan_wires"):
        op.drop_table(table)
