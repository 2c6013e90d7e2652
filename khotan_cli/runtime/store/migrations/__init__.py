"""Alembic migrations of khotan's own tables."""
