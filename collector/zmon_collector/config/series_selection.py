"""Selection of the series that are emitted: presets that metrics declare, and globs on top of them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from zmon_plugins.stats import STATS

from zmon.bases import series_of
from zmon.contract import DIMENSIONS, PRESETS, Metric, Series, Value

Identity = tuple[str, tuple[bool, ...], str]
_KEYS = tuple(name for name in DIMENSIONS if name not in ("stat", "segment_name", "segment_value"))
_WHERE = tuple(Value._fields.index(name) for name in _KEYS)


@dataclass(frozen=True, slots=True)
class SeriesSelection:
    """The series that are emitted for a model.

    Attributes
    ----------
    preset : str
        The preset of the series over all rows.
    segment_preset : str
        The preset of the series per segment value.
    add, drop : tuple of str
        Globs of `what`, or ``what:stat``: emitted whatever the preset, or never.
    stats : tuple of str
        Globs: of a series that has statistics, exactly these; empty leaves it to the preset.
    classes, features : tuple of str
        Globs of names: series of other classes or features are not emitted; empty means all.
    """

    preset: str = "default"
    segment_preset: str = "minimal"
    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    stats: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    features: tuple[str, ...] = ()

    def includes(self, what: str, stat: str, rank: int, least: int, *, segment: bool = False) -> bool:
        """Return whether a series is emitted; `rank` is its smallest preset, `least` that of the first of its stats."""
        if any(_fits(pattern, what, stat) for pattern in self.drop):
            return False
        if any(_fits(pattern, what, stat) for pattern in self.add):
            return True
        if self.stats and stat in STATS:
            rank = least if matches(self.stats, stat) else len(PRESETS)
        return rank <= PRESETS.index(self.segment_preset if segment else self.preset)

    def emitted(self, metric: Metric[Any], *, segment: bool = False) -> Iterator[tuple[Series, list[str]]]:
        """Yield the declared series of a metric that are emitted, each with its stats ("" for none)."""
        ranks = Ranks(metric)
        for series in series_of(metric):
            named = tuple(key in series.keys for key in _KEYS)
            stats = [
                stat
                for stat in series.stats or ("",)
                if self.includes(series.what, stat, *ranks.of(series.what, named, stat), segment=segment)
            ]
            if stats:
                yield series, stats


def matches(globs: Sequence[str], name: str) -> bool:
    """Return whether one of the globs fits; a name that holds ``[`` fits itself."""
    return name in globs or "*" in globs or any(fnmatchcase(name, glob) for glob in globs)


def _fits(pattern: str, what: str, stat: str) -> bool:
    of, _, with_stat = pattern.partition(":")
    return fnmatchcase(what, of) and (not with_stat or fnmatchcase(stat, with_stat))


def unknown(selection: SeriesSelection, metrics: Sequence[Metric[Any]]) -> list[str]:
    """Return the patterns of `add` and `drop` that fit no series of these metrics."""
    declared = [
        (series.what, stat) for metric in metrics for series in series_of(metric) for stat in series.stats or ("",)
    ]
    return [glob for glob in (*selection.add, *selection.drop) if not any(_fits(glob, *names) for names in declared)]


class Ranks:
    """The smallest preset that emits each series of a metric, as its place in PRESETS."""

    def __init__(self, metric: Metric[Any]) -> None:
        self.ranks: dict[Identity, int] = {}
        self._least: dict[tuple[str, tuple[bool, ...]], int] = {}
        for series in series_of(metric):
            named, rank = tuple(key in series.keys for key in _KEYS), PRESETS.index(series.preset)
            self._least[series.what, named] = min(rank, self._least.get((series.what, named), rank))
            for stat in series.stats or ("",):
                self.ranks[series.what, named, stat] = rank

    def of(self, what: str, named: tuple[bool, ...], stat: str) -> tuple[int, int]:
        """Return the rank of a series and that of the first of its stats; 0 for a series that is not declared."""
        return self.ranks.get((what, named, stat), 0), self._least.get((what, named), 0)


class SeriesFilter:
    """Applies a selection to values, and remembers the answers: a window may have half a million values.

    What a metric does not declare in its `series` is emitted unless it is dropped.

    Parameters
    ----------
    selection : SeriesSelection
    ranks : dict
        Presets of each metric's series, by the metric's name; filled in as metrics are seen.
    """

    def __init__(self, selection: SeriesSelection, ranks: dict[str, Ranks]) -> None:
        self._selection = selection
        self._ranks = ranks
        self._series: dict[tuple[Any, ...], bool] = {}
        self._names: dict[tuple[tuple[str, ...], str], bool] = {}  # by globs and name

    def emits(self, metric: Metric[Any], value: Value) -> bool:
        """Return whether a value of a metric is emitted."""
        selection = self._selection
        # Which of its names a value carries says what series it belongs to.
        key = (metric.name, value.what, value.stat, tuple(map(bool, value[2:])))
        emitted = self._series.get(key)
        if emitted is None:
            if metric.name not in self._ranks:
                self._ranks[metric.name] = Ranks(metric)
            rank, least = self._ranks[metric.name].of(value.what, tuple(bool(value[i]) for i in _WHERE), value.stat)
            segment = bool(value.segment_name)
            emitted = self._series[key] = selection.includes(value.what, value.stat, rank, least, segment=segment)
        if not emitted or not (selection.classes or selection.features):
            return emitted
        return self._fits(selection.classes, value.class_name) and self._fits(selection.features, value.feat_name)

    def _fits(self, globs: tuple[str, ...], name: str) -> bool:
        """Return whether a name is selected; no globs are for all names, and a value without a name always fits."""
        if not globs or not name:
            return True
        answer = self._names.get((globs, name))
        if answer is None:
            if len(self._names) > 2**17:  # names come from publishers
                self._names.clear()
            answer = self._names[globs, name] = matches(globs, name)
        return answer


def smallest(metrics: Callable[[], Iterable[Metric[Any]]]) -> Callable[[Value], str]:
    """Return a function that names the smallest preset that emits a value, whichever metric gave it.

    A series that no metric declares is always emitted: ``"minimal"``. `metrics` is called at the first value.
    """
    ranks: dict[Identity, int] = {}

    def preset_of(value: Value) -> str:
        if not ranks:
            for metric in metrics():
                for identity, rank in Ranks(metric).ranks.items():
                    ranks[identity] = min(rank, ranks.get(identity, rank))
        named = tuple([value[i] != "" for i in _WHERE])
        return PRESETS[ranks.get((value.what, named, value.stat), 0)]

    return preset_of
