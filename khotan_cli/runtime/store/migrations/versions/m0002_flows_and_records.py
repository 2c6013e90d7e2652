"""Flows, runs, mappings and caches."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_moment = sa.DateTime(timezone=True)
_json = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
_big_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_sorted = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_COUNTERS = ("extracted", "transformed", "created", "updated", "deleted", "skipped", "failed")


def upgrade() -> None:
    _flows()
    _runs()
    _steps()
    _records()


def _flows() -> None:
    op.create_table(
        "khotan_flows",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("updated_at", _moment, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_khotan_flows"),
    )
    op.create_table(
        "khotan_schedules",
        sa.Column("flow", sa.Text, nullable=False),
        sa.Column("variant", sa.Text, nullable=False),
        sa.Column("last_due_at", _moment, nullable=False),
        sa.PrimaryKeyConstraint("flow", "variant", name="pk_khotan_schedules"),
    )


def _runs() -> None:
    op.create_table(
        "khotan_runs",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("flow", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("variant", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("body", _json),
        sa.Column("retry_of", sa.Text),
        sa.Column("due_at", _moment),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        *[sa.Column(name, sa.BigInteger, nullable=False) for name in _COUNTERS],
        sa.Column("progress", _json),
        sa.Column("message", sa.Text),
        sa.Column("error", _json),
        sa.Column("created_at", _moment, nullable=False),
        sa.Column("started_at", _moment),
        sa.Column("ended_at", _moment),
        sa.Column("updated_at", _moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_khotan_runs"),
    )
    op.create_index("ix_khotan_runs_flow_created_at", "khotan_runs", ["flow", "created_at"])
    op.create_index("ix_khotan_runs_status", "khotan_runs", ["status"])


def _of_run(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["run_id"], ["khotan_runs.id"], name=f"fk_{table}_run_id", ondelete="CASCADE")


def _steps() -> None:
    op.create_table(
        "khotan_run_steps",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("result", _json),
        sa.Column("counts", _json),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("started_at", _moment, nullable=False),
        sa.Column("ended_at", _moment, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "name", name="pk_khotan_run_steps"),
        _of_run("khotan_run_steps"),
    )
    op.create_table(
        "khotan_run_updates",
        sa.Column("id", _big_id, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("at", _moment, nullable=False),
        sa.Column("level", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_khotan_run_updates"),
        _of_run("khotan_run_updates"),
    )
    op.create_index("ix_khotan_run_updates_run_id", "khotan_run_updates", ["run_id"])
    op.create_table(
        "khotan_rejects",
        sa.Column("id", _big_id, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("step", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("record", _json),
        sa.PrimaryKeyConstraint("id", name="pk_khotan_rejects"),
        _of_run("khotan_rejects"),
    )
    op.create_index("ix_khotan_rejects_run_id", "khotan_rejects", ["run_id"])
    op.create_table(
        "khotan_seen_keys",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("step", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "step", "key", name="pk_khotan_seen_keys"),
        _of_run("khotan_seen_keys"),
    )


def _records() -> None:
    op.create_table(
        "khotan_mappings",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("resource", sa.Text, nullable=False),
        sa.Column("key", _sorted, nullable=False),
        sa.Column("created_at", _moment, nullable=False),
        sa.Column("updated_at", _moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_khotan_mappings"),
        sa.UniqueConstraint("resource", "key", name="uq_khotan_mappings_resource"),
    )
    op.create_table(
        "khotan_mapping_refs",
        sa.Column("resource", sa.Text, nullable=False),
        sa.Column("plug", sa.Text, nullable=False),
        sa.Column("ref", sa.Text, nullable=False),
        sa.Column("mapping_id", sa.Text, nullable=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("fields", _json),
        sa.Column("updated_at", _moment, nullable=False),
        sa.PrimaryKeyConstraint("resource", "plug", "ref", name="pk_khotan_mapping_refs"),
        sa.UniqueConstraint("mapping_id", "plug", name="uq_khotan_mapping_refs_mapping_id"),
        sa.ForeignKeyConstraint(
            ["mapping_id"], ["khotan_mappings.id"], name="fk_khotan_mapping_refs_mapping_id", ondelete="CASCADE"
        ),
    )
    op.create_table(
        "khotan_cache_entries",
        sa.Column("cache", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("key", _sorted, nullable=False),
        sa.Column("value", _json),
        sa.Column("expires_at", sa.Float(53)),
        sa.Column("updated_at", _moment, nullable=False),
        sa.PrimaryKeyConstraint("cache", "owner", "key", name="pk_khotan_cache_entries"),
    )
    op.create_index("ix_khotan_cache_entries_expires_at", "khotan_cache_entries", ["expires_at"])


def downgrade() -> None:
    for table in (
        "khotan_cache_entries",
        "khotan_mapping_refs",
        "khotan_mappings",
        "khotan_seen_keys",
        "khotan_rejects",
        "khotan_run_updates",
        "khotan_run_steps",
        "khotan_runs",
        "khotan_schedules",
        "khotan_flows",
    ):
        op.drop_table(table)
