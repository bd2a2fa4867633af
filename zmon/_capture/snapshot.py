"""Copies a publish call's arguments in the form they were given. Runs in the model's thread, so it does no more.

What a copy still shares with the caller is immutable. Names, kinds, alignment and checks are the engine's work.
"""

from __future__ import annotations

import datetime as dt
import enum
import numbers
import uuid
from array import array
from collections import deque
from collections.abc import Callable, KeysView, Mapping, MappingView, Sequence, Set
from sys import getsizeof
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

from zmon._capture.interrupts import is_asynchronous
from zmon._capture.selection import Selection
from zmon._capture.sizes import CELL, of_arrow, of_objects, of_pandas
from zmon._transport.buffer_pool import LARGE, POOL
from zmon._transport.intake import Snapshot

OVERHEAD = 600  # bytes of Python objects around a snapshot's values
FEW = 32  # values that are looked at one by one faster than as a set of types
MOST_TYPES = 512  # types of values whose copiers are remembered

_ATOMS = (str, bytes, numbers.Number, np.generic, dt.date, dt.time, dt.timedelta, uuid.UUID, enum.Enum, type(None))
_NUMBERS = {int, float, bool, type(None)}
_SIZED = _NUMBERS | {str, bytes}
Copier = Callable[[Any], tuple[Any, int]]
_ROWS = {dict, list, tuple, np.ndarray}
_SYMBOLIC = {"SymbolicTensor", "KerasTensor", "DynamicJaxprTracer", "FakeTensor"}


class Arguments(NamedTuple):
    """Arguments of `Publisher.publish`, None where not given."""

    probabilities: Any = None
    inputs: Any = None
    labels: Any = None
    predictions: Any = None
    ids: Any = None
    timestamps: Any = None
    segments: Any = None


_TELLING = [Arguments._fields.index(name) for name in ("probabilities", "predictions", "ids", "inputs", "labels")]


class Unusable(NamedTuple):
    """Stands for an argument that could not be copied; ``dtype`` and ``symbolic`` are the reasons."""

    reason: str
    detail: str


def take(kind: str, now: int, arguments: Sequence[Any], selection: Selection, vectors: Sequence[str]) -> Snapshot:
    """Copy the arguments of a call.

    Parameters
    ----------
    kind : str
        ``"batch"`` or ``"labels"``.
    now : int
        Time of the call in nanoseconds since the epoch.
    arguments : sequence
        In the order of `Arguments`.
    selection : Selection
        Columns of a pandas frame that are left out are not copied; other containers share theirs or are cheap to copy.
    vectors : sequence of str
        Names of columns whose cells are containers, and are copied as well.
    """
    nbytes = OVERHEAD
    copies = []
    for value in arguments:
        if value is not None:
            # Most arguments are small arrays of numbers: they take no further call.
            if type(value) is ndarray and (size := value.nbytes) < LARGE and not value.dtype.hasobject:
                nbytes += size
                value = value.copy()
            elif type(value) is set or type(value) is frozenset:  # of rows; one in a row is a collection of classes
                value = Unusable("dtype", "a set has no order; pass a list")
            else:
                value, size = own(value, selection) if value is arguments[1] else own(value)
                nbytes += size
        copies.append(value)
    if vectors:
        nbytes += _own_cells(copies[1], vectors)
    taken = tuple.__new__(Arguments, copies)
    outputs = copies[0]
    rows = len(outputs) if type(outputs) is ndarray and outputs.ndim else _rows(taken, arguments)
    return Snapshot(kind, taken, now, rows, nbytes)


def own(value: Any, selection: Selection | None = None) -> tuple[Any, int]:
    """Return a copy of a value that the caller cannot change any more, and an estimate of its bytes.

    A value that cannot be copied is returned as `Unusable`. Asynchronous exceptions pass.
    """
    kind = type(value)
    copier = _copiers.get(kind) or _copier(kind)
    try:
        if copier is _pandas and selection:
            value = _selected(value, selection)
        copy: tuple[Any, int] = copier(value)
        return copy
    except BaseException as error:
        if is_asynchronous(error):
            raise
        return Unusable("dtype", f"{kind.__name__} cannot be copied: {type(error).__name__}: {error}"[:200]), 0


