"""Print each report's rollup to standard output, for first trials.

Configured by ``[sinks.console]``: ``agents = true`` prints each agent's points too; ``what`` is a list of globs over
the series' names, default all.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any, TextIO

from zmon.contract import Report, Sink
from zmon.hooks import hookimpl
from zmon.names import printable
from zmon.options import flag, read_options, texts


class Console:
    """Prints one line per point: time, what, value, names.

    Parameters
    ----------
    what : sequence of str
        Globs over `what`.
    agents : bool
        Print the agents' points as well as the rollup's.
    stream : file, optional
        By default standard output.
    """

    name = "console"

    def __init__(self, what: Sequence[str] = ("*",), agents: bool = False, stream: TextIO | None = None) -> None:
        self._what = tuple(what)
        self._agents = agents
        self._stream = stream

    def open(self) -> None:
        """Do nothing: standard output is open."""

    def write(self, report: Report) -> None:
        stream = self._stream or sys.stdout
        start = datetime.fromtimestamp(report.window.start, UTC)
        for point in report.points:
            value = point.value
            if (point.agent_id is None or self._agents) and any(fnmatchcase(value.what, glob) for glob in self._what):
                names = report.properties(point)
                del names["what"]
                series = " ".join(f"{key}={name}" for key, name in names.items())
                line = f"{start:%Y-%m-%dT%H:%M:%SZ} {value.what:<28} {value.value:<12.6g} {series}"
                stream.write(f"{printable(line)}\n")
        stream.flush()

    def close(self) -> None:
        """Do nothing: standard output belongs to the process."""


@hookimpl
def register_sinks(register: Callable[[Sink], None], options: Mapping[str, Any]) -> None:
    table = options.get("sinks", {}).get(Console.name, {})
    read = read_options(table, {"what": texts, "agents": flag, "enabled": flag}, "[sinks.console]")
    read.pop("enabled", None)  # the collector's to act on
    register(Console(**read))
