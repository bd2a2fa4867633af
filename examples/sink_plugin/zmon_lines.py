"""A sink in one file: a line of text for each closed window.

Configuration::

    [sinks.lines]           # the sink is used when its table is there
    path = "windows.txt"
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from zmon import Report, RetryLater, Sink
from zmon.hooks import hookimpl
from zmon.options import flag, read_options, text


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
def register_sinks(register: Callable[[Sink], None], options: Mapping[str, Any]) -> None:
    table = options.get("sinks", {}).get("lines", {})
    read = read_options(table, {"path": text, "enabled": flag}, "[sinks.lines]")
    register(Lines(Path(read.get("path", "windows.txt"))))
