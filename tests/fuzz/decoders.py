"""Every decoder of bytes from a peer, as a function of bytes, with messages to begin from.

Whatever the bytes are, a decoder returns, or raises WireError: anything else is a fault.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from zmon_collector.ingest import validation

from zmon import categories
from zmon._wire import control
from zmon._wire import frames as wire
from zmon.batch import Schema
from zmon.errors import WireError

TOPIC = wire.Topic("m", "1", "fuzz").encode()
STREAM, STORE = b"f" * 16, b"s" * 8
SCHEMA = Schema(
    "classification", ("a", "b", "c"), ("x", "colour"), ("numeric", "categorical"), 0.5, {"zone": "eu"}, ("country",)
)
BODY = wire.encode_schema(SCHEMA)
ROWS = 4
TS = 1_700_000_000_000_000_000


class Decoder(NamedTuple):
    """A decoder, and the bytes of sound messages for it."""

    run: Callable[[bytes], Any]
    seeds: list[bytes]


def joined(frames: list[Any]) -> bytes:
    """Frames as one string of bytes: the length of each goes before it."""
    return b"".join(struct.pack("<I", len(frame)) + bytes(frame) for frame in frames)


def frames_of(data: bytes) -> list[bytes]:
    """The frames of `joined`, or of any other bytes."""
    found = []
    while len(data) >= 4 and len(found) < 40:
        (length,) = struct.unpack_from("<I", data)
        found.append(data[4 : 4 + length])
        data = data[4 + length :]
    return found


def batch(kind: str = "batch", **position: Any) -> list[Any]:
    """A sound batch, or labels; `position` replaces keys of its header."""
    arrays: dict[str, Any] = {"ids": np.array([b"1", b"2", b"3", b"4"]), "labels": np.zeros(ROWS, np.int32)}
    blobs: dict[str, bytes] = {}
    if kind == "batch":
        codes = np.zeros((ROWS, 1), np.int8)
        arrays |= {
            "probabilities": np.full((ROWS, 3), 1 / 3),
            "inputs": np.zeros((ROWS, 1)),
            "codes": codes,
            "segments": codes,
            "timestamps": np.full(ROWS, TS, np.int64),
        }
        one = categories.encode(2, (("red", "blue"),))
        blobs = {"categories": one * 2, "segment_values": categories.encode(ROWS, (("de",),))}
    described = [(name, array.dtype.str, array.shape) for name, array in arrays.items()]
    header = {"first": 1, "rows": ROWS, "base": 1, "ts": TS, **position}
    return wire.encode_batch(
        TOPIC,
        stream=header.pop("stream", STREAM),
        schema=wire.schema_hash(BODY),
        arrays=[*described, *((name, "|u1", (1,)) for name in blobs)],
        buffers=[*(array.tobytes() for array in arrays.values()), *blobs.values()],
        tally={"sampled_out": 1, "lost": 2, "rejected": {"x": 1}, "degraded": {"y": 2}},
        kind=kind,
        **header,
    )


def greeting(kind: str, **position: Any) -> bytes:
    """A sound greeting; `position` replaces keys of it."""
    keys: dict[str, Any] = {"topic": TOPIC, "stream": STREAM, "base": 1, "acked": 0, "issued": 4, "clock": TS}
    tally = {"sampled_out": 1, "rejected": {"x": 1}, "details": {"x": "a detail"}}
    return control.encode_greeting(kind, **{**keys, "tally": tally, "store": STORE, "counted": {"lost": 1}, **position})


def acks() -> list[bytes]:
    """Every kind of answer."""
    answers = {"label_unknown": (2, "class 'maybe'")}
    whole = control.encode_ack(
        STREAM, 4, 2**20, store=STORE, refused=answers, degraded=answers, tally={"lost": 1}, message_bytes=2**24
    )
    needing = control.encode_ack(STREAM, 0, 0, need=wire.schema_hash(BODY))
    return [whole, needing, control.encode_decline(STREAM)]


def _data(data: bytes) -> None:
    """As the collector handles it: decoded, checked against its schema, split into windows; or answered."""
    frames = frames_of(data)
    try:
        message = wire.decode(frames)
    except WireError:
        wire.decode_position(frames)
        return
    message.topic.check()
    if message.kind == "batch":
        times, _ = validation.resolve_times(message, TS / 1e9, 300.0)
        made = validation.check_batch(message, SCHEMA, times)
        starts = 0 if isinstance(times, int) else times // 60_000_000_000
        validation.check_span(starts, 64)
        list(validation.split_rows(made, message.first, 0, starts))
    elif message.kind == "labels":
        validation.check_labels(message, SCHEMA)


def _dictionaries(data: bytes) -> None:
    if len(data) >= 2:
        rows, columns = 1 + data[0], data[1] % 8
        categories.decode(np.zeros((rows, columns), np.int8), data[2:])


DECODERS: Mapping[str, Decoder] = {
    "data": Decoder(
        _data,
        [joined(batch()), joined(batch("labels")), joined(wire.encode_schema_message(TOPIC, STREAM, BODY)),
         joined(batch(first=2**53, base=2**53)), joined(batch(withheld=2**30))],
    ),
    "schema": Decoder(
        lambda data: wire.decode_schema(data, wire.schema_hash(data)),
        [BODY, wire.encode_schema(Schema("regression")), wire.encode_schema(Schema("multilabel", ("a",)))],
    ),
    "greeting": Decoder(control.decode_greeting, [greeting(kind) for kind in ("hello", "ping", "bye")]),
    "ack": Decoder(control.decode_ack, acks()),
    "dictionaries": Decoder(
        _dictionaries,
        [b"\x03\x02" + categories.encode(4, (("a", "b"), ("c",))), b"\x03\x01" + categories.encode(2, (("a",),)) * 2],
    ),
    "topic": Decoder(wire.Topic.decode, [TOPIC, wire.Topic("é/ü", "", "x y").encode()]),
}  # fmt: skip


def faultless(name: str, data: bytes) -> bool:
    """Run a decoder; return whether it took the bytes. Anything but a WireError passes."""
    try:
        DECODERS[name].run(data)
    except WireError as error:
        assert error.reason, "a reason without a name"
        return False
    return True
