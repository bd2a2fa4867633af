"""The collector's side of the protocol, played step by step by a test."""

from __future__ import annotations

import time

import zmq

from zmon._wire import control, frames
from zmon._wire.control import Greeting
from zmon._wire.frames import Message


class Peer:
    """The collector's side of the protocol, step by step."""

    def __init__(self, path: str) -> None:
        self.endpoint = f"ipc://{path}"
        self.context = zmq.Context()
        self.open()

    def open(self) -> None:
        self.sub, self.router = self.context.socket(zmq.SUB), self.context.socket(zmq.ROUTER)
        self.sub.setsockopt(zmq.SUBSCRIBE, b"z1/")
        self.sub.bind(self.endpoint)
        self.router.bind(f"{self.endpoint}.ctl")
        self.who = b""

    def close(self) -> None:
        self.sub.close(0)
        self.router.close(0)

    def greeting(self, kind: str, timeout: float = 60.0) -> Greeting:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            self.sub.poll(0)  # the subscription is sent only when its socket is touched
            if self.router.poll(50):
                self.who, frame = self.router.recv_multipart()
                greeting = control.decode_greeting(frame)
                if greeting.kind == kind:
                    return greeting
        raise AssertionError(f"no {kind}")

    def ack(self, stream: bytes, row: int, window: int = 2**20, need: bytes = b"") -> None:
        self.router.send_multipart([self.who, control.encode_ack(stream, row, window, need=need)])

    def messages(self, quiet: float = 0.3) -> list[Message]:
        found = []
        while self.sub.poll(int(quiet * 1000)):
            found.append(frames.decode(self.sub.recv_multipart()))
        return found
