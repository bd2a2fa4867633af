"""A plugin that hangs, raises, returns nonsense and remembers nonsense, as a file of moods says.

The file is JSON: what goes wrong, by where it does, and how often. Each call reads it again.
"""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path

import numpy as np

from zmon import MetricBase, Value
from zmon.errors import RetryLater
from zmon.hooks import hookimpl

MOODS = Path(os.environ["ZMON_SOAK_MOODS"])
HANGS = 20.0  # seconds, longer than metric_timeout
NONSENSE = {
    "set": {1, 2},
    "object": object(),
    "none": None,
    "text": "seven",
    "surrogate": "\ud800",
    "nan": float("nan"),
    "huge": 10**400,
    "cyclic": [],
    "array": np.array([object()]),
}
NONSENSE["cyclic"].append(NONSENSE["cyclic"])


def fault(where):
    """What goes wrong here this time; mostly nothing does."""
    try:
        moods = json.loads(MOODS.read_text())
    except (OSError, ValueError):  # it is being written
        return None
    what, often = moods.get(where, (None, 0.0))
    if random.random() >= often:
        return None
    if what == "hang":
        time.sleep(HANGS)
    elif what == "raise":
        raise random.choice([ValueError, MemoryError, SystemExit, KeyboardInterrupt, RecursionError])("a mood")
    else:
        return NONSENSE.get(what)
    return None


class Wild(MetricBase):
    name = "wild"
    needs = frozenset({"probabilities"})

    def create(self, ctx):
        return {"rows": 0}

    def update(self, acc, batch, ctx):
        wrong = fault("update")
        return acc | {"rows": acc["rows"] + batch.rows} if wrong is None else wrong

    def merge(self, left, right):
        wrong = fault("merge")
        return {"rows": left["rows"] + right["rows"]} if wrong is None else wrong

    def result(self, acc, ctx):
        ctx.memory["kept"] = fault("memory")
        wrong = fault("result")
        if wrong is not None:
            yield wrong
            yield Value("wild_rows", wrong)
            yield Value(wrong, 1.0)
        yield Value("wild_rows", acc["rows"], target_type="gauge")

    def detail(self, acc, ctx):
        return fault("detail")


class Moody:
    name = "moody"

    def open(self):
        fault("open")

    def write(self, report):
        if fault("write") is not None:
            raise RetryLater("a mood", after=0.5)

    def close(self):
        fault("close")


@hookimpl
def register_metrics(register, options):
    register(Wild())


@hookimpl
def register_sinks(register, options):
    register(Moody())


@hookimpl
def window_closed(report):
    fault("window_closed")
