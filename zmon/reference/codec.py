"""Encodes a profile as a versioned msgpack map, and checks every field when it is read. Pure; nothing is unpickled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import msgpack
import numpy as np

from zmon._packed import check_packed
from zmon.batch import KINDS, TASKS, Array, Schema
from zmon.errors import ConfigurationError
from zmon.reference import bins
from zmon.reference.calibration import Knots
from zmon.reference.tables import Categorical, Content, Numeric, Own
from zmon.state import pack_state, unpack_state

FORMAT = "zmon profile"
VERSION = 1
LIMIT = 2**30  # bytes
SCHEMA_FIELDS = ("task", "classes", "features", "kinds", "threshold")  # tags and segments are not of the rows


def encode(profile: Content) -> bytes:
    """Return the content of a profile's file."""
    return pack_state(
        {
            "format": FORMAT,
            "version": VERSION,
            "schema": {name: getattr(profile.schema, name) for name in SCHEMA_FIELDS},
            "rows": profile.rows,
            "error": profile.error,
            "numeric": _fields(profile.numeric),
            "categorical": [_fields(column) for column in profile.categorical],
            "score": profile.score and _fields(profile.score),
            "predicted": profile.predicted,
            "labels": profile.labels,
            "calibration": profile.calibration,
            "own": profile.own and _fields(profile.own),
        }
    )


def _fields(table: Numeric | Categorical | Own) -> dict[str, Any]:
    return {field.name: getattr(table, field.name) for field in fields(table)}


def decode(data: bytes, name: str) -> Content:
    """Read the content of a profile's file; ConfigurationError naming `name` if it is not a profile."""
    try:
        if len(data) > LIMIT:
            raise ValueError(f"{len(data)} bytes")
        check_packed(data)
        content = unpack_state(data)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError("it does not start like one")
        version = _whole(content["version"])
        if version > VERSION:
            raise ConfigurationError(
                f"{name} was written by a newer release (version {version}, this one reads {VERSION}); "
                "upgrade zmon-agent, or make the profile again"
            )
        schema = _schema(content["schema"])
        classes = len(schema.classes)
        categorical, calibration = content["categorical"], content["calibration"]
        return Content(
            schema=schema,
            rows=_whole(content["rows"]),
            numeric=_table(content["numeric"], schema.numeric),
            categorical=tuple(map(_categorical, _sized(categorical, len(schema.categorical)), schema.categorical)),
            score=None if content["score"] is None else _table(content["score"], _names(content["score"]["names"])),
            predicted=_counts(content["predicted"], classes),
            labels=_counts(content["labels"], classes),
            calibration=None if calibration is None else tuple(map(_knots, _sized(calibration, classes))),
            own=_own(content["own"]),
            error=_number(content["error"]),
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
    repeats = any(len(set(names[key])) != len(names[key]) for key in ("classes", "features"))
    if repeats or len(names["kinds"]) != len(names["features"]):
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
    # 8 bytes, as they are written: smaller numbers would grow when they are widened.
    if not isinstance(value, np.ndarray) or value.dtype.str[1:] != f"{kind}8" or value.ndim != len(shape):
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
