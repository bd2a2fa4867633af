"""Which changes of the configuration a running collector applies, and which wait for a restart. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace

from zmon_collector.config.configuration import Config

AT_ONCE = {  # keys that take effect without a restart; the others keep their old value until then
    "collector": {"window", "grace", "idle", "max_wait", "max_skew", "sample_rows", "label_horizon", "label_wait"},
    "metrics": None,
    "models": None,
    "security": {"clients", "clients_file"},
    "alerts": None,
    "notify": None,
    "limits": {
        "open_windows",
        "agents",
        "features",
        "classes",
        "models",
        "streams",
        "inflight_bytes",
        "schema_bytes",
        "label_bytes",
    },
}


def merged(old: Config, new: Config) -> tuple[Config, list[str]]:
    """Return the configuration to continue with, and the changed keys that wait for a restart."""
    waiting: list[str] = []
    sections = {}
    for section in fields(Config):
        before, after = getattr(old, section.name), getattr(new, section.name)
        if before == after:
            continue
        if section.name not in AT_ONCE:
            waiting.append(f"[{section.name}]")
            continue
        allowed = AT_ONCE[section.name]
        if allowed is None:
            sections[section.name] = after
            continue
        changed = set(_changed(before, after))
        waiting += [f"[{section.name}] {name}" for name in sorted(changed - allowed)]
        sections[section.name] = replace(before, **{name: getattr(after, name) for name in changed & allowed})
    return replace(old, **sections), waiting


def _changed(before: object, after: object) -> Iterator[str]:
    for key in fields(before):  # type: ignore[arg-type]
        if getattr(before, key.name) != getattr(after, key.name):
            yield key.name
