"""Inbound: verifies, identifies and stores events."""
