"""Alembic's entry point. The connection, or the dialect for `--sql`, comes from store/migrate.py."""

from typing import Any

from alembic import context

from khotan_cli.runtime.database.tables import metadata
from khotan_cli.runtime.store.migrate import VERSION_TABLE, is_ours

_common: dict[str, Any] = {
    "target_metadata": metadata,
    "version_table": VERSION_TABLE,
    "include_object": is_ours,
    "transactional_ddl": True,
}

connection = context.config.attributes.get("connection")
if connection is None:
    dialect = context.config.attributes["dialect"]
    context.configure(dialect_name=dialect, literal_binds=True, **_common)
else:
    context.configure(connection=connection, **_common)
with context.begin_transaction():
    context.run_migrations()
