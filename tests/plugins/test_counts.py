"""Sparse counts: equal to NumPy's own counting, whichever way the keys are sorted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from zmon_plugins import counts


@pytest.mark.parametrize("dtype", [np.uint32, np.int64])
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(0, 3000), reach=st.integers(1, 31), low=st.integers(0, 2**20))
def test_counts_are_those_of_numpy(dtype: type, seed: int, rows: int, reach: int, low: int) -> None:
    keys = np.random.default_rng(seed).integers(low, low + 2**reach, rows).astype(dtype)
    expected, times = np.unique(keys, return_counts=True)
    found = counts.of(keys)
    np.testing.assert_array_equal(found["keys"], expected)
    np.testing.assert_array_equal(found["counts"], times)
    assert found["keys"].dtype == dtype


def test_the_ends_of_blocks() -> None:
    edges = np.array([0, 65535, 65536, 131071, 131072, 2**19 - 1], dtype=np.uint32)
    for keys in (edges, edges[:1], edges[-1:], edges + np.uint32(2**32 - 2**19), np.array([0, 2**32 - 1], np.uint32)):
        found = counts.of(np.concatenate([keys[::-1], keys]))
        np.testing.assert_array_equal(found["keys"], keys)
        assert found["counts"].tolist() == [2] * len(keys)
