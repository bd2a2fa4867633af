"""The collector's configuration: zmon.toml and the command line's options, checked key by key."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from zmon.errors import ConfigurationError
from zmon_collector.config.sections import (
    CollectorSection,
    HealthSection,
    LimitsSection,
    MetricsSection,
    ModelSection,
    WebSection,
)
from zmon_collector.config.toml import dump
from zmon_collector.config.values import address, duration, endpoint, period, tables
from zmon_collector.window import Rules

__all__ = [
    "CollectorSection",
    "Config",
    "HealthSection",
    "LimitsSection",
    "MetricsSection",
    "ModelSection",
    "WebSection",
    "address",
    "dump",
    "duration",
    "endpoint",
    "load",
    "parse",
    "period",
]

LATER = {"notify", "alerts", "security"}  # sections of the format that this release does not have
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that can be configured."""

    collector: CollectorSection = CollectorSection()
    metrics: MetricsSection = MetricsSection()
    limits: LimitsSection = LimitsSection()
    web: WebSection = WebSection()
    health: HealthSection = HealthSection()
    models: Mapping[str, ModelSection] = field(default_factory=dict)
    plugins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sinks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def rules(self, model: str) -> Rules:
        """How this model's windows open and close."""
        own, common = self.models.get(model, ModelSection()), self.collector
        length = own.window or common.window
        grace = common.grace if own.grace is None else own.grace
        return Rules(
            period=length,
            grace=min(length / 10, 10.0) if grace is None else grace,
            idle=common.idle if own.idle is None else own.idle,
            max_wait=common.max_wait if own.max_wait is None else own.max_wait,
            open_windows=self.limits.open_windows,
        )

    def sample_rows(self, model: str) -> int:
        """Rows of the sample of this model's windows."""
        return self.models.get(model, ModelSection()).sample_rows or self.collector.sample_rows

    def preset(self, model: str) -> str:
        """What is emitted for this model."""
        return self.models.get(model, ModelSection()).preset or self.metrics.preset

    def options(self, model: str, metric: str, plugin: str) -> Mapping[str, Any]:
        """A metric's options: its plugin's table, and the model's own over it."""
        own = self.models.get(model, ModelSection()).metrics.get(metric, {})
        return {**self.plugins.get(plugin, {}), **own}


def load(path: Path | None, *, web: str | None = None, no_web: bool = False, **options: Any) -> Config:
    """The configuration of a file, if any, with the command line's [collector] options over it.

    `web` is where the page is served, over the file's; `no_web` serves none.

    Raises
    ------
    ConfigurationError
        What is wrong, where, and how to mend it.
    """
    data: dict[str, Any] = {}
    if path is not None:
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path}: not valid TOML: {error}") from None
    try:
        config = parse(data)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    given = {name: value for name, value in options.items() if value is not None}
    config = replace(config, collector=replace(config.collector, **given))
    if web is not None:
        config = replace(config, web=replace(config.web, bind=web, enabled=True))
    if no_web:
        config = replace(config, web=replace(config.web, enabled=False))
    _check_bind(config.collector)
    return config


def parse(data: Mapping[str, Any]) -> Config:
    """The configuration of a parsed file."""
    known = {each.name for each in fields(Config)}
    for name in data:
        if name in LATER:
            raise ConfigurationError(f"[{name}] is not part of this release; remove it")
        if name not in known:
            raise ConfigurationError(f"unknown section [{name}]{_nearest(name, known)}")
    try:
        models = tables(data.get("models", {}))
        plugins, sinks = tables(data.get("plugins", {})), tables(data.get("sinks", {}))
    except ValueError as error:
        raise ConfigurationError(f"[models], [plugins] and [sinks] hold tables: {error}") from None
    return Config(
        collector=_section(CollectorSection, data.get("collector", {}), "collector"),
        metrics=_section(MetricsSection, data.get("metrics", {}), "metrics"),
        limits=_section(LimitsSection, data.get("limits", {}), "limits"),
        web=_section(WebSection, data.get("web", {}), "web"),
        health=_section(HealthSection, data.get("health", {}), "health"),
        models={name: _section(ModelSection, each, f"models.{name}") for name, each in models.items()},
        plugins=plugins,
        sinks=sinks,
    )


def _section(kind: type[Any], data: object, where: str) -> Any:
    if not isinstance(data, dict):
        raise ConfigurationError(f"[{where}] is not a table")
    known: dict[str, Field[Any]] = {each.name: each for each in fields(kind)}
    values = {}
    for name, value in data.items():
        if name not in known:
            raise ConfigurationError(f"[{where}] has an unknown key {name!r}{_nearest(name, known)}")
        try:
            values[name] = known[name].metadata["parse"](value)
        except ValueError as error:
            raise ConfigurationError(f"[{where}] {name}: {error}") from None
    return kind(**values)


def _nearest(name: str, known: Mapping[str, Any] | set[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(sorted(known))}"


def _check_bind(section: CollectorSection) -> None:
    for name in ("bind", "control"):
        address = getattr(section, name)
        if address is None or address.startswith("ipc://") or section.insecure:
            continue
        host = urlsplit(address).hostname
        if host not in _LOOPBACK:
            raise ConfigurationError(
                f"[collector] {name} = {address!r} is open to the network, where anybody could send and listen; "
                "bind to 127.0.0.1, or set insecure = true if the network is trusted"
            )
