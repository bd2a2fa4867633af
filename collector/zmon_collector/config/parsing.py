"""zmon.toml read, checked key by key, and put together with the command line's options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from zmon.errors import ConfigurationError
from zmon.options import nearest, read_options
from zmon_collector.config.alerting import AlertRule, NotifySection, checked
from zmon_collector.config.sections import Config, ModelSection
from zmon_collector.config.toml_file import read_toml
from zmon_collector.config.values import tables

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


def load(path: Path | None, *, web: str | None = None, no_web: bool = False, **options: Any) -> Config:
    """Read a configuration file, if any, and put the command line's [collector] options over it.

    Parameters
    ----------
    path : Path or None
    web : str, optional
        Where the page is served, over the file's.
    no_web : bool
        Serve no page.
    **options
        Keys of [collector]; None leaves the file's value.

    Raises
    ------
    ConfigurationError
        It says what is wrong, where, and how to fix it.
    """
    data: dict[str, Any] = {}
    if path is not None:
        try:
            data = read_toml(path)
        except OSError as error:
            raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise ConfigurationError(f"{path}: {error}") from None
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
    _check_limits(config, data.get("limits", {}))
    return config


def parse(data: Mapping[str, Any]) -> Config:
    """Return the configuration of a parsed file."""
    sections = {section.name for section in fields(Config)}
    for name in data:
        if name not in sections:
            raise ConfigurationError(f"unknown section [{name}]; {nearest(name, sections)}")
    try:
        models = tables(data.get("models", {}))
        plugins, sinks = tables(data.get("plugins", {})), tables(data.get("sinks", {}))
        targets = tables(data.get("notify", {}))
    except ValueError as error:
        raise ConfigurationError(f"[models], [plugins], [sinks] and [notify] hold tables: {error}") from None
    given = data.get("alerts", [])
    if not isinstance(given, list):
        raise ConfigurationError("[alerts] is one table; write [[alerts]], once for each rule")
    notify = {name: _section(NotifySection, target, f"notify.{name}") for name, target in targets.items()}
    single = [section for section in fields(Config) if is_dataclass(section.default)]
    return Config(
        **{
            section.name: _section(type(section.default), data.get(section.name, {}), section.name)
            for section in single
        },
        models={name: _section(ModelSection, model, f"models.{name}") for name, model in models.items()},
        plugins=plugins,
        sinks=sinks,
        alerts=checked([_section(AlertRule, rule, "[alerts]", {"for": "windows"}) for rule in given], notify),
        notify=notify,
    )


def _section(kind: type[Any], data: object, where: str, spelled: Mapping[str, str] | None = None) -> Any:
    """Return a section; `spelled` maps keys that are reserved words of Python to the fields they stand for."""
    spelling = {name: key for key, name in (spelled or {}).items()}
    keys: dict[str, Field[Any]] = {spelling.get(field.name, field.name): field for field in fields(kind)}
    values = read_options(data, {name: field.metadata["parse"] for name, field in keys.items()}, f"[{where}]")
    return kind(**{keys[name].name: value for name, value in values.items()})


def exposed(config: Config) -> dict[str, str]:
    """Return the endpoints that a network reaches without authentication, by key."""
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


def _check_limits(config: Config, given: Mapping[str, object]) -> None:
    """Refuse limits that contradict each other; defaults give way."""
    limits = config.limits
    for name in ("inflight_bytes", "message_bytes"):
        value = getattr(limits, name)
        if name in given and value > limits.journal_bytes:
            raise ConfigurationError(
                f"[limits] {name} = {value} is more than journal_bytes = {limits.journal_bytes}: what is sent ahead of "
                f"acknowledgements would fill the journal; lower {name}, or raise journal_bytes"
            )
