"""Webhooks: wires that verify, store and acknowledge events, and handlers that process them durably."""
