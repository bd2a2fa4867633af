"""Single values as they come in arguments: which are missing, and the text that stands for one. Pure."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

ABSENT = frozenset({"NoneType", "NAType", "NaTType", "MaskedConstant"})
_SURROGATES = re.compile("[\ud800-\udfff]")


def is_missing(value: Any) -> bool:
    """Return whether a value is missing: None, NaN, NaT, pandas.NA, masked."""
    if value is None or type(value).__name__ in ABSENT:
        return True
    try:
        return bool(value != value)
    except ArithmeticError:  # a signalling NaN
        return True
    except (TypeError, ValueError):  # arrays
        return False


def text_of(value: Any) -> str:
    """Return the text of a value: a string as it is, also as a member of an enumeration; whole numbers without ``.0``.

    >>> text_of("a"), text_of(b"a"), text_of(7.0), text_of(np.bool_(True))
    ('a', 'a', '7', 'True')
    """
    if isinstance(value, str):
        text = str.__str__(value)
    elif isinstance(value, bytes):
        text = value.decode(errors="replace")
    elif isinstance(value, np.datetime64 | np.timedelta64):
        text = str(_moment(value))
    elif isinstance(value, float | np.floating) and value.is_integer():
        text = str(int(value))
    else:
        text = str(value)
    return text if text.isascii() else encodable(text)


def elements(array: np.ndarray[Any, Any]) -> list[Any]:
    """Return the elements of an array; times stay NumPy's, because Python's would be integers in some units."""
    return list(array) if array.dtype.kind in "Mm" else array.tolist()


def _moment(value: np.datetime64 | np.timedelta64) -> Any:
    """Return a time as one of Python, if it has it, so that its text is the same in every unit."""
    found = value.item()
    if isinstance(found, int):
        found = value.astype(f"{value.dtype.kind}8[us]").item()
    return value if isinstance(found, int) else found


def encodable(text: str) -> str:
    """Return a string that UTF-8 can encode: lone surrogates are replaced.

    >>> encodable("a\\ud800b")
    'a�b'
    """
    return _SURROGATES.sub("\ufffd", text)
