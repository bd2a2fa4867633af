"""A metric and a sink in one file: how often the model is unsure, and a line of text for each closed window.

Configuration::

    [plugins.unsure]
    below = 0.6             # a row is unsure when its highest probability is below this

    [sinks.lines]           # the sink is used when its table is there
    path = "windows.txt"
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from zmon import Batch, ConfigurationError, Context, Metric, Report, RetryLater, Series, Sink, Value
from zmon.hooks import hookimpl


class Unsure:
    """Share of rows whose highest probability is below a bound, in [0, 1]."""

    name = "unsure"
    needs = frozenset({"probabilities"})
    series = (Series("unsure_freq", "share of rows whose highest probability is below the bound"),)

    def create(self, ctx: Context) -> dict[str, int]:
        return {"rows": 0, "unsure": 0}

    def update(self, acc: dict[str, int], batch: Batch, ctx: Context) -> dict[str, int]:
        below = batch.probabilities.max(axis=1) < ctx.options.get("below", 0.5)
        return {"rows": acc["rows"] + batch.rows, "unsure": acc["unsure"] + int(below.sum())}

    def merge(self, left: dict[str, int], right: dict[str, int]) -> dict[str, int]:
        return {key: left[key] + right[key] for key in left}

    def result(self, acc: dict[str, int], ctx: Context) -> Iterable[Value]:
        if acc["rows"]:
            yield Value("unsure_freq", acc["unsure"] / acc["rows"])


class Lines:
    """Appends a line for each report. Writing a report again adds nothing: the last sequence is remembered."""

    name = "lines"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = 0

    def open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, report: Report) -> None:
        if report.sequence <= self._last:
            return
        rows = sum(counts.received for counts in report.rows.values())
        line = f"{report.window.start} {report.model} {rows} rows {len(report.points)} points\n"
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise RetryLater(f"cannot write {self._path}: {error.strerror}", after=5.0) from error
        self._last = report.sequence

    def close(self) -> None:
        """Nothing stays open between writes."""


@hookimpl
def register_metrics(register: Callable[[Metric[Any]], None], options: Mapping[str, Any]) -> None:
    below = options.get("below", 0.5)
    if not isinstance(below, float) or not 0 < below <= 1:
        raise ConfigurationError(f"[plugins.unsure] below: {below!r} does not lie in (0, 1]")
    register(Unsure())


@hookimpl
def register_sinks(register: Callable[[Sink], None], options: Mapping[str, Any]) -> None:
    table = options.get("sinks", {}).get("lines", {})
    register(Lines(Path(table.get("path", "windows.txt"))))
