"""The health of a collector at one moment, as one immutable report for the admin socket, /metrics and the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

_NOTEWORTHY = {  # counters that an operator should know about once they are not zero
    "agents_over_limit": "more agents than limits.agents: the newer ones count for the rollup only",
    "outbox_dropped": "reports were dropped before every sink had them",
    "refused_dropped": "set-aside samples were discarded: limits.refused_rows or refused_age",
    "windows_closed_early": "windows were closed early because the journal was full: raise limits.journal_bytes",
    "contracts_damaged": "what held for an open window was damaged: the present settings replace it",
    "state_restored": "state.sqlite is older than the files next to it, as after a restore of it alone: rows that were "
    "acknowledged since it was copied (rows_since_restored_copy) are in reports written since, or lost",
    "reports_unwritten": "reports could not be written, and the rows of their windows count as lost: the log says why",
    "details_left_out": "reports were too large for the database: details of some metrics are left out of the history",
    "chunks_damaged": "damaged rows were found in the journal and count as lost",
}
LONG_PAUSE = 10.0  # seconds without accepting rows, after which an operator should look
_LOST = {  # what damaged rows of state.sqlite have cost, by table
    "streams": "positions of publishers, which go on after the last row that was acknowledged to them",
    "windows": "open windows, whose rows count as lost",
    "schemas": "columns of open windows; rows that need them count as lost",
    "tallies": "counts of late, lost, rejected and sampled out rows",
    "spans": "closed stretches of time; rows before the open windows count as late",
    "periods": "the lengths of windows before a change",
    "mains": "which classes a version has; those of its next rows",
    "tags": "tags of agents",
    "memory": "what metrics keep from window to window, learned references included",
    "cursors": "how far a sink has read; it gets the queued reports again",
    "alerts": "the state of alerts",
    "predictions": "predictions that waited for their labels",
    "label_policies": "the settings of windows that are restated: the present ones replace them",
    "labels_waiting": "labels that waited for their predictions",
}
_INTERNAL = {
    "plugins",
    "disk_full",
    "journal_limit",
    "damaged_files",
    "clock_problem",
    "failing",
}  # not in the plain data


def _gauge(text: str) -> Any:
    """Declare a number that /metrics shows as a gauge, with this text."""
    return field(default=0, metadata={"gauge": text})


class Pause(NamedTuple):
    """A reason for which no rows are accepted: its name, its age, seconds without progress, and what ends it."""

    by: str
    seconds: float
    stalled: float
    ends: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {"by": self.by, "seconds": round(self.seconds, 3), "ends": self.ends}


@dataclass(frozen=True, slots=True)
class HealthReport:
    """The state of a collector at one moment: endpoints, queues, sinks, counters, and what is wrong with it."""

    pid: int = 0
    data: str = ""  # endpoints as bound, and the page's address
    control: str = ""
    web: str = ""
    streams: int = _gauge("publishers known, including those that are away")
    connected: int = _gauge("publishers connected")
    models: tuple[str, ...] = ()
    open_windows: int = _gauge("windows that accept rows")
    inbox_bytes: int = _gauge("bytes received and not yet processed")
    backlog_bytes: int = _gauge("bytes of rows that wait for metrics")
    uncommitted_bytes: int = _gauge("bytes of rows that wait for the disk")
    journal_bytes: int = _gauge("bytes of state on disk")
    label_bytes: int = 0
    outbox: int = 0
    outbox_bytes: int = _gauge("bytes of reports that wait for a sink")
    behind: Mapping[str, int] = field(default_factory=dict)  # reports that wait, by sink
    aside: Mapping[str, int] = field(default_factory=dict)  # dead letters, by sink
    sinks: Mapping[str, str] = field(default_factory=dict)  # their states
    threads: Mapping[str, str] = field(default_factory=dict)  # "ok", or what is wrong
    paused: tuple[Pause, ...] = ()  # why no rows are accepted
    clock_ahead: float = _gauge("seconds that the collector's clock is ahead of the system's, which was set back")
    sample_rows_lowered_to: int = 0
    counters: Mapping[str, int] = field(default_factory=dict)
    admission: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # places of each limit, and who holds most
    plugins: tuple[dict[str, Any], ...] = ()  # rows of `zmon plugins`
    # what only the problems need
    disk_full: bool = False
    journal_limit: int = 0
    damaged_files: tuple[str, ...] = ()
    clock_problem: str = ""
    failing: tuple[str, ...] = ()  # what is wrong with limits, sinks and alerts, a sentence each

    @property
    def status(self) -> str:
        """``degraded`` while an operator should look at something, else ``ok``."""
        return "degraded" if self.problems else "ok"

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, as the admin socket and the HTTP API give it."""
        names = (key.name for key in fields(self) if key.name not in _INTERNAL)
        plain = {name: _plain(getattr(self, name)) for name in names}
        plain["paused"] = [pause.as_dict() for pause in self.paused]
        return {"status": self.status, "problems": self.problems, **plain}

    @property
    def problems(self) -> list[str]:
        """Problems that an operator should look at, a sentence each."""
        problems = []
        if self.disk_full:
            problems.append("the disk is full: nothing is acknowledged, publishers keep their rows")
        if self.journal_bytes - self.label_bytes - self.outbox_bytes > self.journal_limit:
            problems.append(
                "the journal is at limits.journal_bytes: rows are accepted once checkpoints have freed some of it; "
                "raise limits.journal_bytes"
            )
        problems += [
            f"no rows have been accepted for {pause.seconds:.0f} s ({pause.by}); this ends by {pause.ends}"
            for pause in self.paused
            if pause.seconds >= LONG_PAUSE
        ]
        problems += [f"a damaged file was set aside as {name}" for name in self.damaged_files]
        problems += [self.clock_problem] if self.clock_problem else []
        problems += self.failing
        for sink, count in self.aside.items():
            problems.append(f"{count} samples were refused by the target of sink {sink} and set aside: zmon outbox ls")
        for kind in ("metric", "plugin"):
            failing = [row for row in self.plugins if row["kind"] == kind and row["state"] != "ok"]
            problems += [f"{kind} {row['name']} is {row['state']}{_places(row)}: {row['error']}" for row in failing]
        problems += _damage(self.counters)
        counted = {key.partition("{")[0] for key, count in self.counters.items() if count}
        return problems + [text for counter, text in _NOTEWORTHY.items() if counter in counted]


GAUGES: Mapping[str, str] = {key.name: key.metadata["gauge"] for key in fields(HealthReport) if key.metadata}


def _damage(counters: Mapping[str, int]) -> list[str]:
    """Return what damaged rows of state.sqlite have cost, a sentence for each table."""
    prefix = "state_rows_damaged{"
    damaged = {key[len(prefix) : -1]: count for key, count in counters.items() if key.startswith(prefix) and count}
    return [
        f"damaged rows were found in state.sqlite and dropped, {count} of {table}: {_LOST.get(table, 'its rows')}"
        for table, count in damaged.items()
    ]


def _places(row: Mapping[str, Any]) -> str:
    """Return for which models a metric is not computed."""
    models = row.get("models") or ()
    further = f" and {len(models) - 3} more" if len(models) > 3 else ""
    return f" for model {', '.join(models[:3])}{further}" if models else ""


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value