# --- copies, by type ------------------------------------------------------------------------------------------------


def _copier(kind: type) -> Copier:
    """Return how values of a type are copied, and remember it."""
    if len(_copiers) > MOST_TYPES:
        _copiers.clear()
        _copiers.update(_BUILT_IN)
    copier = _copiers[kind] = _classify(kind)
    return copier


def _classify(kind: type) -> Copier:
    root = kind.__module__.partition(".")[0]
    if kind.__name__ in _SYMBOLIC:
        return _symbolic
    if issubclass(kind, np.ndarray):
        return _array if kind is np.ndarray else _copied
    if issubclass(kind, _ATOMS):
        return _copied if issubclass(kind, np.void) else _same
    if hasattr(kind, "toarray") and hasattr(kind, "copy"):  # scipy's sparse matrices, one of which is a dict
        return _sparse
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return _record
    if issubclass(kind, Mapping):
        return _mapping
    if issubclass(kind, bytearray):
        return _bytes
    if issubclass(kind, array | memoryview | range):
        return _array_like
    if issubclass(kind, Set) and not issubclass(kind, KeysView):
        return _set
    if issubclass(kind, Sequence | MappingView | deque):
        return _list
    if root == "narwhals" and hasattr(kind, "to_native"):
        return _native
    if root == "pandas" and hasattr(kind, "copy"):
        return _pandas
    if root == "polars" and hasattr(kind, "clone"):
        return _polars
    if root == "pyarrow":
        return _arrow if hasattr(kind, "to_pylist") else _scalar
    if hasattr(kind, "detach") and hasattr(kind, "cpu"):
        return _torch
    if hasattr(kind, "columns") and hasattr(kind, "copy"):  # other frames, such as modin's
        return _copied
    return _array_like if hasattr(kind, "__array__") else _same


def _same(value: Any) -> tuple[Any, int]:
    return value, getsizeof(value, CELL)


def _array(value: Any) -> tuple[Any, int]:
    if not value.ndim:
        return value.copy()[()], value.nbytes + CELL
    if value.dtype.hasobject:
        copy = value.copy()
        if value.dtype.kind != "O" or _SIZED.issuperset(map(type, copy.flat)):
            return copy, copy.nbytes + _objects(copy)
        cells, nbytes = _list(copy.ravel())
        flat = np.empty(len(cells), dtype=object)
        flat[:] = cells if len(cells) != 1 else [cells[0]]
        return flat.reshape(copy.shape), nbytes
    return POOL.copy(value), value.nbytes


def _objects(array: Any) -> int:
    fields = array.dtype.names
    return sum(map(_objects, (array[name] for name in fields))) if fields else of_objects(array)


def _list(value: Any) -> tuple[Any, int]:
    copy = list(value)
    if copy and type(copy[0]) not in _ROWS:
        if len(copy) > FEW and _NUMBERS.issuperset(map(type, copy)):
            return copy, CELL * len(copy)
        nbytes = _sizes(copy)
        if nbytes is not None:
            return copy, nbytes + 2 * CELL * len(copy)
    nbytes = CELL + 8 * len(copy)
    for i, item in enumerate(copy):
        copy[i], size = _mapping(item) if type(item) is dict else own(item)
        nbytes += size
    return copy, nbytes


def _mapping(value: Any) -> tuple[Any, int]:
    copy = dict(value)
    nbytes = _sizes(copy.values())
    if nbytes is not None:
        return copy, nbytes + CELL * (4 + 2 * len(copy))
    nbytes = CELL * 4
    for key, item in copy.items():
        copy[key], size = _list(item) if type(item) is list else own(item)
        nbytes += size + CELL
    return copy, nbytes


def _sizes(values: Any) -> int | None:
    """Return the bytes of numbers and strings, beyond CELL for each; None if another type is among them."""
    nbytes = 0
    for item in values:
        kind = type(item)
        if kind is float or kind is int:
            continue
        if kind is str or kind is bytes:
            nbytes += 4 * len(item)
        elif kind is not bool and item is not None:
            return None
    return nbytes


def _record(value: Any) -> tuple[Any, int]:
    return _mapping(dict(zip(value._fields, value, strict=True)))


def _bytes(value: Any) -> tuple[Any, int]:
    return bytes(value), len(value)


