"""Webhooks: wires receive events from services, ingests receive records, and handlers process both."""
