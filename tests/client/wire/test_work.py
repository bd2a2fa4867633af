"""Work and memory for a message: what is expensive is refused before it is begun, and no publisher sends it."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgpack
import numpy as np
import pytest

from tests.support.capture import capture, convert, read_back
from zmon import categories
from zmon._transport.conversion import Conversion
from zmon._wire import checks
from zmon._wire import frames as wire
from zmon.batch import Schema
from zmon.errors import WireError

MIB = 2**20


@contextmanager
def at_most(nbytes: int) -> Iterator[None]:
    """Bound what is allocated meanwhile."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < nbytes, peak


def blob(rows: int, body: bytes) -> bytes:
    return struct.pack("<II", rows, len(body)) + body


def columns(count: int, rows: int = 1) -> Any:
    return np.zeros((rows, count), dtype=np.int8)


ONE = categories.encode(1, (("a",),))
BLOBS: dict[str, tuple[Any, bytes, str]] = {
    "one row each": (columns(1, MIB), ONE * MIB, "more than 1024 blobs"),
    "one row each of many columns": (
        columns(1000, 100),
        categories.encode(1, (("a",),) * 1000) * 100,
        "more than 65 blobs for 1000 columns",
    ),
    "too many names": (
        columns(1),
        blob(1, b"\x91\xdd" + (2 * MIB).to_bytes(4, "big") + b"\xa2ab" * 2 * MIB),
        "exceeds max_array_len",
    ),
    "too many names in all columns": (
        columns(3),
        blob(1, b"\x93" + (b"\xdd" + (MIB // 2).to_bytes(4, "big") + b"\xa1a" * (MIB // 2)) * 3),
        "more than 1048576 names",
    ),
    "maps": (columns(1), blob(1, b"\x91\xdd" + MIB.to_bytes(4, "big") + b"\x80" * MIB), "not a list of lists"),
    "lists": (columns(1), blob(1, b"\x91\xdd" + MIB.to_bytes(4, "big") + b"\x91\xc0" * MIB), "not a list of lists"),
    "numbers": (columns(1), blob(1, b"\x91\xdd" + MIB.to_bytes(4, "big") + b"\x01" * MIB), "not strings"),
    "nesting": (columns(1), blob(1, b"\x91" * MIB), "StackError"),
}


@pytest.mark.parametrize(("codes", "data", "detail"), BLOBS.values(), ids=BLOBS.keys())
def test_dictionaries_that_cost_much_are_refused(codes: Any, data: bytes, detail: str) -> None:
    with at_most(len(data) // 2 + 128 * MIB), pytest.raises(WireError, match=detail) as refused:
        categories.decode(codes, data)
    assert refused.value.reason == "categories"


def test_names_of_several_blobs_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(categories, "MAX_NAMES", 100)
    data = [categories.encode(1, (tuple(f"{i}-{j}" for j in range(30)),)) for i in range(4)]
    categories.decode(columns(1, 3), b"".join(data[:3]))
    with pytest.raises(WireError, match="max_array_len"):
        categories.decode(columns(1, 4), b"".join(data))


def test_codes_of_every_blob_are_checked() -> None:
    data = categories.encode(2, (("a", "b"),)) + categories.encode(1, (("a",),))
    codes, names = categories.decode(np.array([[1], [0], [0]], dtype=np.int8), data)
    assert [names[0][code] for code in codes[:, 0]] == ["b", "a", "a"]
    for wrong in ([[1], [0], [1]], [[2], [0], [0]], [[-2], [0], [0]]):
        with pytest.raises(WireError, match="beyond its dictionary"):
            categories.decode(np.array(wrong, dtype=np.int8), data)


BODIES: dict[str, Callable[[], bytes]] = {
    "lists": lambda: b"\x81\xa1x\xdd" + (MIB).to_bytes(4, "big") + b"\x90" * MIB,
    "lists in lists": lambda: b"\x81\xa1x\xdc\x01\x00" + (b"\xdc\x80\x00" + b"\x90" * 2**15) * 256,
    "maps": lambda: b"\x81\xa1x\xdc\x01\x00" + (b"\xdc\x80\x00" + b"\x80" * 2**15) * 256,
    "features": lambda: wire.pack({"task": "regression", "features": ["x"] * 4 * MIB}),
    "pairs": lambda: b"\x81\xa1x\xdf" + MIB.to_bytes(4, "big") + b"".join(msgpack.packb(i) * 2 for i in range(MIB)),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_schemas_that_cost_much_are_refused(body: Callable[[], bytes]) -> None:
    data = body()
    with at_most(16 * MIB), pytest.raises(WireError) as refused:
        wire.decode_schema(data, wire.schema_hash(data))
    assert refused.value.reason == "schema"


def test_a_schema_of_the_largest_size_is_read() -> None:
    names = tuple(f"feature {i}" for i in range(checks.MAX_COLUMNS))
    schema = Schema("regression", (), names, ("numeric",) * len(names), tags={f"t{i}": "x" for i in range(64)})
    body = wire.encode_schema(schema)
    assert wire.decode_schema(body, wire.schema_hash(body)) == schema


# --- what the publisher sends -----------------------------------------------------------------------------------------


def test_a_batch_of_many_names_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(categories, "MAX_NAMES", 100)
    one = capture(classes=None, task="regression", kinds={"a": "categorical", "b": "categorical"})
    names = [f"name {i}" for i in range(1000)]
    made = convert(one, predictions=[0.0] * 1000, inputs={"a": names, "b": names[::-1]})
    assert len(made.pieces) >= 20
    each = [read_back(one, Conversion([piece]))[0]["codes"]["a"] for piece in made.pieces]
    assert [name for part in each for name in part] == names


def test_a_batch_of_many_cells_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "MAX_CELLS", 1000)
    one = capture(classes=None, task="regression")
    made = convert(one, predictions=[0.0] * 1000, inputs=np.zeros((1000, 10)))
    assert {piece.rows for _, piece, _ in made.pieces} == {100}
