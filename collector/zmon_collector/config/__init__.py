"""The collector's configuration: zmon.toml and the command line's options, checked key by key."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from zmon.errors import ConfigurationError
from zmon.options import nearest, read_options
from zmon_collector.config.alerting import AlertRule, NotifySection, checked
from zmon_collector.config.sections import (
    CollectorSection,
    HealthSection,
    LimitsSection,
    MetricsSection,
    ModelSection,
    SecuritySection,
    WebSection,
)
from zmon_collector.config.toml import dump
from zmon_collector.config.values import address as host_and_port
from zmon_collector.config.values import endpoint, period, tables

__all__ = [
    "AlertRule",
    "CollectorSection",
    "Config",
    "HealthSection",
    "LimitsSection",
    "MetricsSection",
    "ModelSection",
    "NotifySection",
    "SecuritySection",
    "WebSection",
    "dump",
    "endpoint",
    "exposed",
    "host_and_port",
    "load",
    "parse",
    "period",
]

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


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
    _check_bind(config)
    return config


def parse(data: Mapping[str, Any]) -> Config:
    """The configuration of a parsed file."""
    known = {each.name for each in fields(Config) if each.init}
    for name in data:
        if name not in known:
            raise ConfigurationError(f"unknown section [{name}]; {nearest(name, known)}")
    try:
        models = tables(data.get("models", {}))
        plugins, sinks = tables(data.get("plugins", {})), tables(data.get("sinks", {}))
        targets = tables(data.get("notify", {}))
    except ValueError as error:
        raise ConfigurationError(f"[models], [plugins], [sinks] and [notify] hold tables: {error}") from None
    given = data.get("alerts", [])
    if not isinstance(given, list):
        raise ConfigurationError("[alerts] is one table; write [[alerts]], once for each rule")
    notify = {name: _section(NotifySection, each, f"notify.{name}") for name, each in targets.items()}
    return Config(
        collector=_section(CollectorSection, data.get("collector", {}), "collector"),
        metrics=_section(MetricsSection, data.get("metrics", {}), "metrics"),
        limits=_section(LimitsSection, data.get("limits", {}), "limits"),
        security=_section(SecuritySection, data.get("security", {}), "security"),
        web=_section(WebSection, data.get("web", {}), "web"),
        health=_section(HealthSection, data.get("health", {}), "health"),
        models={name: _section(ModelSection, each, f"models.{name}") for name, each in models.items()},
        plugins=plugins,
        sinks=sinks,
        alerts=checked([_section(AlertRule, each, "[alerts]", {"for": "windows"}) for each in given], notify),
        notify=notify,
    )


def _section(kind: type[Any], data: object, where: str, spelled: Mapping[str, str] | None = None) -> Any:
    """A section's values; `spelled` are keys that Python cannot spell, and the fields they stand for."""
    spelling = {field: key for key, field in (spelled or {}).items()}
    known: dict[str, Field[Any]] = {spelling.get(each.name, each.name): each for each in fields(kind)}
    values = read_options(data, {name: each.metadata["parse"] for name, each in known.items()}, f"[{where}]")
    return kind(**{known[name].name: value for name, value in values.items()})


def exposed(config: Config) -> dict[str, str]:
    """The endpoints that a network reaches without authentication, by key."""
    if config.security.secret_key_file is not None:
        return {}
    addresses = {"bind": config.collector.bind, "control": config.collector.control or config.collector.bind}
    return {
        name: address
        for name, address in addresses.items()
        if not address.startswith("ipc://") and urlsplit(address).hostname not in _LOOPBACK
    }


def _check_bind(config: Config) -> None:
    security = config.security
    if security.secret_key_file is None and (security.clients or security.clients_file):
        raise ConfigurationError(
            "[security] names clients but no secret_key_file, so nobody would be refused; "
            "make a key with `zmon keygen --collector NAME`"
        )
    for name, address in exposed(config).items():
        if not config.collector.insecure:
            raise ConfigurationError(
                f"[collector] {name} = {address!r} is open to the network, where anybody could send and listen; bind "
                "to 127.0.0.1, give [security] a secret_key_file, or set insecure = true if the network is trusted"
            )
