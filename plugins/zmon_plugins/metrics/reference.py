"""Learn a model's reference from its first windows, for models without a profile of training data.

=============== ======================================================= =======
series          definition                                              range
=============== ======================================================= =======
reference_rows  rows of the reference that drift is measured against    0 …
=============== ======================================================= =======

Option ``reference_windows`` (from [metrics] or [models.NAME]): the row samples of this number of windows with rows are
collected, at most 16 MiB in total. Then they become a profile, which is kept from window to window and through
restarts. Until then the rows are in the data folder, like those of open windows.

>>> import numpy as np
>>> from zmon import Batch, Context, Profile, Schema, Window
>>> schema = Schema(classes=("no", "yes"), features=("age",), kinds=("numeric",))
>>> ctx = Context("fraud", "", None, schema, Window(0, 60), options={"reference_windows": 2})
>>> metric = Reference()
>>> for ages in ([31.0, 42.0], [53.0, 35.0]):
...     sample = Batch(schema, {"predictions": np.array([0, 1]), "inputs": np.array(ages)[:, np.newaxis]})
...     closing = Context("fraud", "", None, schema, Window(0, 60), ctx.options, memory=ctx.memory, sample=sample)
...     _ = list(metric.result(metric.create(closing), closing))
>>> Profile.from_bytes(ctx.memory["profile"]).numeric.mean.tolist()
[40.25]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from zmon.batch import Batch, Schema
from zmon.contract import Context, Metric, Series, Value
from zmon.hooks import hookimpl
from zmon.reference import from_batches

BYTES = 16 * 2**20  # of the rows of all windows
KEPT = ("inputs", "codes", "probabilities", "predictions", "predicted", "labels")


class Reference:
    """Keeps row samples of the first windows, then the profile made of them. The accumulator stays empty."""

    name = "reference"
    needs: frozenset[str] = frozenset()
    series = (
        Series("reference_rows", "rows of the reference that drift is measured against", preset="full", reference=True),
    )

    def create(self, ctx: Context) -> dict[str, Any]:
        return {}

    def update(self, acc: dict[str, Any], batch: Batch, ctx: Context) -> dict[str, Any]:
        return acc

    def merge(self, left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
        return left

    def result(self, acc: dict[str, Any], ctx: Context) -> Iterable[Value]:
        if ctx.reference is not None:
            yield Value("reference_rows", ctx.reference.rows)
        wanted = ctx.options.get("reference_windows", 0)
        whole = ctx.agent_id is None and ctx.segment is None
        if wanted and whole and ctx.sample is not None and "profile" not in ctx.memory:
            self._learn(ctx.sample, wanted, ctx)

    def _learn(self, sample: Batch, wanted: int, ctx: Context) -> None:
        windows = ctx.memory.setdefault("windows", [])
        windows.append(_pack(sample, BYTES // wanted))
        if len(windows) >= wanted:
            batches = [_unpack(packed).aligned(ctx.schema) for packed in windows]
            rows = max(batch.rows for batch in batches)
            ctx.memory["profile"] = from_batches(lambda: batches, window_rows=max(1, rows)).to_bytes()
            del ctx.memory["windows"]


def _pack(sample: Batch, limit: int) -> dict[str, Any]:
    """Return as many rows as fit into `limit` bytes, evenly spaced over the sample."""
    columns = {name: column for name, column in sample.raw().items() if name in KEPT}
    row = sum(column.nbytes for column in columns.values()) / max(1, sample.rows)
    rows = min(sample.rows, max(1, int(limit / max(1.0, row))))
    schema, even = sample.schema, np.arange(rows) * sample.rows // max(1, rows)
    return {
        "rows": rows,
        "columns": {name: column[even] for name, column in columns.items()},
        "dictionaries": [list(names) for names in sample.dictionaries.get("codes", ())],
        "schema": [schema.task, list(schema.classes), list(schema.features), list(schema.kinds), schema.threshold],
    }


def _unpack(packed: Mapping[str, Any]) -> Batch:
    task, classes, features, kinds, threshold = packed["schema"]
    schema = Schema(task, tuple(classes), tuple(features), tuple(kinds), threshold)
    codes = tuple(tuple(names) for names in packed["dictionaries"])
    return Batch(schema, packed["columns"], packed["rows"], {"codes": codes})


@hookimpl
def register_metrics(register: Callable[[Metric[Any]], None], options: Mapping[str, Any]) -> None:
    register(Reference())
