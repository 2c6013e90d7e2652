"""Ports for programs that want to be told one."""

from __future__ import annotations

import random
import socket

_RANGE = range(20_000, 32_000)
"""Below the ports that Linux hands out by itself (32768 and above), so that no connection takes the port meanwhile."""


def free_port() -> int:
    """A loopback port that nobody uses at this moment."""
    while True:
        port = random.SystemRandom().choice(_RANGE)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
