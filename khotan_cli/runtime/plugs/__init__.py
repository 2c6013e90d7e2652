"""Plugs: what does a service offer? Clients of external HTTP APIs, with typed endpoints."""
