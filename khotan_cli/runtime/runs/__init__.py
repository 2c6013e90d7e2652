"""Durable runs: declarations, steps, hooks and errors."""
