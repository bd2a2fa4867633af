"""Changes of the configuration: those that a running collector applies, and those that wait for a restart. Pure."""

from __future__ import annotations

from dataclasses import fields, replace

from zmon_collector.config.sections import Config

# Sections, and keys of sections, that take effect without a restart; the others keep their old value until then.
SECTIONS = {"metrics", "models", "alerts", "notify"}
COUNTS = {"open_windows", "agents", "features", "classes", "models", "streams"}
KEYS = {
    "collector": {"window", "grace", "idle", "max_wait", "max_skew", "sample_rows", "label_horizon", "label_wait"},
    "security": {"clients", "clients_file"},
    "limits": COUNTS | {"inflight_bytes", "schema_bytes", "label_bytes"},
}


def merged(old: Config, new: Config) -> tuple[Config, list[str]]:
    """Return the configuration to continue with, and the changed keys that wait for a restart."""
    waiting: list[str] = []
    sections = {}
    for name in (section.name for section in fields(Config)):
        before, after = getattr(old, name), getattr(new, name)
        if name in SECTIONS:
            sections[name] = after
        elif name in KEYS:
            changed = {key.name for key in fields(before) if getattr(before, key.name) != getattr(after, key.name)}
            waiting += [f"[{name}] {key}" for key in sorted(changed - KEYS[name])]
            sections[name] = replace(before, **{key: getattr(after, key) for key in changed & KEYS[name]})
        elif before != after:
            waiting.append(f"[{name}]")
    return replace(old, **sections), waiting
