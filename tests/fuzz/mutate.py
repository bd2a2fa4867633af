"""Mutations of messages: of their bytes, of the values of their maps, and of sound values at extremes."""

from __future__ import annotations

import random
from typing import Any

import msgpack

ODD: list[Any] = [
       None, -1, 0, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 1.5, float("nan"), "", "x" * 70_000, b"", b"\0" * 16, [], {},
       [[]], True, {"a": {"b": []}}, [["inputs", "<f8", [2, 2]]] * 40, [["labels", "<i8", [-1]]], "batch", "schema",
       {"sampled_out": 2**63 - 1, "rejected": {"x": 2**63 - 1}}, [["probabilities", "<f8", [4, 3]],
       ["inputs", "<f8", [4, 2]], ["labels", "<i8", [4]], ["timestamps", "|i1", [32]]]]  # fmt: skip
# Values that are allowed where row numbers, times and counts are.
EXTREMES = [0, 1, 2, 3, 5, 2**20, 2**32, 2**53 - 1, 2**53]
NUMBERS = ("first", "base", "rows", "ts", "acked", "issued", "clock", "row", "window", "withheld", "message_bytes")


def bent(frame: bytes, chance: random.Random) -> bytes:
    """The frame with bytes changed, cut, doubled or put in; or, if it is a map, with one of its values replaced."""
    if chance.random() < 0.5:
        try:
            found = msgpack.unpackb(frame, raw=False)
        except Exception:
            found = None
        if isinstance(found, dict):
            key = chance.choice([*found, "new"])
            found[key] = chance.choice(ODD)
            if chance.random() < 0.1:
                del found[key]
            return bytes(msgpack.packb(found))
    data = bytearray(frame)
    for _ in range(chance.choice([1, 1, 2, 8])):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(4):
            case 0 if at < len(data):
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                del data[at:]
            case 2:
                data[at:at] = chance.randbytes(chance.choice([1, 4, 100]))
            case _:
                data += data[at:]
    return bytes(data)


def moved(header: bytes, chance: random.Random, streams: list[bytes]) -> bytes:
    """A map whose numbers are others that are allowed, perhaps of another stream: sound in itself."""
    found = msgpack.unpackb(header, raw=False)
    for key in NUMBERS:
        if key in found and chance.random() < 0.5:
            found[key] = chance.choice(EXTREMES)
    if chance.random() < 0.3:
        found["stream"] = chance.choice(streams)
    if "tally" in found and chance.random() < 0.5:
        found["tally"] = {"lost": chance.choice(EXTREMES), "rejected": {str(chance.random()): chance.choice(EXTREMES)}}
    return bytes(msgpack.packb(found))
