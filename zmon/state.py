"""Packs accumulators and plugin memory: msgpack, with arrays and NumPy scalars. Pure; nothing is ever unpickled."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np

_ARRAY = 1
_DTYPES = "fiubS"


def pack_state(value: Any) -> bytes:
    """Pack plain data: None, numbers, strings, bytes, lists, maps with string keys, arrays of numbers or bytes.

    Raises
    ------
    TypeError
        For anything else.

    Examples
    --------
    >>> unpack_state(pack_state({"n": 3, "sums": np.array([1.0, 2.0])}))
    {'n': 3, 'sums': array([1., 2.])}
    """
    packed: bytes = msgpack.packb(value, default=_encode, use_bin_type=True)
    return packed


def unpack_state(data: bytes) -> Any:
    """Unpack the result of `pack_state`; tuples become lists, NumPy scalars become Python numbers."""
    return msgpack.unpackb(data, ext_hook=_decode, raw=False, strict_map_key=False)


def _encode(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in _DTYPES:
        native = np.ascontiguousarray(value)
        return msgpack.ExtType(_ARRAY, msgpack.packb([native.dtype.str, list(value.shape), native.tobytes()]))
    raise TypeError(f"an accumulator holds a {type(value).__name__}; use plain data and arrays only")


def _decode(code: int, data: bytes) -> Any:
    if code != _ARRAY:
        raise ValueError(f"extension {code} is not an array")
    dtype, shape, buffer = msgpack.unpackb(data)
    return np.frombuffer(buffer, dtype=np.dtype(dtype)).reshape(shape).copy()
