"""A sound plugin: how many rows a window has, and the option with which it opened."""

from __future__ import annotations

from zmon import MetricBase, Value
from zmon.hooks import hookimpl


class Sound(MetricBase):
    name = "sound"
    needs = frozenset()

    def create(self, ctx):
        return {"rows": 0, "scaled": 0}

    def update(self, acc, batch, ctx):
        acc["rows"] += batch.rows
        acc["scaled"] += batch.rows * ctx.options["scale"]
        return acc

    def merge(self, left, right):
        return {key: left[key] + right[key] for key in left}

    def result(self, acc, ctx):
        ctx.memory["rows"] = ctx.memory.get("rows", 0) + acc["rows"]
        yield Value("sound_rows", acc["rows"], target_type="gauge")
        yield Value("sound_scaled", acc["scaled"])


@hookimpl
def register_metrics(register, options):
    register(Sound())
