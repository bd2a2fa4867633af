"""Features from the containers of gradient boosting libraries: xgboost's ``DMatrix`` and CatBoost's ``Pool``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zmon.batch import Array


def is_container(value: Any) -> bool:
    """Return whether `features` may know the value."""
    return hasattr(value, "get_feature_names") or hasattr(value, "feature_types")


def features(value: Any) -> Array | Mapping[str, Any] | None:
    """Return a container's features, by name if it has names; None if they cannot be read."""
    if hasattr(value, "get_feature_names"):
        return _pool(value)
    return _matrix(value)


def _pool(pool: Any) -> Array | Mapping[str, Any] | None:
    try:
        values = pool.get_features()
    except Exception:  # noqa: BLE001 - CatBoost returns features only if all are numbers, and not once quantized
        return None
    return _named(values, pool.get_feature_names())


def _matrix(matrix: Any) -> Array | Mapping[str, Any] | None:
    try:
        rows = matrix.get_data()  # a sparse matrix: what is not in it is missing, zeros are in it
    except Exception:  # noqa: BLE001 - data in external memory cannot be read back
        return None
    values = np.full(rows.shape, np.nan, dtype=np.float32)
    values[np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr)), rows.indices] = rows.data
    kinds = matrix.feature_types or ()
    if "c" not in kinds:
        return _named(values, matrix.feature_names)
    names = matrix.feature_names or [f"feat_{i}" for i in range(values.shape[1])]
    categories = _categories(matrix)
    columns = {}
    for i, name in enumerate(names):
        if kinds[i] != "c":
            columns[name] = values[:, i]
        elif categories.get(name):  # codes must not be read as numbers: without their names the column is left out
            known = categories[name]
            columns[name] = np.array([known[int(code)] if code == code else None for code in values[:, i]], object)
    return columns or None


def _categories(matrix: Any) -> Mapping[str, list[Any]]:
    """Return the categories of a matrix by column; empty if this release of xgboost cannot tell them."""
    try:
        found = matrix.get_categories(export_to_arrow=True).to_arrow()
        return {name: values.to_pylist() for name, values in found if values is not None}
    except Exception:  # noqa: BLE001 - before xgboost 3.1, or without pyarrow
        return {}


def _named(values: Array, names: Sequence[str] | None) -> Array | Mapping[str, Any]:
    if not names or not any(names) or len(set(names)) != values.shape[1]:
        return values
    return {name: values[:, i] for i, name in enumerate(names)}
