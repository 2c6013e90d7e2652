"""Workers and the code that they run; the code that a run was executed with."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "khotan_workers",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_khotan_workers"),
    )
    op.add_column("khotan_runs", sa.Column("code", sa.Text))


def downgrade() -> None:
    op.drop_column("khotan_runs", "code")
    op.drop_table("khotan_workers")
