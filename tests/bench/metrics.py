"""What each metric costs for a micro-batch and for closing a window: values a second, engine code alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from zmon_collector.plugins import Registry
from zmon_collector.sample import draw, row_keys

from tests.bench.measure import interleaved, table
from zmon.batch import Batch, Schema
from zmon.contract import Context, RowCounts, Window

ROWS = 4096


def run(quick: bool) -> list[dict[str, Any]]:
    registry = Registry()
    registry.load()
    found = []
    for features in (20, 784):
        random = np.random.default_rng(0)
        names = tuple(f"feat_{i}" for i in range(features))
        schema = Schema(classes=tuple("abcdefghij"), features=names, kinds=("numeric",) * features)
        p = random.dirichlet(np.ones(10), ROWS).astype("f4")
        columns = {
            "probabilities": p,
            "labels": random.integers(0, 10, ROWS),
            "inputs": random.normal(size=(ROWS, features)).astype("f4"),
        }
        batch = Batch(schema, columns)
        ctx = Context("m", "", None, schema, Window(0, 60), rows=RowCounts(ROWS), sample=batch)
        keys = row_keys(np.uint64(1), np.arange(ROWS, dtype=np.uint64))
        steps: dict[str, Any] = {"sample": lambda b=batch, k=keys: draw(b, k, 5000)}
        for name, state in registry.metrics.items():
            metric = state.metric
            acc = metric.update(metric.create(ctx), batch, ctx)
            steps[f"{name} update"] = lambda m=metric, c=ctx, b=batch: m.update(m.create(c), b, c)
            steps[f"{name} result"] = lambda m=metric, c=ctx, a=acc: list(m.result(a, c))
        times = interleaved(steps, 2 if quick else 10, 2)
        total = sum(np.median(each) for name, each in times.items() if not name.endswith("result"))
        for name, each in times.items():
            median = float(np.median(each))
            share = 0.0 if name.endswith("result") else median / total
            found.append({"features": features, "step": name, "ms": median / 1e6, "share": share})
    return found


def show(found: list[dict[str, Any]]) -> str:
    return table(
        f"metrics, a micro-batch of {ROWS} rows float32 (update, with its share) and its result",
        ("features", "step", "ms", "share"),
        [(r["features"], r["step"], f"{r['ms']:.2f}", f"{r['share']:.0%}" if r["share"] else "") for r in found],
    )
