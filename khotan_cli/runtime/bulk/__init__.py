"""Bulk writes to the user's own tables."""
