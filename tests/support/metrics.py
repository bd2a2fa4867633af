"""The metrics that are installed, and random rows as oracles and as metrics read them."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
import pandas
from zmon_collector.plugins import Registry

from tests.plugins.oracles import Rows
from zmon._capture.kinds import Coded, categorical
from zmon.batch import Batch, Schema
from zmon.categories import OTHER, hashed
from zmon.contract import Metric


def discovered() -> dict[str, Metric[Any]]:
    registry = Registry()
    registry.load()
    return {name: state.metric for name, state in registry.metrics.items() if state.plugin != "acme"}


FOUND = discovered()
# Those of late labels read columns that no publisher sends: tests/plugins/test_late_labels.py
METRICS = {name: metric for name, metric in FOUND.items() if "label_outcomes" not in metric.needs}


def as_batch(rows: Rows) -> Batch:
    coded = (
        {}
        if rows.coded is None
        else {name: categorical(c.tolist(), declared=True)[0] for name, c in rows.coded.items()}
    )
    unnamed: list[Any] = []
    if rows.hashed is not None:
        for name, column in rows.hashed.items():
            codes, *pair = hashed(*categorical(column.tolist(), declared=True)[0])
            coded[name] = Coded(codes, (OTHER,))
            unnamed.append(pair)
    schema = Schema(
        task=rows.task,
        classes=rows.classes,
        features=(*rows.features, *coded, *rows.skipped),
        kinds=("numeric",) * len(rows.features) + ("categorical",) * len(coded) + ("text",) * len(rows.skipped),
        threshold=rows.threshold,
        hashed=() if rows.hashed is None else tuple(rows.hashed),
    )
    parts = [np.column_stack(each) for each in zip(*unnamed, strict=True)] or [None, None]
    columns = {
        "probabilities": None if rows.probabilities is None else rows.p.astype(rows.probabilities.dtype),
        "predictions": rows.predictions,
        "labels": rows.labels,
        "inputs": rows.inputs,
        "codes": np.column_stack([each.codes for each in coded.values()]) if coded else None,
        "hashes": parts[0],
        "lengths": parts[1],
    }
    there = {name: column for name, column in columns.items() if column is not None}
    return Batch(schema, there, rows.n, {"codes": tuple(each.names for each in coded.values())})


def digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=4).hexdigest()


def random_rows(seed: int, n: int, classes: int, *, labels_only: bool = False, dtype: Any = np.float64) -> Rows:
    random = np.random.default_rng(seed)
    names = tuple(f"c{i}" for i in range(classes))
    p = random.dirichlet(np.full(classes, 0.5), n)
    if n > 3:
        p[1] = 1 / classes  # ties
        p[2] = np.eye(classes)[0]
    inputs = random.normal(1e4, 3.0, (n, 5))
    inputs[random.random((n, 5)) < 0.1] = np.nan
    inputs[random.random(n) < 0.1, 1] = -np.inf
    inputs[:, 3], inputs[:, 4] = np.nan, 7.25
    coded = {
        "city": random.choice(["Rome", "Oslo", "Bonn", "", "ä" * 300, None], n),
        "vip": random.choice([True, False, None], n),
        "rare": random.zipf(1.5, n).clip(0, 900),
        "gone": np.full(n, None),
    }
    coded = pandas.DataFrame({name: pandas.Series(column, dtype=object) for name, column in coded.items()})
    customers = [None if k % 7 == 0 else "c" * (k % 5) + str(k) for k in random.integers(0, 1500, n)]
    return Rows(
        classes=names,
        probabilities=None if labels_only else p.astype(dtype),
        predictions=random.integers(0, classes, n) if labels_only else None,
        labels=random.integers(-1, max(1, classes - 1), n),  # the last class never occurs
        inputs=inputs.astype(dtype),
        features=tuple(f"feat_{i}" for i in range(5)),
        threshold=0.3,
        coded=coded.replace({"city": {"": "(empty)", "ä" * 300: "ä" * 247 + "…" + digest("ä" * 300)}}),
        hashed=pandas.DataFrame({"customer": pandas.Series(customers, dtype=object)}),
        skipped=("essay",),
    )
