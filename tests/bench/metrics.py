"""What each metric costs at the full preset: for a micro-batch and for closing a window, engine code alone.

Rows come as services publish them, in batches of 32, and are joined into micro-batches as the engine does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from zmon_collector.compute.sample import draw, row_keys
from zmon_collector.plugins import Registry

from tests.bench.measure import Table, interleaved
from zmon.batch import Batch, Schema, concat
from zmon.contract import Context, Metric, RowCounts, Window

ROWS = 4096
BATCH = 32
SHOWN = 0.05  # ms; the figures hold the rest, too


def numeric(columns: int, rows: int, seed: int) -> Batch:
    """A batch of ten classes and this many float32 columns."""
    random = np.random.default_rng(seed)
    names = tuple(f"feat_{i}" for i in range(columns))
    schema = Schema(classes=tuple("abcdefghij"), features=names, kinds=("numeric",) * columns)
    inputs = random.normal(size=(rows, columns)).astype("f4")
    return Batch(schema, {**answers(random, rows), "inputs": inputs})


def mixed(rows: int, seed: int) -> Batch:
    """A batch of ten classes and 20 columns: 10 numeric with gaps, 7 categorical of 3 to 100 names, 3 boolean."""
    random = np.random.default_rng(seed)
    sizes = (3, 5, 8, 12, 20, 50, 100)
    names = tuple(f"feat_{i}" for i in range(20))
    kinds = ("numeric",) * 10 + ("categorical",) * 7 + ("boolean",) * 3
    schema = Schema(classes=tuple("abcdefghij"), features=names, kinds=kinds)
    inputs = random.normal(size=(rows, 10)).astype("f4")
    inputs[random.random((rows, 10)) < 0.02] = np.nan
    codes, dictionaries = [], []
    for size in sizes:
        seen, place = np.unique(random.integers(0, size, rows), return_inverse=True)
        codes.append(np.where(random.random(rows) < 0.02, -1, place))
        dictionaries.append(tuple(f"value {i}" for i in seen.tolist()))
    for _ in range(3):
        codes.append(random.integers(-1, 2, rows))
        dictionaries.append(("False", "True"))
    columns = {**answers(random, rows), "inputs": inputs, "codes": np.column_stack(codes).astype(np.int32)}
    return Batch(schema, columns, dictionaries={"codes": tuple(dictionaries)})


def answers(random: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    return {
        "probabilities": random.dirichlet(np.ones(10), rows).astype("f4"),
        "labels": random.integers(0, 10, rows),
    }


def regression(rows: int, seed: int) -> Batch:
    """A batch of predictions and targets alone."""
    random = np.random.default_rng(seed)
    columns = {"predictions": random.normal(size=rows), "labels": random.normal(size=rows)}
    return Batch(Schema(task="regression"), columns)


def run(folder: Path, quick: bool) -> list[dict[str, Any]]:
    registry = Registry()
    registry.load()
    metrics = [state.metric for state in registry.metrics.values()]
    found = []
    for name, make in (
        ("20 mixed", mixed),
        ("784 numeric", lambda rows, seed: numeric(784, rows, seed)),
        ("regression", regression),
    ):
        parts = [make(BATCH, seed) for seed in range(ROWS // BATCH)]
        found += _measured(name, parts, metrics, quick)
    return found


def _measured(name: str, parts: list[Batch], metrics: list[Metric[Any]], quick: bool) -> list[dict[str, Any]]:
    schema = parts[0].schema
    parts = [Batch(schema, part.raw(), part.rows, part.dictionaries) for part in parts]
    batch = concat(schema, parts)
    ctx = Context("m", "", None, schema, Window(0, 60), rows=RowCounts(ROWS), sample=batch)
    keys = row_keys(np.uint64(1), np.arange(ROWS, dtype=np.uint64))
    steps: dict[str, Any] = {"join": lambda: concat(schema, parts), "sample": lambda: draw(parts, keys, 5000)}
    for metric in metrics:
        if not metric.needs <= batch.columns or getattr(metric, "task", schema.task) != schema.task:
            continue
        acc = metric.update(metric.create(ctx), batch, ctx)
        steps[f"{metric.name} update"] = lambda m=metric: m.update(m.create(ctx), batch, ctx)
        steps[f"{metric.name} merge"] = lambda m=metric, a=acc: m.merge(m.update(m.create(ctx), batch, ctx), a)
        steps[f"{metric.name} result"] = lambda m=metric, a=acc: list(m.result(a, ctx))
    medians = {step: float(np.median(each)) for step, each in interleaved(steps, 2 if quick else 10, 2).items()}
    for step in medians:
        if step.endswith(" merge"):  # measured together with a fresh accumulator, because merging may change it
            medians[step] = max(0.0, medians[step] - medians[step.replace(" merge", " update")])
    total = sum(median for step, median in medians.items() if not step.endswith((" result", " merge")))
    values = ROWS * max(1, len(schema.features))
    rows = [
        {
            "inputs": name,
            "step": step,
            "ms": median / 1e6,
            "values": values,
            "share": 0.0 if step.endswith((" result", " merge")) else median / total,
        }
        for step, median in medians.items()
    ]
    whole = {"inputs": name, "step": "all of a micro-batch", "ms": total / 1e6, "values": values, "share": 1.0}
    return [*rows, whole | {"rows_per_s": ROWS / total * 1e9, "million_values_per_s": values / total * 1e3}]


def show(found: list[dict[str, Any]]) -> list[Table]:
    whole = [r for r in found if "rows_per_s" in r]
    return [
        Table(
            f"Metrics at the full preset, a micro-batch of {ROWS} rows joined from batches of {BATCH}, one core",
            ("inputs", "ms", "rows/s", "M input values/s"),
            [
                (r["inputs"], f"{r['ms']:.1f}", f"{r['rows_per_s']:,.0f}", f"{r['million_values_per_s']:.1f}")
                for r in whole
            ],
        ),
        Table(
            f"Metric by metric, what takes {SHOWN:g} ms and more: update with its share, merge, result",
            ("inputs", "step", "ms", "share", "M input values/s"),
            [
                (r["inputs"], r["step"], f"{r['ms']:.3f}", f"{r['share']:.0%}" if r["share"] else "",
                 f"{r['values'] / r['ms'] / 1e3:.0f}" if r["share"] and r["ms"] else "")
                for r in found
                if r not in whole and r["ms"] >= SHOWN
            ],
        ),
    ]  # fmt: skip
