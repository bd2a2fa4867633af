"""A profile as bytes: a versioned msgpack map, checked field by field when read; nothing is ever unpickled. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np

from zmon._wire.frames import TASKS
from zmon.batch import KINDS, Array, Schema
from zmon.errors import ConfigurationError
from zmon.reference import bins
from zmon.reference.calibration import Knots
from zmon.state import pack_state, unpack_state

if TYPE_CHECKING:
    from zmon.reference.document import Numeric, Profile

FORMAT = "zmon profile"
VERSION = 1
LIMIT = 2**30  # bytes


def encode(profile: Profile) -> bytes:
    """The file's content."""
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
                    "name": each.name,
                    "categories": list(each.categories),
                    "counts": each.counts,
                    "other": each.other,
                    "missing": each.missing,
                }
                for each in profile.categorical
            ],
            "score": None if profile.score is None else _numeric(profile.score),
            "predicted": profile.predicted,
            "labels": profile.labels,
            "calibration": None
            if profile.calibration is None
            else [None if each is None else [each.x, each.y] for each in profile.calibration],
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


def decode(data: bytes, name: str) -> Profile:
    """The profile of a file's content; ConfigurationError naming `name` when it is none."""
    from zmon.reference.document import Profile

    try:
        if len(data) > LIMIT:
            raise ValueError(f"{len(data)} bytes")
        found = unpack_state(data)
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise ValueError("it does not begin as one")
        version = _whole(found["version"])
        if version > VERSION:
            raise ConfigurationError(
                f"{name} was written by a newer release (version {version}, this one reads {VERSION}); "
                "upgrade zmon-agent, or make the profile anew"
            )
        schema = _schema(found["schema"])
        classes = len(schema.classes)
        calibration = found["calibration"]
        return Profile(
            schema=schema,
            rows=_whole(found["rows"]),
            numeric=_table(found["numeric"], schema.numeric),
            categorical=tuple(
                map(_categorical, _sized(found["categorical"], len(schema.categorical)), schema.categorical)
            ),
            score=None if found["score"] is None else _table(found["score"], _names(found["score"]["names"])),
            predicted=_counts(found["predicted"], classes),
            labels=_counts(found["labels"], classes),
            calibration=None if calibration is None else tuple(map(_knots, _sized(calibration, classes))),
            own=_own(found["own"]),
            error=_number(found["error"]),
        )
    except ConfigurationError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError, AttributeError,
            MemoryError, msgpack.UnpackException) as error:  # fmt: skip
        raise ConfigurationError(
            f"{name} is no reference profile, or is damaged ({error}); make it with `zmon profile`"
        ) from None


def _schema(found: Mapping[str, Any]) -> Schema:
    names = {key: _names(found[key]) for key in ("classes", "features", "kinds")}
    if found["task"] not in TASKS or set(names["kinds"]) - set(KINDS):
        raise ValueError("task or kinds")
    if len(names["kinds"]) != len(names["features"]) or any(
        len(set(names[k])) != len(names[k]) for k in ("classes", "features")
    ):
        raise ValueError("features")
    return Schema(found["task"], names["classes"], names["features"], names["kinds"], _number(found["threshold"]))


def _table(found: Mapping[str, Any], names: tuple[str, ...]) -> Numeric:
    from zmon.reference.document import Numeric

    n = len(names)
    if _names(found["names"]) != names:
        raise ValueError("numeric columns")
    edges = _array(found["edges"], "f", (None, n))
    if np.isnan(edges).any() or (edges[1:] < edges[:-1]).any():
        raise ValueError("edges")
    counts = _array(found["counts"], "i", (len(edges) + 2, n))
    grid = _array(found["quantiles"], "f", (bins.GRID, n))
    if (counts < 0).any():
        raise ValueError("counts")
    return Numeric(
        names, edges, counts, grid, *(_array(found[key], "f", (n,)) for key in ("mean", "std", "low", "high"))
    )


def _categorical(found: Mapping[str, Any], name: str) -> Any:
    from zmon.reference.document import Categorical

    categories = _names(found["categories"])
    if found["name"] != name or len(set(categories)) != len(categories):
        raise ValueError("categories")
    counts = _counts(found["counts"], len(categories))
    if counts is None:
        raise ValueError("counts")
    return Categorical(name, categories, counts, _whole(found["other"]), _whole(found["missing"]))


def _knots(found: Any) -> Knots | None:
    if found is None:
        return None
    x, y = _sized(found, 2)
    x = _array(x, "f", (None,))
    y = _array(y, "f", (len(x),))
    if not len(x) or not (np.isfinite(x).all() and np.isfinite(y).all() and (x[1:] >= x[:-1]).all()):
        raise ValueError("calibration")
    return Knots(x, y)


def _own(found: Any) -> Any:
    from zmon.reference.document import Own

    if found is None:
        return None
    both = [{str(k): _number(v) for k, v in found[key].items()} for key in ("mean", "std")]
    if both[0].keys() != both[1].keys():
        raise ValueError("own windows")
    return Own(_whole(found["windows"]), _number(found["rows"]), *both)


def _array(value: Any, kind: str, shape: tuple[int | None, ...]) -> Array:
    if not isinstance(value, np.ndarray) or value.dtype.kind != kind or value.ndim != len(shape):
        raise ValueError("an array of another type")
    if any(wanted is not None and wanted != got for wanted, got in zip(shape, value.shape, strict=True)):
        raise ValueError(f"an array of shape {value.shape}, not {shape}")
    return value.astype(np.int64 if kind == "i" else np.float64)


def _counts(value: Any, n: int) -> Array | None:
    if value is None:
        return None
    found = _array(value, "i", (n,))
    if (found < 0).any():
        raise ValueError("counts")
    return found


def _sized(value: Any, n: int) -> list[Any]:
    if not isinstance(value, list) or len(value) != n:
        raise ValueError("a list of another length")
    return value


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError("names")
    return tuple(value)


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{value!r:.40} is no count")
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not np.isfinite(value):
        raise ValueError(f"{value!r:.40} is no number")
    return float(value)
