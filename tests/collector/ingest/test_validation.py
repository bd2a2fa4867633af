"""From a message to rows by window: values checked against the schema, times settled, rows split with their numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from zmon_collector.ingest.validation import check_batch, resolve_times, split_rows
from zmon_collector.windows.window import NANO, Periods

from zmon._wire.frames import Message, Topic
from zmon.batch import Batch, Schema
from zmon.errors import WireError

BINARY = Schema(classes=("no", "yes"), features=("x", "y"), kinds=("numeric",) * 2)
TERNARY = Schema(classes=("a", "b", "c"))
REGRESSION = Schema(task="regression")
P = np.array([[0.9, 0.1], [0.2, 0.8]])


def message(ts: int = 0, **columns: np.ndarray) -> Message:
    rows = len(next(iter(columns.values())))
    return Message(Topic("m", "", "a"), "batch", b"s" * 16, b"h" * 8, 11, rows, 1, ts, columns)


def test_one_binary_column_becomes_two() -> None:
    batch = check_batch(message(probabilities=np.array([0.25, 0.75], dtype=np.float32)), BINARY)
    assert batch.probabilities.tolist() == [[0.75, 0.25], [0.25, 0.75]]


@pytest.mark.parametrize(
    ("reason", "schema", "columns"),
    [
        ("probabilities_shape", TERNARY, {"probabilities": P}),
        ("probabilities_shape", TERNARY, {"probabilities": P[:, 0]}),
        ("probabilities_range", BINARY, {"probabilities": P - 0.2}),
        ("probabilities_range", BINARY, {"probabilities": P + 0.2}),
        ("probabilities_range", BINARY, {"probabilities": P * np.nan}),
        ("probabilities_range", BINARY, {"probabilities": P * np.inf}),
        ("probabilities_missing", BINARY, {"inputs": P}),
        ("labels_index", BINARY, {"probabilities": P, "labels": np.array([0, 2])}),
        ("labels_index", BINARY, {"probabilities": P, "labels": np.array([0, -2])}),
        ("labels_dtype", BINARY, {"probabilities": P, "labels": np.array([0.0, 1.0])}),
        ("predictions_index", BINARY, {"predictions": np.array([0, -1])}),
        ("inputs_shape", BINARY, {"probabilities": P, "inputs": np.zeros((2, 3))}),
        ("predictions_missing", REGRESSION, {"labels": np.array([0.0, 1.0])}),
        ("predictions_missing", REGRESSION, {"predictions": np.array([0, 1])}),
        ("predictions_nan", REGRESSION, {"predictions": np.array([0.0, np.nan])}),
    ],
)
def test_values_that_cannot_be(reason: str, schema: Schema, columns: dict[str, np.ndarray]) -> None:
    with pytest.raises(WireError) as error:
        check_batch(message(**columns), schema)
    assert error.value.reason == reason


def test_times_far_ahead_become_the_time_of_receipt() -> None:
    now = 1_700_000_000.0
    times = (np.array([now - 86400, now + 299, now + 301]) * NANO).astype(np.int64)
    settled_times, skewed = resolve_times(message(probabilities=np.zeros((3, 2)), timestamps=times), now, 300.0)
    assert skewed == 1
    assert (np.asarray(settled_times) / NANO - now).round().tolist() == [-86400, 299, 0]
    assert resolve_times(message(ts=int((now + 400) * NANO), probabilities=P), now, 300.0) == (int(now * NANO), 2)
    assert resolve_times(message(ts=5, probabilities=P), now, 300.0) == (5, 0)


@given(st.lists(st.integers(0, 400), min_size=1, max_size=60), st.integers(0, 20), st.integers(1, 100))
def test_a_split_keeps_every_row_with_its_number(seconds: list[int], skip: int, period: int) -> None:
    skip = min(skip, len(seconds) - 1)
    times = np.array(seconds, dtype=np.int64) * NANO
    x = np.arange(len(seconds), dtype=np.float64)
    batch = Batch(BINARY, {"inputs": x[:, np.newaxis], "timestamps": times})
    seen: dict[int, int] = {}
    for part in split_rows(batch, 11, skip, Periods(period).starts(times)):
        numbers = part.numbers
        if isinstance(numbers, int):
            numbers = np.arange(numbers, numbers + part.batch.rows, dtype=np.uint64)
        assert part.newest == part.batch.timestamps.max() / NANO
        for number, row, time in zip(numbers.tolist(), part.batch.inputs[:, 0], part.batch.timestamps, strict=True):
            assert number == row + 11
            assert part.start <= time / NANO < part.start + period
            assert part.start % period == 0
            seen[number] = part.start
    assert sorted(seen) == list(range(11 + skip, 11 + len(seconds)))


def test_one_time_for_all_rows() -> None:
    batch = check_batch(message(probabilities=P), BINARY, 125 * NANO)
    (part,) = split_rows(batch, 1, 0, Periods(60).starts(125 * NANO))
    assert (part.start, part.numbers, part.newest) == (120, 1, 125.0)
    assert part.batch.timestamps.tolist() == [125 * NANO] * 2
