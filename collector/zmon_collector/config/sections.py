"""The sections of zmon.toml: the reader, default and meaning of each key; and `Config`, all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zmon._transport.settings import DEFAULT_COLLECTOR
from zmon.contract import PRESETS
from zmon.options import duration, flag, one_of, positive, positive_duration, size, text, texts, whole
from zmon_collector.config.alerting import AlertRule, NotifySection
from zmon_collector.config.values import address, clients, endpoint, expectations, file, globs, key, period, tables

SEGMENT_METRICS = ("rows", "predicted_classes", "confidence", "performance", "regression")

one_preset = one_of(*PRESETS)
switch = one_of("on", "off")


@dataclass(frozen=True, slots=True)
class CollectorSection:
    """[collector]"""

    bind: str = key(endpoint, DEFAULT_COLLECTOR, "data endpoint; the control endpoint is the next port")
    control: str | None = key(endpoint, None, "control endpoint, if not the next port")
    models: tuple[str, ...] = key(texts, ("*",), "globs of the models that this collector accepts")
    window: int = key(period, 60, "length of a window")
    grace: float | None = key(
        duration, None, "wait for late rows after a window's end; default: a tenth of the window, at most 10s"
    )
    idle: float = key(duration, 10.0, "windows do not wait for an agent that has sent nothing for this long")
    max_wait: float = key(duration, 30.0, "longest wait for agents that lag behind the first one")
    max_skew: float = key(
        duration, 300.0, "timestamps further in the future than this are replaced by the time of receipt"
    )
    data_dir: Path = key(file, Path("zmon-data"), "folder for all files that are written")
    sample_rows: int = key(positive, 5000, "rows of a window kept for quantiles")
    metric_timeout: float = key(
        positive_duration,
        30.0,
        "a metric that takes longer for one call is disabled for that model until the next start",
    )
    workers: int = key(positive, 2, "threads for the built-in metrics")
    journal: str = key(switch, "on", "on: rows are on disk before they are acknowledged; off: rows are in memory only")
    flush_on_exit: bool = key(
        flag, False, "close and write open windows when the collector stops; otherwise they continue after a restart"
    )
    label_horizon: float = key(duration, 7 * 86400.0, "how long rows with an id wait for their label")
    label_wait: float = key(
        duration, 3600.0, "how long a label waits for its prediction; after that it counts as unknown"
    )
    plugins_dir: Path | None = key(
        file, None, "folder whose *.py files are loaded as plugins (docs/plugins.md); a change needs a restart"
    )
    insecure: bool = key(
        flag, False, "allow addresses beyond loopback without CURVE, where anybody may send and listen"
    )


@dataclass(frozen=True, slots=True)
class MetricsSection:
    """[metrics]"""

    preset: str = key(one_preset, "default", "which series are emitted: minimal, default or full")
    add: tuple[str, ...] = key(globs, (), "globs of series, `what` or `what:stat`, that are emitted with every preset")
    drop: tuple[str, ...] = key(globs, (), "globs of series, `what` or `what:stat`, that are never emitted")
    stats: tuple[str, ...] = key(
        globs,
        (),
        "globs of statistics: series that have statistics are emitted with these; empty: with those of the preset",
    )
    classes: tuple[str, ...] = key(globs, (), "globs of classes whose series are emitted; empty: all")
    features: tuple[str, ...] = key(globs, (), "globs of features whose series are emitted; empty: all")
    segment_metrics: tuple[str, ...] = key(
        globs, SEGMENT_METRICS, "globs of metrics (docs/metrics.md) that are also computed for each segment value"
    )
    segment_preset: str = key(one_preset, "minimal", "the preset of their series for each segment value")
    max_segments: int = key(
        positive, 20, "the most frequent values of a segment have series of their own; the rest is `__other__`"
    )
    reference_windows: int = key(
        whole, 0, "drift is measured against this many first windows of each model version; 0: no reference is learned"
    )
    expect: Mapping[str, int] = key(
        expectations,
        {},
        "for `zmon validate`: numbers of agents (10), features (20; of these categorical: 0, each with 10 categories), "
        "classes (2; 0 for a regression) and segments (0: values of all segment columns together)",
    )


@dataclass(frozen=True, slots=True)
class ModelSection:
    """[models.NAME]: settings of one model."""

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
    reference: Path | None = key(file, None, "reference profile (.zmon), written by `zmon profile`")
    reference_windows: int | None = key(whole, None, "as in [metrics]; ignored with a reference")
    metrics: Mapping[str, Mapping[str, Any]] = key(tables, {}, "[models.NAME.metrics.METRIC]: options of a metric")


@dataclass(frozen=True, slots=True)
class WebSection:
    """[web]"""

    enabled: bool = key(flag, True, "serve the live page and its API")
    bind: str | None = key(
        address, None, "HOST:PORT of the page; default: 127.0.0.1:8787, or any free port if that is in use"
    )
    token_file: Path | None = key(
        file, None, "file with the token that viewers need; a token is required beyond loopback"
    )
    token_env: str | None = key(text, None, "environment variable with the token, instead of a file")
    hosts: tuple[str, ...] | None = key(texts, None, "additional host names under which the page is reached")
    viewers: int = key(positive, 200, "most live viewers at a time")
    keep: float = key(duration, 7 * 86400.0, "how long the history keeps windows")
    history_bytes: int = key(size, 512 * 2**20, "bytes of the history; beyond it the oldest windows are dropped")


@dataclass(frozen=True, slots=True)
class HealthSection:
    """[health]"""

    bind: str | None = key(
        address, None, "HOST:PORT of a separate server for /healthz, /readyz and /metrics, without a token"
    )
    series: int = key(whole, 2000, "most series of models in /metrics; 0: the collector's own health only")


@dataclass(frozen=True, slots=True)
class LimitsSection:
    """[limits]"""

    open_windows: int = key(positive, 64, "open windows of a model; beyond it the oldest one is closed")
    sample_bytes: int = key(size, 256 * 2**20, "bytes of all row samples together")
    inflight_bytes: int = key(
        size, 64 * 2**20, "bytes of all publishers together that may be sent and not yet acknowledged"
    )
    message_bytes: int = key(
        size, 16 * 2**20, "bytes of one message; a larger one is refused, and a larger frame disconnects its sender"
    )
    journal_bytes: int = key(
        size, 8 * 2**30, "bytes of open windows on disk; beyond it nothing is accepted until some of them close"
    )
    outbox_bytes: int = key(size, 256 * 2**20, "bytes of reports queued for sinks; beyond it the oldest are dropped")
    outbox_age: float = key(duration, 7 * 86400.0, "a report that is queued for longer is dropped")
    refused_rows: int = key(
        positive, 100_000, "samples set aside because a target refused them; beyond it the oldest are dropped"
    )
    refused_age: float = key(duration, 30 * 86400.0, "a sample that was set aside longer ago is dropped")
    label_bytes: int = key(
        size, 2**30, "bytes of rows that wait for labels, and of labels that wait; beyond it the oldest are dropped"
    )
    schema_bytes: int = key(
        size, 64 * 2**20, "bytes of schemas in memory; others are requested from their publishers again"
    )
    models: int = key(positive, 1000, "models, each version counted; shared between clients or addresses")
    agents: int = key(positive, 100, "agents of a model, shared likewise; further ones count for the rollup only")
    streams: int = key(
        positive, 10_000, "publishers at a time, including those that are disconnected for a while; shared likewise"
    )
    features: int = key(positive, 65_536, "columns of the inputs")
    classes: int = key(positive, 65_536, "classes of a model")


@dataclass(frozen=True, slots=True)
class SecuritySection:
    """[security]: CURVE is on once there is a secret key; then only the listed clients can publish."""

    secret_key_file: Path | None = key(file, None, "file with the collector's secret key, written by `zmon keygen`")
    clients_file: Path | None = key(file, None, "TOML file with further tables [clients.NAME], read again by a reload")
    clients: Mapping[str, Mapping[str, Any]] = key(
        clients,
        {},
        "[security.clients.NAME]: key (public), models and agents (globs) that this client may publish as, labels "
        "(globs of models whose rows of any agent it may label; default: it labels rows of its own agents)",
    )


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that can be configured."""

    collector: CollectorSection = CollectorSection()
    metrics: MetricsSection = MetricsSection()
    limits: LimitsSection = LimitsSection()
    security: SecuritySection = SecuritySection()
    web: WebSection = WebSection()
    health: HealthSection = HealthSection()
    models: Mapping[str, ModelSection] = field(default_factory=dict)
    plugins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sinks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    alerts: tuple[AlertRule, ...] = ()
    notify: Mapping[str, NotifySection] = field(default_factory=dict)
