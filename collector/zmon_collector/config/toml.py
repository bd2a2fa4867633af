"""A configuration written back as TOML, for ``--print-config``. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from zmon.options import duration, positive_duration
from zmon_collector.config.sections import Config
from zmon_collector.config.values import clients, period, tables


def dump(config: Config) -> str:
    """Return the configuration in force as TOML."""
    lines: list[str] = []
    for name in ("collector", "metrics", "limits", "security", "web", "health"):
        lines += [f"[{name}]", *_lines(getattr(config, name)), ""]
    for name, client in config.security.clients.items():
        lines += [f"[security.clients.{_quoted(name)}]", *_table(client), ""]
    for model, section in config.models.items():
        lines += [f"[models.{_quoted(model)}]", *_lines(replace(section, metrics={})), ""]
        for metric, options in section.metrics.items():
            lines += [f"[models.{_quoted(model)}.metrics.{_quoted(metric)}]", *_table(options), ""]
    for kind in ("plugins", "sinks"):
        for name, options in getattr(config, kind).items():
            lines += [f"[{kind}.{_quoted(name)}]", *_table(options), ""]
    for rule in config.alerts:
        lines += ["[[alerts]]", *(re.sub("^windows = ", "for = ", line) for line in _lines(rule)), ""]
    for name, target in config.notify.items():
        lines += [f"[notify.{_quoted(name)}]", *_lines(target), ""]
    return "\n".join(lines)


def _lines(section: Any) -> list[str]:
    lines = []
    for field in fields(section):
        value, read = getattr(section, field.name), field.metadata["parse"]
        if value is None or value == {} or read in (clients, tables):
            continue
        lines.append(
            f"{field.name} = {toml(f'{value:.12g}s' if read in (duration, positive_duration, period) else value)}"
        )
    return lines


def _table(options: Mapping[str, Any]) -> list[str]:
    return [f"{_quoted(name)} = {toml(value)}" for name, value in options.items()]


def toml(value: Any) -> str:
    """Return a value as TOML spells it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, Mapping):
        return f"{{ {', '.join(_table(value))} }}"
    return _quoted(str(value), always=True)


def _quoted(value: str, *, always: bool = False) -> str:
    if not always and re.fullmatch(r"[A-Za-z0-9_-]+", value):
        return value
    escaped = "".join(
        f"\\{char}" if char in '"\\' else char if char.isprintable() else f"\\u{ord(char):04x}" for char in value
    )
    return f'"{escaped}"'