def _set(value: Any) -> tuple[Any, int]:
    return _list(sorted(value, key=str))


def _pandas(value: Any) -> tuple[Any, int]:
    return value.copy(), of_pandas(value) + OVERHEAD


def _polars(value: Any) -> tuple[Any, int]:
    nbytes = value.estimated_size() if hasattr(value, "estimated_size") else 0  # a lazy frame holds no values
    return value.clone(), int(nbytes) + OVERHEAD


def _arrow(value: Any) -> tuple[Any, int]:
    return value, of_arrow(value) + OVERHEAD


def _scalar(value: Any) -> tuple[Any, int]:
    return own(value.as_py())


def _native(value: Any) -> tuple[Any, int]:
    return own(value.to_native())


def _sparse(value: Any) -> tuple[Any, int]:
    if isinstance(value, dict):  # of keys: everything else would take it for a mapping of names
        return _sparse(value.tocoo())  # type: ignore[attr-defined]
    return value.copy(), 24 * value.nnz + 8 * sum(value.shape) + OVERHEAD


def _copied(value: Any) -> tuple[Any, int]:
    copy = value.copy()
    if isinstance(copy, ndarray) and copy.dtype.hasobject:
        return copy, copy.nbytes + _objects(np.asarray(copy))
    return copy, getattr(copy, "nbytes", None) or CELL * getattr(copy, "size", 1)


def _torch(value: Any) -> tuple[Any, int]:
    host = value.detach().cpu()
    if "bfloat16" in str(host.dtype):  # NumPy has no such type
        host = host.float()
    return _array(np.asarray(host))


def _array_like(value: Any) -> tuple[Any, int]:
    found = np.asarray(value)
    return _array(found.astype(np.float32) if found.dtype.name == "bfloat16" else found)


def _symbolic(value: Any) -> tuple[Any, int]:
    return Unusable("symbolic", "the call was traced and had no values; watch the outermost compiled function"), 0


_BUILT_IN: dict[type, Callable[[Any], tuple[Any, int]]] = {
    np.ndarray: _array,
    list: _list,
    tuple: _list,
    dict: _mapping,
}
_BUILT_IN |= dict.fromkeys(_SIZED, _same)
_copiers = dict(_BUILT_IN)


# --- columns of a frame ---------------------------------------------------------------------------------------------


def _selected(frame: Any, selection: Selection) -> Any:
    names = tuple(getattr(frame, "columns", ()))
    places = selection.places_as_named(names)
    return frame if places is None or len(places) == len(names) else frame.iloc[:, places]


def _own_cells(inputs: Any, names: Sequence[str]) -> int:
    """Copy the cells of a pandas frame's columns of vectors in place; return an estimate of their bytes."""
    if _copiers.get(type(inputs)) is not _pandas or not hasattr(inputs, "columns"):
        return 0
    nbytes = 0
    for name in names:
        if name in inputs.columns:
            cells, size = _list(inputs[name])
            column = np.empty(len(cells), dtype=object)
            column[:] = cells
            inputs[name] = column
            nbytes += size
    return nbytes


# --- rows -----------------------------------------------------------------------------------------------------------


def _rows(taken: Arguments, given: Sequence[Any]) -> int:
    """Return the number of rows of a call, by its outputs, or else by whatever was given, usable or not."""
    for arguments in (taken, given):
        for place in _TELLING:
            value = arguments[place]
            if value is not None and type(value) is not Unusable and not hasattr(type(value), "__next__"):
                return count_rows(value)
    return 1


def count_rows(value: Any) -> int:
    """Return the number of rows of an argument: 1 for a number or a mapping of classes or features to values."""
    if type(value) is np.ndarray:
        return int(value.shape[0]) if value.ndim else 1
    if isinstance(value, dict):
        first = next(iter(value.values()), None)
        return count_rows(first) if hasattr(first, "__len__") and not isinstance(first, (dict, *_ATOMS)) else 1
    if isinstance(value, (*_ATOMS, Unusable)):
        return 1
    try:
        return int(value.shape[0]) if hasattr(type(value), "shape") else len(value)
    except BaseException as error:
        if is_asynchronous(error):
            raise
        return 1  # a lazy frame, or an object without a length
