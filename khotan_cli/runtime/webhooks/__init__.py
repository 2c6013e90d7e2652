"""Webhooks: wires that receive events of services, ingests that receive records, and the handlers of both."""
