"""Handling: runs the handlers of stored events."""
