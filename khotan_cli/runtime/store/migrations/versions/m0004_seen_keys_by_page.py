"""Which step noted a key of a pass: a retry takes over those of the steps that it does not do again."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("khotan_seen_keys", sa.Column("noted_by", sa.Text, nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("khotan_seen_keys", "noted_by")
