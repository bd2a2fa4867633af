"""Encodes a profile as a versioned msgpack map, and checks every field when it is read. Pure; nothing is unpickled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np

from zmon._wire.frames import TASKS
from zmon.batch import KINDS, Array, Schema
from zmon.errors import ConfigurationError
from zmon.reference import bins
from zmon.reference.calibration import Knots
from zmon.reference.tables import Categorical, Content, Numeric, Own
from zmon.state import pack_state, unpack_state

FORMAT = "zmon profile"
VERSION = 1
LIMIT = 2**30  # bytes


def encode(profile: Content) -> bytes:
    """Return the content of a profile's file."""
    schema, own = profile.schema, profile.own
    return pack_state(
        {
            "format": FORMAT,
            "version": VERSION,
            "schema": {
                "task": schema.task,
                "classes": list(schema.classes),
                "features": list(schema.features),
                "kinds": list(schema.kinds),
                "threshold": schema.threshold,
            },
            "rows": profile.rows,
            "error": profile.error,
            "numeric": _numeric(profile.numeric),
            "categorical": [
                {
                    "name": column.name,
                    "categories": list(column.categories),
                    "counts": column.counts,
                    "other": column.other,
                    "missing": column.missing,
                }
                for column in profile.categorical
            ],
            "score": None if profile.score is None else _numeric(profile.score),
            "predicted": profile.predicted,
            "labels": profile.labels,
            "calibration": None
            if profile.calibration is None
            else [None if knots is None else [knots.x, knots.y] for knots in profile.calibration],
            "own": None
            if own is None
            else {"windows": own.windows, "rows": own.rows, "mean": dict(own.mean), "std": dict(own.std)},
        }
    )


def _numeric(table: Numeric) -> dict[str, Any]:
    return {
        "names": list(table.names),
        **{name: getattr(table, name) for name in ("edges", "counts", "quantiles", "mean", "std", "low", "high")},
    }


def decode(data: bytes, name: str) -> Content:
    """Read the content of a profile's file; ConfigurationError naming `name` if it is not a profile."""
    try:
        if len(data) > LIMIT:
            raise ValueError(f"{len(data)} bytes")
        fields = unpack_state(data)
        if not isinstance(fields, dict) or fields.get("format") != FORMAT:
            raise ValueError("it does not start like one")
        version = _whole(fields["version"])
        if version > VERSION:
            raise ConfigurationError(
                f"{name} was written by a newer release (version {version}, this one reads {VERSION}); "
                "upgrade zmon-agent, or make the profile again"
            )
        schema = _schema(fields["schema"])
        classes = len(schema.classes)
        calibration = fields["calibration"]
        return Content(
            schema=schema,
            rows=_whole(fields["rows"]),
            numeric=_table(fields["numeric"], schema.numeric),
            categorical=tuple(
                map(_categorical, _sized(fields["categorical"], len(schema.categorical)), schema.categorical)
            ),
            score=None if fields["score"] is None else _table(fields["score"], _names(fields["score"]["names"])),
            predicted=_counts(fields["predicted"], classes),
            labels=_counts(fields["labels"], classes),
            calibration=None if calibration is None else tuple(map(_knots, _sized(calibration, classes))),
            own=_own(fields["own"]),
            error=_number(fields["error"]),
        )
    except ConfigurationError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError, AttributeError,
            MemoryError, msgpack.UnpackException) as error:  # fmt: skip
        raise ConfigurationError(
            f"{name} is not a reference profile, or is damaged ({error}); make one with `zmon profile`"
        ) from None


def _schema(fields: Mapping[str, Any]) -> Schema:
    names = {key: _names(fields[key]) for key in ("classes", "features", "kinds")}
    if fields["task"] not in TASKS or set(names["kinds"]) - set(KINDS):
        raise ValueError("task or kinds")
    if len(names["kinds"]) != len(names["features"]) or any(
        len(set(names[k])) != len(names[k]) for k in ("classes", "features")
    ):
        raise ValueError("features")
    return Schema(fields["task"], names["classes"], names["features"], names["kinds"], _number(fields["threshold"]))


def _table(fields: Mapping[str, Any], names: tuple[str, ...]) -> Numeric:
    n = len(names)
    if _names(fields["names"]) != names:
        raise ValueError("numeric columns")
    edges = _array(fields["edges"], "f", (None, n))
    if np.isnan(edges).any() or (edges[1:] < edges[:-1]).any():
        raise ValueError("edges")
    counts = _array(fields["counts"], "i", (len(edges) + 2, n))
    grid = _array(fields["quantiles"], "f", (bins.GRID, n))
    if (counts < 0).any():
        raise ValueError("counts")
    return Numeric(
        names, edges, counts, grid, *(_array(fields[key], "f", (n,)) for key in ("mean", "std", "low", "high"))
    )


def _categorical(fields: Mapping[str, Any], name: str) -> Categorical:
    categories = _names(fields["categories"])
    if fields["name"] != name or len(set(categories)) != len(categories):
        raise ValueError("categories")
    counts = _counts(fields["counts"], len(categories))
    if counts is None:
        raise ValueError("counts")
    return Categorical(name, categories, counts, _whole(fields["other"]), _whole(fields["missing"]))


def _knots(value: Any) -> Knots | None:
    if value is None:
        return None
    x, y = _sized(value, 2)
    x = _array(x, "f", (None,))
    y = _array(y, "f", (len(x),))
    if not len(x) or not (np.isfinite(x).all() and np.isfinite(y).all() and (x[1:] >= x[:-1]).all()):
        raise ValueError("calibration")
    return Knots(x, y)


def _own(fields: Any) -> Own | None:
    if fields is None:
        return None
    mean, std = ({str(k): _number(v) for k, v in fields[key].items()} for key in ("mean", "std"))
    if mean.keys() != std.keys():
        raise ValueError("own windows")
    return Own(_whole(fields["windows"]), _number(fields["rows"]), mean, std)


def _array(value: Any, kind: str, shape: tuple[int | None, ...]) -> Array:
    if not isinstance(value, np.ndarray) or value.dtype.kind != kind or value.ndim != len(shape):
        raise ValueError("an array of another type")
    if any(wanted is not None and wanted != got for wanted, got in zip(shape, value.shape, strict=True)):
        raise ValueError(f"an array of shape {value.shape}, not {shape}")
    return value.astype(np.int64 if kind == "i" else np.float64)


def _counts(value: Any, n: int) -> Array | None:
    if value is None:
        return None
    counts = _array(value, "i", (n,))
    if (counts < 0).any():
        raise ValueError("counts")
    return counts


def _sized(value: Any, n: int) -> list[Any]:
    if not isinstance(value, list) or len(value) != n:
        raise ValueError("a list of another length")
    return value


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError("names")
    return tuple(value)


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{value!r:.40} is not a count")
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not np.isfinite(value):
        raise ValueError(f"{value!r:.40} is not a number")
    return float(value)
