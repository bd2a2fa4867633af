"""A peer that speaks the protocol as it likes: greetings of any stream and model, and rows without end."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

import numpy as np
import zmq

from tests.support.waiting import until
from zmon._transport.settings import control_of
from zmon._wire import control
from zmon._wire import frames as wire
from zmon._wire.control import Ack
from zmon.batch import Schema

BODY = wire.encode_schema(Schema("classification", ("class_0", "class_1", "class_2")))


def stream(number: int) -> bytes:
    """The name of a stream."""
    return number.to_bytes(16, "big")


class Attacker:
    """Both sockets of a peer; a context manager.

    Parameters
    ----------
    endpoint : str
        The collector's data endpoint.
    control_endpoint : str, optional
        If it is not the next port.
    source : str
        Address of this machine from which it connects.
    secret_key, server_key : str, optional
        CURVE keys, as a publisher has them.
    """

    def __init__(
        self, endpoint: str, control_endpoint: str = "", source: str = "", secret_key: str = "", server_key: str = ""
    ) -> None:
        self._context = zmq.Context()
        self._data, self._control = self._context.socket(zmq.XPUB), self._context.socket(zmq.DEALER)
        self._data.setsockopt(zmq.XPUB_NODROP, 1)
        for socket in (self._data, self._control):
            socket.setsockopt(zmq.SNDHWM, 0)
            socket.setsockopt(zmq.RCVHWM, 0)
            if secret_key:
                socket.setsockopt(zmq.CURVE_SECRETKEY, secret_key.encode())
                socket.setsockopt(zmq.CURVE_PUBLICKEY, zmq.curve_public(secret_key.encode()))
                socket.setsockopt(zmq.CURVE_SERVERKEY, server_key.encode())
        via = f"tcp://{source}:0;" if source else "tcp://"
        self._data.connect(endpoint.replace("tcp://", via))
        self._control.connect((control_endpoint or control_of(endpoint)).replace("tcp://", via))

    def __enter__(self) -> Attacker:
        until(lambda: self._data.poll(100), "the collector's subscription")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.destroy(0)

    def greet(
        self, number: int, model: str, version: str = "", agent: str = "x", kind: str = "hello", issued: int = 0
    ) -> None:
        """Greet as a stream."""
        topic = wire.Topic(model, version, agent).encode()
        self._control.send(
            control.encode_greeting(
                kind, topic=topic, stream=stream(number), base=1, acked=0, issued=issued, clock=0, tally={}
            )
        )

    def rows(self, number: int, model: str, version: str = "", agent: str = "x", *, first: int = 1) -> None:
        """Send one row of a stream, with its schema."""
        topic, buffer = wire.Topic(model, version, agent).encode(), np.full((1, 3), 1 / 3)
        self._data.send_multipart(wire.encode_schema_message(topic, stream(number), BODY))
        batch: list[Any] = wire.encode_batch(
            topic,
            stream=stream(number),
            schema=wire.schema_hash(BODY),
            first=first,
            rows=1,
            base=first,
            ts=time.time_ns(),
            arrays=[("probabilities", "<f8", [1, 3])],
            buffers=[buffer.tobytes()],
        )
        self._data.send_multipart(batch)

    def answers(self) -> list[Ack]:
        """The answers that have come since the last call."""
        found = []
        while self._control.poll(0):
            found.append(control.decode_ack(self._control.recv()))
        return found
