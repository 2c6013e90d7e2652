"""Flows: what does a user's function get? The context and the decorators."""
