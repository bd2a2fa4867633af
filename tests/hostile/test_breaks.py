"""Connections that break off at the worst moment: libzmq ends a process by an assertion where it finds itself confused.

A connection whose queue is full is not read. If it breaks off then, and what was read of it before ends with a
heartbeat, libzmq answers that heartbeat once the queue has room, and finds the connection gone.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile.scene import Scene
from tests.support.zmtp import PING, reset, shake_hands
from zmon._transport.settings import control_of

TIMES = 100
ROWS, GREETING = b"\x01\x03z1/\x00\x01x", b"\x00\x01x"  # messages that are none
MODEL = """
import sys
import numpy as np
import zmon
publisher = zmon.Publisher("m", classes=2, collector=sys.argv[1], control=sys.argv[2])
for line in sys.stdin:
    publisher.publish(np.full((1, 2), 0.5))
    print("published", flush=True)
"""


@pytest.mark.parametrize("kind", [b"PUB", b"DEALER"], ids=["data", "control"])
def test_a_collector_lives_on_when_connections_break_off_with_full_queues(kind: bytes, tmp_path: Path) -> None:
    message = ROWS if kind == b"PUB" else GREETING
    with Scene(tmp_path) as scene:
        endpoint = scene.collector.endpoint if kind == b"PUB" else control_of(scene.collector.endpoint)
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        for _ in range(TIMES):
            peer = socket.create_connection((host, int(port)))
            shake_hands(peer, kind)
            with contextlib.suppress(ConnectionError):
                peer.sendall((message * 20 + PING) * 15)
            reset(peer)
            assert scene.collector.alive, scene.collector.said()[-1000:]
        scene.wait_for(lambda health: any(name.startswith("rejected_messages") for name in health["counters"]))


@pytest.mark.parametrize("kind", [b"SUB", b"ROUTER"], ids=["data", "control"])
def test_a_model_lives_on_when_a_collector_breaks_off_with_full_queues(kind: bytes) -> None:
    """The collector poses as one, and answers more than anybody reads."""
    message = b"\x00\x05\x01other" if kind == b"SUB" else b"\x00\x01x"
    with contextlib.ExitStack() as stack:
        ports = {name: stack.enter_context(socket.create_server(("127.0.0.1", 0))) for name in ("data", "control")}
        for server in ports.values():
            server.settimeout(60)  # a model that has ended connects no more
        addresses = [f"tcp://127.0.0.1:{server.getsockname()[1]}" for server in ports.values()]
        model = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", MODEL, *addresses],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            )
        )  # fmt: skip
        stack.callback(model.kill)
        assert model.stdin is not None and model.stdout is not None
        for _ in range(4):
            model.stdin.write("\n")
            model.stdin.flush()
            assert model.stdout.readline() == "published\n", model.poll()
            peer, _ = ports["data" if kind == b"SUB" else "control"].accept()
            shake_hands(peer, kind)
            with contextlib.suppress(ConnectionError):
                peer.sendall((message * 200 + PING) * 50)
            reset(peer)
        model.stdin.write("\n")
        model.stdin.flush()
        assert model.stdout.readline() == "published\n", model.poll()
