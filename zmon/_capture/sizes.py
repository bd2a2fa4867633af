"""How many bytes a copy of a frame or of an array of objects holds, in about a microsecond. Runs in the model's thread.

What a few objects hold is exact; where there are more, some of them stand for the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from sys import getsizeof
from typing import Any

from numpy import ndarray

CELL = 64  # bytes counted for a number in a list, and for a cell of a frame next to what is found here
ALL = 128  # cells that are all looked at: a row of a wide frame may hold a single long text
MOST = 32  # cells that are looked at if there are more, and large columns of arrow


def of_objects(array: Any) -> int:
    """Return the bytes of the objects that an array refers to."""
    count = array.size
    if count <= ALL:
        return sum(map(getsizeof, _cells(array)))
    cells = array.ravel("K")[:: -(-count // MOST)]
    return _extrapolated(list(map(getsizeof, _cells(cells))), count)


def _cells(array: Any) -> Iterable[Any]:
    """Return the cells of an array; those of NumPy's strings of any length are not to be reached one by one."""
    cells: Iterable[Any] = array.flat if array.dtype.kind == "O" else array.ravel("K").tolist()
    return cells


def of_pandas(frame: Any) -> int:
    """Return the bytes of a frame, a series or the like."""
    nbytes: int = CELL * prod(frame.shape)
    # `dtypes` and `memory_usage` take longer than the copy does.
    manager = getattr(frame, "_mgr", None)  # an index has none
    parts = [getattr(frame, "_values", frame)] if manager is None else [block.values for block in manager.blocks]
    strings = []
    total = objects = 0
    for part in parts:
        if type(part) is ndarray:
            if part.dtype.hasobject:
                objects += of_objects(part)
            continue
        store = getattr(part, "_pa_array", None)
        if store is not None:  # strings, and whatever else is held by arrow
            strings.append(store)
            total += store.get_total_buffer_size()
        elif getattr(getattr(part, "_ndarray", None), "dtype", None) == "O":  # strings without arrow
            objects += of_objects(part._ndarray)
    return nbytes + objects + (_of_columns(strings) if total > nbytes else 0)


def of_arrow(value: Any) -> int:
    """Return the bytes of a table, a batch or an array."""
    nbytes: int = CELL * len(value) * getattr(value, "num_columns", 1)
    if value.get_total_buffer_size() <= nbytes:
        return nbytes
    columns: list[Any] = value.columns if hasattr(value, "num_columns") else [value]
    return nbytes + _of_columns(columns)


def _of_columns(columns: list[Any]) -> int:
    """Return the bytes of those arrow columns that are large, without what a slice leaves out, which takes long."""
    large = [column for column in columns if column.get_total_buffer_size() > CELL * len(column)]
    step = max(1, -(-len(large) // MOST))
    return _extrapolated([column.nbytes for column in large[::step]], len(large))


def _extrapolated(sizes: list[int], count: int) -> int:
    """Return the bytes of `count` things by the sizes of some; the largest of them stands for no other."""
    total, looked = sum(sizes), len(sizes)
    if looked >= count or looked < 2:
        return total
    return total + (count - looked) * (total - max(sizes)) // (looked - 1)
