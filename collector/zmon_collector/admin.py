"""Asking a running collector over its admin socket: what `zmon plugins` and the demo do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import zmq

from zmon.wire import pack, unpack

ANSWER_LIMIT = 16 * 2**20


def ask(data_dir: Path, question: str, timeout: float = 1.0) -> dict[str, Any] | None:
    """The answer of the collector that runs on `data_dir`; None when none answers within `timeout` seconds."""
    path = data_dir.absolute() / "admin.sock"
    if not path.exists():
        return None
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(f"ipc://{path}")
        socket.send(pack({"ask": question}))
        if not socket.poll(int(timeout * 1000)):
            return None
        return unpack(socket.recv(), "admin", ANSWER_LIMIT)
