"""Clients of external HTTP APIs. Pure HTTP: nothing in here knows a database."""
