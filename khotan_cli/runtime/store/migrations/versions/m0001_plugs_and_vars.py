"""Plugs, variables, leases and rate buckets."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "khotan_plugs",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("updated_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_khotan_plugs"),
    )
    op.create_table(
        "khotan_vars",
        sa.Column("plug", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("ciphertext", sa.Text, nullable=False),
        sa.Column("updated_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("plug", "key", name="pk_khotan_vars"),
    )
    op.create_table(
        "khotan_leases",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("expires_at", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_khotan_leases"),
    )
    op.create_table(
        "khotan_rates",
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("arrival_at", sa.Float(53), nullable=False),
        sa.Column("held_until", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_khotan_rates"),
    )


def downgrade() -> None:
    for table in ("khotan_rates", "khotan_leases", "khotan_vars", "khotan_plugs"):
        op.drop_table(table)
