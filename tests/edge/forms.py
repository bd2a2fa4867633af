"""The same values in the containers that people pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tests.support.frameworks import require

Columns = Mapping[str, Sequence[Any]]


def rows(columns: Columns) -> list[dict[str, Any]]:
    """Return a list of dicts."""
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


FRAMES: dict[str, Callable[[Columns], Any]] = {
    "pandas": lambda columns: require("pandas").DataFrame(dict(columns)),
    "pandas-nullable": lambda columns: require("pandas").DataFrame(dict(columns)).convert_dtypes(),
    "pandas-arrow": lambda columns: require("pandas").DataFrame(dict(columns)).convert_dtypes(dtype_backend="pyarrow"),
    "polars": lambda columns: require("polars").DataFrame(dict(columns), strict=False),
    "arrow": lambda columns: require("pyarrow").table(dict(columns)),
    "columns": lambda columns: {name: list(values) for name, values in columns.items()},
    "rows": rows,
}
NAMED = ("pandas", "pandas-nullable", "pandas-arrow", "polars", "arrow")  # those that have columns in an order

MATRICES: dict[str, Callable[[np.ndarray], Any]] = {
    "float64": lambda a: a,
    "float32": lambda a: a.astype("f4"),
    "fortran": np.asfortranarray,
    "big-endian": lambda a: a.astype(">f8"),
    "strided": lambda a: np.repeat(a, 2, axis=0)[::2],
    "list": lambda a: a.tolist(),
    "list of arrays": list,
    "tuples": lambda a: [tuple(row) for row in a.tolist()],
    "object": lambda a: a.astype(object),
    "pandas": lambda a: require("pandas").DataFrame(a),
    "pandas-nullable": lambda a: require("pandas").DataFrame(a).astype("Float64"),
    "pandas-arrow": lambda a: require("pandas").DataFrame(a).astype("double[pyarrow]"),
    "polars": lambda a: require("polars").DataFrame(a),
    "torch": lambda a: require("torch").tensor(a),
    "torch-grad": lambda a: require("torch").tensor(a, requires_grad=True),
}


def sharp(labels: Sequence[int], classes: int, p: float = 0.9) -> np.ndarray:
    """Return probabilities whose highest is that of the label, `p`."""
    found = np.full((len(labels), classes), (1 - p) / (classes - 1))
    found[np.arange(len(labels)), labels] = p
    return found
