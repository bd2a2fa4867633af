"""Joins the arguments of consecutive calls of one form, so that they are converted together. Pure.

Arguments are joined in the form in which they came.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from zmon._capture import frames
from zmon._capture.columns import as_array
from zmon._capture.snapshot import Arguments, Unusable
from zmon._transport.buffer_pool import POOL
from zmon._transport.intake import Snapshot
from zmon._transport.ring import MERGE_ROWS
from zmon.batch import Array
from zmon.errors import Rejected

_ROWS = ("labels", "predictions", "ids")  # one value stands for one row
_CONTAINERS = (dict, list, np.ndarray)
MOST_ROWS = MERGE_ROWS  # of calls that are joined, because their conversion holds the interpreter
MOST_ARRAY_ROWS = 16 * MERGE_ROWS  # the same of arrays, which take a tenth of the time
MOST_BYTES = 2 * 2**20
LARGE = 128 * 2**10  # bytes of a call that is not joined: copying costs more than it saves


class Bundle(NamedTuple):
    """Calls that are converted together.

    Attributes
    ----------
    calls : sequence of Snapshot
    arguments : Arguments
        Of all rows.
    counts : list of int
        Rows of each call.
    nows : list of int
        Time of each call.
    """

    calls: Sequence[Snapshot]
    arguments: Arguments
    counts: list[int]
    nows: list[int]


def bundles(snapshots: Sequence[Snapshot]) -> Iterator[Sequence[Snapshot]]:
    """Yield consecutive calls that can be converted together, with each argument in a form that can be joined."""
    start = 0
    while start < len(snapshots):
        end = _end(snapshots, start)
        yield snapshots[start:end]
        start = end


def join(calls: Sequence[Snapshot]) -> Bundle:
    """Join the arguments of calls."""
    counts = [call.rows for call in calls]
    nows = [call.now for call in calls]
    if len(calls) == 1:
        return Bundle(calls, calls[0].arguments, counts, nows)
    columns = zip(*(call.arguments for call in calls), strict=True)
    joined = (_joined(column, counts) if column[0] is not None else None for column in columns)
    return Bundle(calls, Arguments._make(joined), counts, nows)


def _end(snapshots: Sequence[Snapshot], start: int) -> int:
    """Return the index behind the last call that can be converted together with the one at `start`."""
    first = snapshots[start]
    key = _key_of(first)
    if key is None:
        return start + 1
    forms = _forms(first)
    most = MOST_ROWS if forms is None else MOST_ARRAY_ROWS
    rows, nbytes, kind = first.rows, first.nbytes, first.kind
    for end in range(start + 1, len(snapshots)):
        call = snapshots[end]
        rows += call.rows
        nbytes += call.nbytes
        if rows > most or nbytes > MOST_BYTES or call.kind != kind:
            return end
        if (forms is None or not _are_of(forms, call.arguments)) and _key_of(call) != key:
            return end
    return len(snapshots)


def _forms(call: Snapshot) -> list[tuple[np.dtype[Any], tuple[int, ...]] | None] | None:
    """Return the dtype and shape of each argument of a call of plain arrays; None if it holds anything else."""
    given = [value for value in call.arguments if value is not None]
    if any(type(value) is not np.ndarray or value.dtype.hasobject for value in given):
        return None
    return [None if value is None else (value.dtype, value.shape) for value in call.arguments]


def _are_of(forms: Sequence[tuple[np.dtype[Any], tuple[int, ...]] | None], arguments: Arguments) -> bool:
    """Return whether arguments are arrays of these forms. Quick, because most calls of a service are alike."""
    for form, value in zip(forms, arguments, strict=True):
        if form is None:
            if value is not None:
                return False
        elif type(value) is not np.ndarray or value.dtype is not form[0] or value.shape != form[1]:
            return False
    return True


def _key_of(call: Snapshot) -> Any:
    """Bring each argument of a call into one of the forms that can be joined; return what calls of one form share.

    None if the call must be converted by itself.
    """
    rows, arguments = call.rows, call.arguments
    key: list[Any] = [call.kind]
    for i, value in enumerate(arguments):
        if value is None:
            key.append(None)
            continue
        kind = type(value)
        if kind is not list and (kind is not np.ndarray or not value.ndim):
            formed = _form(Arguments._fields[i], value, rows)
            if formed is not value:
                value = formed
                call.arguments = Arguments._make((*call.arguments[:i], value, *call.arguments[i + 1 :]))
        key.append(_key(value, rows))
    alone = False in key or not rows or call.nbytes > LARGE
    return None if alone else key


def _form(name: str, value: Any, rows: int) -> Any:
    """Return an argument in a form that `_joined` knows, if it has one."""
    if type(value) is np.ndarray:
        value = value[()]  # one value, as of a tensor
    if type(value) is dict:
        row = name in ("inputs", "probabilities") and rows == 1 and not _are_columns(value)
        return [value] if row else value
    if type(value) is Unusable or frames.is_frame(value) or frames.is_lazy(value) or hasattr(value, "nnz"):
        return value
    if rows == 1 and name in _ROWS and (isinstance(value, str | bytes | np.generic) or not hasattr(value, "__len__")):
        return [value]
    if name in ("inputs", "probabilities") and frames.is_series(value):
        return value  # its type may say that its values are categories, and its index that it is a row
    if isinstance(value, str | bytes | np.ndarray) or not hasattr(value, "__len__"):
        return value
    try:
        return as_array(value, name)  # a series
    except Rejected:
        return value


def _are_columns(value: dict[Any, Any]) -> bool:
    """Return whether the values of a mapping are columns of one row, rather than the values of that row."""
    return all(frames.length(each) == 1 for each in value.values())


def _key(value: Any, rows: int) -> Any:
    """Return what arguments that can be joined have in common; False if this one must stay by itself."""
    kind = type(value)
    if kind is np.ndarray:
        if value.shape[:1] != (rows,):
            return False
        return "U" if value.dtype.kind in "US" else value.dtype, value.shape[1:]
    if kind is list:
        if not rows or len(value) != rows:
            return False
        first = type(value[0])
        return list, first if first in _CONTAINERS else None
    if kind is dict:
        parts = [_key(each, rows) for each in value.values()]
        return False if False in parts else (dict, tuple(value), tuple(parts))
    root = kind.__module__.partition(".")[0]
    if root == "pandas" and kind.__name__ == "DataFrame" and len(value) == rows:
        # Columns of categories are no longer such when others are joined to them.
        return root, tuple(value.columns), tuple(t if hasattr(t, "categories") else None for t in value.dtypes)
    if root == "polars" and kind.__name__ == "DataFrame" and len(value) == rows:
        return root, tuple(value.columns)
    if root == "pyarrow" and kind.__name__ == "Table" and len(value) == rows:
        types = [t for t in value.schema.types if type(t).__name__ == "DictionaryType"]
        return root, tuple(value.schema.names), types
    if isinstance(value, str | bytes | int | float | np.generic) or kind.__module__ == "datetime":
        return (kind, getattr(value, "tzinfo", None) is None)
    return False


def _joined(values: Sequence[Any], counts: Sequence[int]) -> Any:
    first = values[0]
    kind = type(first)
    if kind is np.ndarray:
        return _concatenated(values)
    if kind is list:
        return list(chain.from_iterable(values))
    if kind is dict:
        return {key: _joined([value[key] for value in values], counts) for key in first}
    root = kind.__module__.partition(".")[0]
    library = sys.modules.get(root)  # loaded, since the frame is one of its
    if root == "pandas" and library is not None:
        return library.concat(values, ignore_index=True)
    if root == "polars" and library is not None:
        return library.concat(values, how="vertical_relaxed")
    if root == "pyarrow" and library is not None:
        return library.concat_tables(values, promote_options="permissive")
    return [value for value, count in zip(values, counts, strict=True) for _ in range(count)]


def _concatenated(arrays: Sequence[Array]) -> Array:
    dtype = arrays[0].dtype
    if dtype.hasobject or any(array.dtype is not dtype for array in arrays):
        return np.concatenate(arrays)
    joined = POOL.empty((sum(map(len, arrays)), *arrays[0].shape[1:]), dtype)
    return np.concatenate(arrays, out=joined)
