"""Flows: durable movement of records, and everything that runs, schedules and watches it."""
