"""Check how models are partitioned among collectors: models that two of them claim, or that none takes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from zmon_collector.config.sections import Config
from zmon_collector.config.series_selection import matches

SIGNS = set("*?[")


def named(configs: Mapping[Path, Config]) -> dict[str, list[Path]]:
    """Return the models that any of the files names without a glob, each with the files whose collector takes it."""
    names: dict[str, None] = {}
    for config in configs.values():
        alerted = [rule.model for rule in config.alerts]
        for name in (*config.collector.models, *config.models, *alerted):
            if name and not SIGNS & set(name):
                names[name] = None
    return {
        name: [path for path, config in configs.items() if matches(config.collector.models, name)] for name in names
    }


def faults(configs: Mapping[Path, Config]) -> list[str]:
    """Return what is wrong with the partition, one line for each fault.

    Two globs may overlap in a model that no file names: only two equal globs can be recognised.
    """
    lines = []
    for name, takers in named(configs).items():
        if len(takers) > 1:
            lines.append(
                f"model {name!r} is claimed by {_both(takers)}: each would write all its series; take it out of "
                "[collector] models of all but one"
            )
        elif not takers:
            where = [path for path, config in configs.items() if name in config.models] or list(configs)
            lines.append(
                f"model {name!r} is configured in {where[0]}, and no collector takes it; add it to [collector] models"
            )
    globs: dict[str, list[Path]] = {}
    for path, config in configs.items():
        for glob in config.collector.models:
            if SIGNS & set(glob):
                globs.setdefault(glob, []).append(path)
    lines += [f"models {glob!r} are claimed by {_both(takers)}" for glob, takers in globs.items() if len(takers) > 1]
    return lines


def _both(paths: list[Path]) -> str:
    return " and ".join(map(str, paths))
