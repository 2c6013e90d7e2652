"""Verification of requests: signature schemes and endpoint challenges."""
