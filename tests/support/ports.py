"""A free pair of ports for a process that is told its port."""

from __future__ import annotations

import random
import socket


def free_port() -> int:
    """A port whose neighbour is free, too; of those that no outgoing connection is given while a collector is away."""
    while True:
        port = random.randrange(15_000, 30_000)
        with socket.socket() as first, socket.socket() as second:
            try:
                first.bind(("127.0.0.1", port))
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
