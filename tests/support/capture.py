"""Capturing without a publisher: what `publish` makes of its arguments."""

from __future__ import annotations

from typing import Any

import numpy as np

from zmon._capture.assembler import Assembler
from zmon._capture.pieces import BLOBS
from zmon._capture.selection import Selection
from zmon._capture.snapshot import Arguments, take
from zmon._transport.conversion import Conversion
from zmon._transport.intake import Snapshot
from zmon._wire.frames import decode_schema
from zmon.batch import Schema
from zmon.categories import decode
from zmon.errors import Rejected

NOW = 1_700_000_000_123_456_789


def capture(classes: Any = ("a", "b", "c"), **options: Any) -> Assembler:
    settings: dict[str, Any] = {
        "task": "classification",
        "classes": classes,
        "features": None,
        "include": None,
        "exclude": None,
        "threshold": 0.5,
        "tags": {},
        "sample_rate": 1.0,
    }
    return Assembler(**{**settings, **options})


def snapshot(kind: str = "batch", now: int = NOW, **arguments: Any) -> Snapshot:
    """What `publish` puts into the queue."""
    return take(kind, now, Arguments(**arguments), Selection(None, None), ())


def convert(one: Assembler, probabilities: Any = None, **arguments: Any) -> Conversion:
    """What becomes of one call; its rows add up."""
    taken = snapshot(probabilities=probabilities, **arguments)
    made = one.convert([taken])
    rows = sum(piece.rows for _, piece, _ in made.pieces) + made.sampled_out + sum(loss.rows for loss in made.rejected)
    assert rows == taken.rows
    return made


def degraded(one: Assembler, probabilities: Any = None, **arguments: Any) -> dict[str, int]:
    """Degraded rows by reason; nothing may be rejected."""
    made = convert(one, probabilities, **arguments)
    assert not made.rejected
    return {loss.reason: loss.rows for loss in made.degraded}


def rejected(one: Assembler, probabilities: Any = None, **arguments: Any) -> dict[str, int]:
    """Rejected rows by reason."""
    return {loss.reason: loss.rows for loss in convert(one, probabilities, **arguments).rejected}


def columns(one: Assembler, probabilities: Any = None, **arguments: Any) -> tuple[dict[str, Any], Schema, int]:
    """The arrays of one call that would travel; Rejected for the first reason if rows of it do not."""
    made = convert(one, probabilities, **arguments)
    if made.rejected:
        raise Rejected(made.rejected[0].reason, made.rejected[0].detail)
    return read_back(one, made)


def read_back(one: Assembler, made: Conversion) -> tuple[dict[str, Any], Schema, int]:
    """The arrays that would travel; codes as lists of names, by column. Pieces must be of one schema."""
    found: dict[str, list[np.ndarray]] = {}
    for layout, piece, _ in made.pieces:
        for (name, dtype, width), buffer in zip(layout.arrays, piece.buffers, strict=True):
            if name in BLOBS.values():
                found.setdefault(name, []).append(np.frombuffer(buffer, np.uint8))
                continue
            shape = (piece.rows,) if width is None else (piece.rows, width)
            found.setdefault(name, []).append(np.frombuffer(buffer, dtype=dtype).reshape(shape))
    layout, piece, _ = made.pieces[0]
    assert {each.schema for each, _, _ in made.pieces} == {layout.schema}
    schema = decode_schema(one.schemas[layout.schema], layout.schema)
    whole: dict[str, Any] = {name: np.concatenate(parts) for name, parts in found.items()}
    texts = tuple(name for name, kind in zip(schema.features, schema.kinds, strict=True) if kind == "text")
    for coded, named in (("codes", schema.categorical), ("segments", schema.segments), ("texts", texts)):
        if coded in whole:
            joined = np.concatenate([each.astype(np.int32) for each in found[coded]])
            codes, names = decode(joined, whole.pop(BLOBS[coded]).tobytes())
            whole[coded] = {
                feature: [names[i][code] if code >= 0 else None for code in codes[:, i]]
                for i, feature in enumerate(named)
            }
    return whole, schema, piece.ts


def proba(rows: int, classes: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(classes), rows)
