"""The sections of zmon.toml: for each key how its value is read, its default, and what it means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zmon._transport.settings import DEFAULT_COLLECTOR
from zmon.options import duration, flag, positive, size, texts, whole
from zmon.options import text as one_text
from zmon_collector.config.values import address, clients, endpoint, expectations, file, globs, journal, period, tables
from zmon_collector.config.values import preset as one_preset

SEGMENT_METRICS = ("rows", "predicted_classes", "confidence", "performance", "regression")

Parse = Callable[[object], Any]


def key(parse: Parse, default: Any, doc: str) -> Any:
    """A configuration key: how its value is read, its default, and what it means."""
    metadata = {"parse": parse, "doc": doc}
    return (
        field(default_factory=dict, metadata=metadata) if default == {} else field(default=default, metadata=metadata)
    )


@dataclass(frozen=True, slots=True)
class CollectorSection:
    """[collector]"""

    bind: str = key(endpoint, DEFAULT_COLLECTOR, "data endpoint; the control endpoint is the next port")
    control: str | None = key(endpoint, None, "control endpoint, if not the next port")
    models: tuple[str, ...] = key(texts, ("*",), "globs of the models this collector takes")
    window: int = key(period, 60, "length of a window")
    grace: float | None = key(duration, None, "wait for late rows after a window's end; default a tenth, at most 10s")
    idle: float = key(duration, 10.0, "an agent that sends nothing for so long is not waited for")
    max_wait: float = key(duration, 30.0, "longest wait for agents that lag behind the first")
    max_skew: float = key(duration, 300.0, "timestamps further ahead than this are taken as the time of receipt")
    data_dir: Path = key(file, Path("zmon-data"), "folder for everything that is written")
    sample_rows: int = key(positive, 5000, "rows of a window kept for quantiles")
    metric_timeout: float = key(duration, 30.0, "a metric that takes longer for one step is left behind")
    workers: int = key(positive, 2, "threads for the built-in metrics")
    journal: str = key(journal, "on", "on: rows are on disk before they are acknowledged; off: in memory only")
    flush_on_exit: bool = key(flag, False, "close and write open windows at the end; else they go on after a restart")
    label_horizon: float = key(duration, 7 * 86400.0, "how long rows with an id wait for their label")
    label_wait: float = key(duration, 3600.0, "how long a label waits for its prediction; then it is unknown")
    plugins_dir: Path | None = key(
        file, None, "folder whose *.py files are loaded as plugins (docs/plugins.md); a change needs a restart"
    )
    insecure: bool = key(flag, False, "allow to bind beyond loopback, where anybody may send and listen")


@dataclass(frozen=True, slots=True)
class MetricsSection:
    """[metrics]"""

    preset: str = key(one_preset, "default", "what is emitted: minimal, default or full")
    add: tuple[str, ...] = key(globs, (), "globs of series, `what` or `what:stat`, emitted whatever the preset")
    drop: tuple[str, ...] = key(globs, (), "globs of series, `what` or `what:stat`, never emitted")
    stats: tuple[str, ...] = key(globs, (), "globs: of series with statistics exactly these; empty: the preset's")
    classes: tuple[str, ...] = key(globs, (), "globs: per class, series of these only; empty: of all")
    features: tuple[str, ...] = key(globs, (), "globs: per feature, series of these only; empty: of all")
    segment_metrics: tuple[str, ...] = key(
        globs, SEGMENT_METRICS, "globs of metrics (docs/metrics.md) that are also given per segment value"
    )
    segment_preset: str = key(one_preset, "minimal", "what is emitted of them per segment value")
    max_segments: int = key(positive, 20, "most frequent values of a segment that are named; the rest is `__other__`")
    reference_windows: int = key(
        whole, 0, "drift is measured against the first so many windows of each model version; 0: of none"
    )
    expect: Mapping[str, int] = key(
        expectations,
        {},
        "for `zmon validate`: numbers of agents (10), features (20; of these categorical: 0, each with 10 categories), "
        "classes (2; 0 for a regression) and segments (0: values of all segment columns together)",
    )


@dataclass(frozen=True, slots=True)
class ModelSection:
    """[models.NAME]: what differs for one model."""

    window: int | None = key(period, None, "as in [collector]")
    grace: float | None = key(duration, None, "as in [collector]")
    idle: float | None = key(duration, None, "as in [collector]")
    max_wait: float | None = key(duration, None, "as in [collector]")
    sample_rows: int | None = key(positive, None, "as in [collector]")
    preset: str | None = key(one_preset, None, "as in [metrics]")
    add: tuple[str, ...] | None = key(globs, None, "as in [metrics]")
    drop: tuple[str, ...] | None = key(globs, None, "as in [metrics]")
    stats: tuple[str, ...] | None = key(globs, None, "as in [metrics]")
    classes: tuple[str, ...] | None = key(globs, None, "as in [metrics]")
    features: tuple[str, ...] | None = key(globs, None, "as in [metrics]")
    segment_metrics: tuple[str, ...] | None = key(globs, None, "as in [metrics]")
    segment_preset: str | None = key(one_preset, None, "as in [metrics]")
    max_segments: int | None = key(positive, None, "as in [metrics]")
    expect: Mapping[str, int] = key(expectations, {}, "as in [metrics], key by key")
    reference: Path | None = key(file, None, "the reference profile (.zmon) that `zmon profile` writes")
    reference_windows: int | None = key(whole, None, "as in [metrics]; not with a reference")
    metrics: Mapping[str, Mapping[str, Any]] = key(tables, {}, "[models.NAME.metrics.METRIC]: options of a metric")


@dataclass(frozen=True, slots=True)
class WebSection:
    """[web]"""

    enabled: bool = key(flag, True, "serve the live page and its API")
    bind: str | None = key(
        address, None, "HOST:PORT of the page; default 127.0.0.1:8787, or any free port if that is taken"
    )
    token_file: Path | None = key(file, None, "file with the token that viewers need; required beyond loopback")
    token_env: str | None = key(one_text, None, "environment variable with the token, instead of a file")
    hosts: tuple[str, ...] | None = key(texts, None, "further host names under which the page is reached")
    viewers: int = key(positive, 200, "live viewers at a time")
    keep: float = key(duration, 7 * 86400.0, "how long the history keeps windows")
    history_bytes: int = key(size, 512 * 2**20, "size of the history; the oldest windows go first")


@dataclass(frozen=True, slots=True)
class HealthSection:
    """[health]"""

    bind: str | None = key(address, None, "HOST:PORT for /healthz, /readyz and /metrics on their own, without a token")
    series: int = key(whole, 2000, "most series of models in /metrics; 0 shows the collector's own health only")


@dataclass(frozen=True, slots=True)
class LimitsSection:
    """[limits]"""

    open_windows: int = key(positive, 64, "open windows a model; beyond it the oldest closes")
    sample_bytes: int = key(size, 256 * 2**20, "all samples together")
    inflight_bytes: int = key(size, 64 * 2**20, "unacknowledged bytes of all publishers together")
    message_bytes: int = key(size, 16 * 2**20, "one frame of a message; a larger one disconnects its sender")
    journal_bytes: int = key(
        size, 8 * 2**30, "rows of open windows on disk; beyond it nothing is taken until some close"
    )
    outbox_bytes: int = key(size, 256 * 2**20, "reports that wait for a sink; beyond it the oldest go")
    outbox_age: float = key(duration, 7 * 86400.0, "a report that waits for longer goes")
    refused_rows: int = key(
        positive, 100_000, "samples set aside because a target refused them; beyond it the oldest go"
    )
    refused_age: float = key(duration, 30 * 86400.0, "a sample set aside for longer goes")
    label_bytes: int = key(
        size, 2**30, "rows with an id that wait for labels, and labels that wait; beyond it the oldest go"
    )
    schema_bytes: int = key(size, 64 * 2**20, "schemas kept in memory; further ones are asked for again")
    models: int = key(positive, 1000, "models times versions")
    agents: int = key(positive, 100, "agents a model; those beyond count for the rollup only")
    streams: int = key(positive, 10_000, "publishers known at a time, those that are away for a while included")
    features: int = key(positive, 65_536, "columns of the inputs")
    classes: int = key(positive, 65_536, "classes of a model")


@dataclass(frozen=True, slots=True)
class SecuritySection:
    """[security]: CURVE is on once there is a secret key; then nobody publishes who is not among the clients."""

    secret_key_file: Path | None = key(file, None, "the collector's secret key, as `zmon keygen` writes it")
    clients_file: Path | None = key(file, None, "a TOML file with further tables [clients.NAME], read again on reload")
    clients: Mapping[str, Mapping[str, Any]] = key(
        clients,
        {},
        "[security.clients.NAME]: key (public), models and agents (globs) that this client may publish as",
    )
