"""The settings that hold for a window from its opening to its report, as an object and as bytes. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import date, datetime, time
from functools import cached_property
from hashlib import blake2b
from typing import Any

from zmon.contract import Metric, Value
from zmon_collector.config.series_selection import Ranks, SeriesFilter, SeriesSelection
from zmon_collector.windows.window import WindowRules

VERSION = 1
# TOML has times, which JSON has not: they are kept as {"<name>": "<ISO 8601>"}.
_TIMES: Mapping[str, type[date] | type[time]] = {f"zmon.{each.__name__}": each for each in (datetime, date, time)}


@dataclass(frozen=True)
class WindowPolicy:
    """The settings of a window. A reload or a restart makes another one, for windows that open later.

    Attributes
    ----------
    rules : WindowRules
    sample_rows : int
        Rows of the sample.
    selection : SeriesSelection
    metrics : dict
        The editions (`Registry.editions`) of the metrics with which the window opened, by name.
    options : dict
        Their options.
    ranks : dict
        Presets of each metric's series, which the policies of a store share.
    """

    rules: WindowRules = WindowRules()
    sample_rows: int = 5000
    selection: SeriesSelection = SeriesSelection()
    metrics: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    ranks: dict[str, Ranks] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def emits(self) -> Callable[[Metric[Any], Value], bool]:
        """``emits(metric, value)``: whether a value of a metric is emitted."""
        return SeriesFilter(self.selection, self.ranks).emits

    @cached_property
    def packed(self) -> bytes:
        """The policy as bytes, which `unpack` reads; empty when an option is not plain data, as no file can give it."""
        data = {key.name: getattr(self, key.name) for key in fields(self) if key.compare}
        data |= {"version": VERSION, "rules": asdict(self.rules), "selection": asdict(self.selection)}
        try:
            return json.dumps(data, default=_pack_time, separators=(",", ":")).encode()
        except (TypeError, ValueError, RecursionError):
            return b""

    @cached_property
    def digest(self) -> bytes:
        """A hash of `packed`; empty when that is."""
        return blake2b(self.packed, digest_size=16).digest() if self.packed else b""


def unpack(data: bytes, ranks: dict[str, Ranks]) -> WindowPolicy:
    """Return the policy of `WindowPolicy.packed`; ValueError, TypeError or KeyError when it is damaged."""
    kept = json.loads(data, object_hook=_unpack_time)
    if not isinstance(kept, dict) or kept.get("version") != VERSION:
        raise ValueError("not a policy that this release reads")
    selection: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in kept["selection"].items()
    }
    return WindowPolicy(
        WindowRules(**kept["rules"]),
        kept["sample_rows"],
        SeriesSelection(**selection),
        kept["metrics"],
        kept["options"],
        ranks,
    )


def _pack_time(value: object) -> dict[str, str]:
    name = f"zmon.{type(value).__name__}"
    if isinstance(value, date | time) and name in _TIMES:
        return {name: value.isoformat()}
    raise TypeError(f"an option holds a {type(value).__name__}")


def _unpack_time(table: dict[str, Any]) -> Any:
    if len(table) == 1:
        ((name, value),) = table.items()
        if name in _TIMES:
            return _TIMES[name].fromisoformat(value)
    return table
