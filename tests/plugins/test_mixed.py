"""From a publish call to values, without sockets: tables of random kinds and gaps, in random splits: finite numbers."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from zmon_collector.compute import merge
from zmon_collector.compute.accumulate import AgentRows, StepProgress, accumulate, draw
from zmon_collector.config import Config
from zmon_collector.config.policy import ModelPolicy
from zmon_collector.ingest.validation import check_batch

from tests.support.capture import capture, convert
from tests.support.metrics import METRICS
from zmon._capture.assembler import Assembler
from zmon._wire.frames import Topic, decode, decode_schema, encode_batch
from zmon.batch import Batch, Schema, concat
from zmon.contract import Context, RowCounts, Value, Window

COLUMNS: dict[str, st.SearchStrategy[Any]] = {
    "floats": st.floats(-1e100, 1e100) | st.none(),
    "small": st.floats(-1e3, 1e3) | st.none(),
    "huge": st.sampled_from([1e308, -1e308, float("inf"), float("nan"), 5e-324, None]),
    "whole": st.integers(-(2**60), 2**60) | st.none(),
    "flag": st.booleans() | st.none(),
    "text": st.text(max_size=3) | st.none() | st.just(float("nan")),
    "name": st.sampled_from(["a", "b", "__other__", "", "x" * 300]),
    "day": st.dates(dt.date(1970, 1, 1)) | st.none(),
    "list": st.lists(st.integers(), max_size=2),
    "empty": st.none(),
}


def batches(one: Assembler, pieces: list[dict[str, Any]]) -> list[Batch]:
    """What the collector holds of these publish calls."""
    found = []
    for piece in pieces:
        made = convert(one, piece["p"], inputs=piece["rows"], labels=piece["labels"], segments={"zone": piece["zones"]})
        assert not made.rejected
        assert {loss.reason for loss in made.degraded} <= {"inputs_kind", "inputs_dtype"}
        for layout, cut, _ in made.pieces:
            arrays = [[n, d, [cut.rows] if width is None else [cut.rows, width]] for n, d, width in layout.arrays]
            frames = encode_batch(
                Topic("m", "", "a").encode(),
                stream=b"s" * 16,
                schema=layout.schema,
                first=1,
                rows=cut.rows,
                base=1,
                ts=1,
                arrays=arrays,
                buffers=cut.buffers,
            )
            schema = decode_schema(one.schemas[layout.schema], layout.schema)
            found.append(check_batch(decode(frames), schema))
    return found


@st.composite
def calls(draw: Any) -> list[dict[str, Any]]:
    names = draw(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, max_size=6, unique=True))
    pieces = []
    for _ in range(draw(st.integers(1, 4))):
        n = draw(st.integers(1, 6))
        random = np.random.default_rng(draw(st.integers(0, 2**32)))
        pieces.append(
            {
                "rows": [{name: draw(COLUMNS[name]) for name in names} for _ in range(n)],
                "p": random.dirichlet(np.ones(3), n),
                "labels": random.choice([0, 1, 2, None], n).tolist(),
                "zones": random.choice(["east", "west", None], n).tolist(),
            }
        )
    return pieces


def values(schema: Schema, parts: list[list[Batch]]) -> dict[tuple[Any, ...], float]:
    """The rollup's values, with each part accumulated on its own; `finish` refuses NaN and infinities."""
    policy = ModelPolicy(Config(), "m")
    metrics = list(METRICS.values())
    whole = [batch for part in parts for batch in part]

    def contexts(**more: Any) -> dict[str, Context]:
        return {
            name: Context("m", "", None, schema, Window(0, 60), options=policy.options(name, name), **more)
            for name in METRICS
        }

    progress = StepProgress()
    partials = [accumulate(metrics, [batch.aligned(schema)], contexts(), progress) for part in parts for batch in part]
    rows = sum(batch.rows for batch in whole)
    numbers = [1 + sum(each.rows for each in whole[:i]) for i in range(len(whole))]
    aligned = [batch.aligned(schema) for batch in whole]
    rows_by_number = [AgentRows("a", batch, 7, number) for batch, number in zip(aligned, numbers, strict=True)]
    sample = draw(rows_by_number, schema, 5000, 2**64 - 1)
    closing = contexts(rows=RowCounts(rows))
    parts_of_window = merge.WindowParts(
        {"a": [merge.fold(metrics, partials, progress)]},
        {name: {"a": ctx, None: ctx} for name, ctx in closing.items()},
        {"a": sample, None: sample},
        lambda metric, value: True,
    )
    finished = merge.finish(metrics, parts_of_window, progress, merge.MetricResults())
    assert not progress.failures
    points = [point for points in finished.points.values() for point in points if point.agent_id is None]
    found: dict[tuple[Any, ...], float] = {}
    for point in points:
        names = (point.value.what, *point.value[2:])
        assert names not in found
        found[names] = point.value.value
    return found


@settings(max_examples=150)
@given(calls())
def test_random_tables_give_finite_numbers_whatever_the_split(pieces: list[dict[str, Any]]) -> None:
    held = batches(capture(kinds={"empty": "categorical"}), pieces)
    if not held:
        return
    schema = held[0].schema
    for batch in held[1:]:
        assert not schema.conflict(batch.schema)
        schema = schema.union(batch.schema)
    apart = values(schema, [[batch] for batch in held])
    aligned = [batch.aligned(schema) for batch in held]
    alike = [[batch for batch in aligned if batch.columns == columns] for columns in {b.columns for b in aligned}]
    joined = [concat(schema, batches) for batches in alike]  # as the engine does: a batch without inputs stays apart
    for other in (values(schema, [joined]), values(schema, [[batch] for batch in reversed(held)])):
        # Squares of deviations of 1e308 overflow or not with the last digit of the mean.
        assert {n for n in other.keys() ^ apart.keys() if "std" not in n} == set()
        for names, value in apart.items():
            if names in other:
                assert np.isclose(other[names], value, rtol=1e-9, atol=1e-9 * scale(names, apart)), names


def scale(names: tuple[Any, ...], found: dict[tuple[Any, ...], float]) -> float:
    """What rounding errors of a series are measured by: for statistics of a feature, its largest value."""
    like = Value("", 0.0)._replace(**dict(zip(Value._fields[2:], names[1:], strict=True)))
    if not like.feat_name:
        return 1.0
    sizes = [abs(v) for n, v in found.items() if n[0] == names[0] and n[2] == like.feat_name]
    return max([1.0, *sizes])
