"""Events: the tenant is part of their identity, a body that cannot be read is marked, values of the path are kept."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_json = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
_table = "khotan_webhook_events"
_unique = "uq_khotan_webhook_events_wire"


def _events(*key: str) -> sa.Table:
    """The table as it is, given in full: SQLite changes a constraint by copying it, also where only the SQL is written."""
    return sa.Table(
        _table,
        sa.MetaData(),
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("wire", "remote_id", "type", "method")),
        sa.Column("headers", _json),
        sa.Column("content_type", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("repeats", sa.Integer, nullable=False),
        sa.Column("altered", sa.Integer, nullable=False),
        sa.Column("parked", sa.Text),
        sa.Column("organisation", sa.Text),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tenant", sa.Text, nullable=False, server_default=""),
        sa.Column("problem", sa.Text),
        sa.Column("path", _json),
        sa.PrimaryKeyConstraint("id", name="pk_khotan_webhook_events"),
        sa.UniqueConstraint(*key, name=_unique),
        sa.Index("ix_khotan_webhook_events_received_at", "received_at"),
    )


def upgrade() -> None:
    op.add_column(_table, sa.Column("tenant", sa.Text, nullable=False, server_default=""))
    op.add_column(_table, sa.Column("problem", sa.Text))
    op.add_column(_table, sa.Column("path", _json))
    op.execute("UPDATE khotan_webhook_events SET tenant = organisation WHERE organisation IS NOT NULL")
    with op.batch_alter_table(_table, copy_from=_events("wire", "remote_id")) as batch:
        batch.drop_constraint(_unique, type_="unique")
        batch.create_unique_constraint(_unique, ["wire", "tenant", "remote_id"])


def downgrade() -> None:
    # What the narrower key cannot hold: of records with one key the oldest stays.
    op.execute(
        "DELETE FROM khotan_webhook_events WHERE id NOT IN "
        "(SELECT MIN(id) FROM khotan_webhook_events GROUP BY wire, remote_id)"
    )
    with op.batch_alter_table(_table, copy_from=_events("wire", "tenant", "remote_id")) as batch:
        batch.drop_constraint(_unique, type_="unique")
        batch.create_unique_constraint(_unique, ["wire", "remote_id"])
    for name in ("path", "problem", "tenant"):
        op.drop_column(_table, name)
