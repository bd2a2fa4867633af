"""A collector that only reads and acknowledges, in a process of its own, so that the publisher is all that is measured.

It decodes headers, not rows. Like a real collector it acknowledges in groups, every few milliseconds, and answers every
greeting at once. It prints its two endpoints when it is ready.
"""

from __future__ import annotations

import sys
import time

import msgpack
import zmq

from zmon._wire import control

EVERY = 0.005  # seconds between two acknowledgements of a stream that goes on
WINDOW = 2**26  # bytes that may be under way


def main() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    data, router = context.socket(zmq.SUB), context.socket(zmq.ROUTER)
    data.setsockopt(zmq.RCVHWM, 0)
    data.setsockopt(zmq.SUBSCRIBE, b"z1/")
    ports = [socket.bind_to_random_port("tcp://127.0.0.1") for socket in (data, router)]
    sys.stdout.write(" ".join(f"tcp://127.0.0.1:{port}" for port in ports) + "\n")
    sys.stdout.flush()
    peers: dict[bytes, bytes] = {}  # who greeted for each stream
    rows: dict[bytes, int] = {}  # the last row of each stream
    changed: set[bytes] = set()
    due = 0.0
    poller = zmq.Poller()
    for socket in (data, router):
        poller.register(socket, zmq.POLLIN)
    while True:
        poller.poll(1000 * EVERY if changed else None)
        while data.poll(0):
            header = msgpack.unpackb(data.recv_multipart()[1])
            if header["kind"] != "schema":
                stream = header["stream"]
                rows[stream] = max(rows.get(stream, 0), header["first"] + header["rows"] - 1)
                changed.add(stream)
        while router.poll(0):
            peer, frame = router.recv_multipart()
            greeting = control.decode_greeting(frame)
            peers[greeting.stream] = peer
            rows.setdefault(greeting.stream, greeting.acked)
            changed.add(greeting.stream)
            due = 0.0
        if time.monotonic() >= due:
            due = time.monotonic() + EVERY
            for stream in changed & peers.keys():
                router.send_multipart([peers[stream], control.encode_ack(stream, rows[stream], WINDOW)])
                changed.discard(stream)


if __name__ == "__main__":
    main()
