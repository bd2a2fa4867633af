"""A changed configuration, taken over while the collector runs: what can be, and what needs a restart. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace

from zmon_collector.config import Config

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
    """The configuration to go on with, and the changed keys that wait for a restart."""
    waiting: list[str] = []
    sections = {}
    for each in fields(Config):
        before, after = getattr(old, each.name), getattr(new, each.name)
        if before == after:
            continue
        if each.name not in AT_ONCE:
            waiting.append(f"[{each.name}]")
            continue
        allowed = AT_ONCE[each.name]
        if allowed is None:
            sections[each.name] = after
            continue
        changed = set(_changed(before, after))
        waiting += [f"[{each.name}] {name}" for name in sorted(changed - allowed)]
        sections[each.name] = replace(before, **{name: getattr(after, name) for name in changed & allowed})
    return replace(old, **sections), waiting


def _changed(before: object, after: object) -> Iterator[str]:
    for each in fields(before):  # type: ignore[arg-type]
        if getattr(before, each.name) != getattr(after, each.name):
            yield each.name
