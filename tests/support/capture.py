"""Capturing without a publisher: what `publish` makes of its arguments."""

from __future__ import annotations

from typing import Any

import numpy as np

from zmon._capture.assembler import Assembler
from zmon._wire.frames import BLOBS, decode_schema
from zmon.batch import Schema
from zmon.categories import decode

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


def columns(
    one: Assembler,
    probabilities: Any = None,
    *,
    inputs: Any = None,
    labels: Any = None,
    predictions: Any = None,
    ids: Any = None,
    timestamps: Any = None,
    segments: Any = None,
) -> tuple[dict[str, Any], Schema, int]:
    """The arrays that would travel, read back from the snapshot; codes as lists of names, by column."""
    pieces, _ = one.assemble(
        NOW, probabilities, inputs, labels, predictions, ids=ids, timestamps=timestamps, segments=segments
    )
    found: dict[str, list[np.ndarray]] = {}
    for layout, piece, _ in pieces:
        for (name, dtype, width), buffer in zip(layout.arrays, piece.buffers, strict=True):
            if name in BLOBS:
                found.setdefault(name, []).append(np.frombuffer(buffer, np.uint8))
                continue
            shape = (piece.rows,) if width is None else (piece.rows, width)
            found.setdefault(name, []).append(np.frombuffer(buffer, dtype=dtype).reshape(shape))
    layout, piece, _ = pieces[0]
    schema = decode_schema(one.schemas[layout.schema], layout.schema)
    whole: dict[str, Any] = {name: np.concatenate(parts) for name, parts in found.items()}
    for blob, coded, named in (
        ("categories", "codes", schema.categorical),
        ("segment_values", "segments", schema.segments),
    ):
        if coded in whole:
            joined = [np.concatenate([each.astype(np.int32) for each in found[coded]])]
            codes, names = decode(joined[0], whole.pop(blob).tobytes())
            whole[coded] = {
                feature: [names[i][code] if code >= 0 else None for code in codes[:, i]]
                for i, feature in enumerate(named)
            }
    return whole, schema, piece.ts


def proba(rows: int, classes: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(classes), rows)
