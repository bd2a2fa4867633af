"""Outputs and labels whose columns have names, such as frames: aligned to the classes. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from zmon._capture import frames
from zmon._capture.classes import Classes
from zmon._capture.columns import as_array
from zmon._capture.values import is_missing, text_of
from zmon.batch import Array
from zmon.errors import Rejected

_GENERATED = re.compile(r"(?:column_|f|feat_)?(\d+)")  # names that libraries give to columns without names


class Named(NamedTuple):
    """Columns by name: the names as they were given, and the values, (n, columns)."""

    names: tuple[Any, ...]
    values: Array


def read(value: Any, what: str) -> Named | None:
    """Return the columns of a value by name; None if its columns have no names. Rejected if they are not numbers."""
    if isinstance(value, dict):
        return _stacked(list(value), [_column(each) for each in value.values()], what)
    if records := frames.records(value):
        names = list(dict.fromkeys(name for row in records for name in row))
        return _stacked(names, [[row.get(name) for row in records] for name in names], what)
    if isinstance(value, np.ndarray) and value.dtype.names:
        return _stacked(value.dtype.names, [value[name].reshape(-1) for name in value.dtype.names], what)
    if frames.is_lazy(value):
        raise Rejected(f"{what}_dtype", f"{what} are a {type(value).__name__}, which has no rows yet; call .collect()")
    if isinstance(value, np.ndarray) or not frames.is_frame(value):
        return None
    names, column = frames.columns(value)  # type: ignore[assignment]
    return _stacked(names, [column(i).values for i in range(len(names))], what)


def aligned(named: Named, classes: Classes | None, what: str) -> tuple[Array, Sequence[Any] | None]:
    """Return the values in the order of the classes, and the columns' names if they name classes.

    Rejected ``classes_order`` if the names are not those of the classes.
    """
    names = [text_of(name) for name in named.names]
    if len(names) == 1 and classes is not None and len(classes) == 2 and names[0] == classes.columns[0]:
        return 1 - named.values, None  # of the other class
    if len(names) == 1 or _generated(names, classes):
        return named.values, None
    if classes is None:
        return named.values, named.names
    columns = classes.columns
    if classes.counted and columns == classes.names:
        if len(names) == len(columns) and set(names) != set(columns):
            return named.values, names  # the first frame says how the counted classes are called
    elif set(names) == set(columns) and _generated(names, None) and tuple(names) != columns:
        raise Rejected(
            "classes_order",
            f"the columns of {what} are {names[:5]}, by position or by name; the classes are {list(columns[:5])}: "
            "name the columns in the order of the classes, or pass an array",
        )
    if len(set(names)) != len(names) or set(names) != set(columns):
        raise Rejected(
            "classes_order",
            f"the columns of {what} are {names[:5]}, the classes are {list(columns[:5])}; rename the columns, or "
            "pass an array in the order of the classes",
        )
    places = {name: i for i, name in enumerate(names)}
    return named.values[:, [places[name] for name in columns]], names


def _generated(names: Sequence[str], classes: Classes | None) -> bool:
    """Return whether the names only count the columns, and do not name the classes."""
    if classes is not None and set(names) == set(classes.columns):
        return False
    found = [_GENERATED.fullmatch(name) for name in names]
    return all(match and int(match[1]) == i for i, match in enumerate(found))


def _column(value: Any) -> Array | list[Any]:
    if frames.length(value) is None:
        return [value]
    return value if isinstance(value, list | np.ndarray) else frames.data(value).values


def _stacked(names: Sequence[Any], columns: Sequence[Array | list[Any]], what: str) -> Named:
    if not columns:
        raise Rejected(f"{what}_shape", f"{what} have no columns")
    if len({len(column) for column in columns}) > 1:
        raise Rejected("length_mismatch", f"columns of {what} differ in length: {[len(c) for c in columns[:5]]}")
    numbers = [_numbers(column, name, what) for name, column in zip(names, columns, strict=True)]
    return Named(tuple(names), np.column_stack(numbers))


def _numbers(column: Array | list[Any], name: Any, what: str) -> Array:
    if isinstance(column, list):
        column = as_array([np.nan if is_missing(value) else value for value in column], what)
    if column.dtype.kind == "O":
        with suppress(TypeError, ValueError):
            column = column.astype(np.float64)
    if column.dtype.kind not in "fiub":
        raise Rejected(f"{what}_dtype", f"column {text_of(name)!r:.60} of {what} holds something other than numbers")
    return column
