"""Rows of one table, in the shapes that oracles and publishers take."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tests.plugins.oracles import Rows
from tests.support.frameworks import require

START = 1_600_000_020  # a minute in 2020


def subset(rows: Rows, numbers: np.ndarray) -> Rows:
    picked = {
        name: None if getattr(rows, name) is None else getattr(rows, name)[numbers]
        for name in ("probabilities", "inputs", "labels", "predictions")
    }
    if rows.coded is not None:
        picked["coded"] = rows.coded.iloc[numbers]
    return replace(rows, **picked)


def mixed(n: int, seed: int) -> tuple[Rows, Any]:
    """A model with 20 inputs of all kinds, and the frame they stand in."""
    pandas = require("pandas")
    random = np.random.default_rng(seed)
    numeric = {f"n{i}": random.normal(10.0**i, 1.0, n) for i in range(8)}
    for i in range(1, 8, 2):
        numeric[f"n{i}"][random.random(n) < 0.1 * i] = np.nan
    numeric["count"] = random.integers(0, 9, n)
    gaps = [None] * 9
    coded = {
        "city": random.choice(["Rome", "Oslo", "Bonn", "ünïcode"], n),
        "plan": random.choice(["free", "paid", None], n),
        "code": [f"{i:04}" for i in random.zipf(1.6, n).clip(0, 9000)],
        "gone": random.choice(["once", *gaps], n),
        "vip": random.random(n) < 0.1,
        "opted": random.choice([True, False, None], n),
        **{f"c{i}": random.choice([f"v{j}" for j in range(i + 1)], n) for i in range(4)},
    }
    coded = {name: [v.item() if isinstance(v, np.generic) else v for v in column] for name, column in coded.items()}
    coded["gone"][0], coded["plan"][0], coded["opted"][0] = "once", "free", True
    essays = ["word " * 90] * n
    frame = pandas.DataFrame({"essay": pandas.Series(essays, dtype=object), **numeric, **coded})
    for name in ("plan", "gone", "opted"):
        frame[name] = pandas.Series(coded[name], dtype=object)
    frame = frame[random.permutation(frame.columns)]
    features = tuple(name for name in frame.columns if name in numeric)
    rows = Rows(("a", "b", "c"), random.dirichlet(np.ones(3), n), None, random.integers(-1, 3, n))
    rows.inputs, rows.features = frame[list(features)].to_numpy(dtype=np.float64), features
    rows.coded = pandas.DataFrame({name: pandas.Series(coded[name], dtype=object) for name in frame if name in coded})
    rows.skipped = ("essay",)
    return rows, frame
