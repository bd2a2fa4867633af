"""Queries of the history: models, series, points. Each runs in the thread that owns the connection."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import NamedTuple

import numpy as np

from zmon.contract import DIMENSIONS, Value, target_type
from zmon.errors import ZmonError
from zmon_collector.dashboard.timeseries import TimeSeries, downsample, split_rows

# Names that all series of a bundle share, and their columns.
COLUMNS = {"what": "what", "model": "model", "model_version": "version", "agent_id": "agent", "stat": "stat"}
WITHIN_BUNDLE = frozenset(DIMENSIONS) - {"stat"} | {"basis"}  # names that distinguish the series of a bundle
MOST_VALUES = 4_000_000  # that one query may read


class QueryTooLargeError(ZmonError):
    """A query would read more than is allowed; the text says how to narrow it."""


class KnownModel(NamedTuple):
    """A model and version with windows in the history."""

    model: str
    version: str
    first: int
    newest: int
    period: int


@dataclass(frozen=True, slots=True)
class PointQuery:
    """A selection of points: None matches any value, an agent of "" the rollup.

    Times are window starts, `end` excluded.
    """

    model: str
    version: str | None = None
    agents: Sequence[str] | None = ("",)
    what: Sequence[str] | None = None
    stat: Sequence[str] | None = None
    names: Mapping[str, str] | None = None
    start: int = 0
    end: int = 2**62
    step: int = 0
    exact: bool = False  # only series without further names than those in `names`
    frozen: bool = False  # without open windows

    def shared(self) -> dict[str, Sequence[str]]:
        """Return which values each name of a bundle may have; names that may have any are left out."""
        version = None if self.version is None else (self.version,)
        values = (self.what, (self.model,), version, self.agents, self.stat)
        return {name: wanted for name, wanted in zip(COLUMNS, values, strict=True) if wanted is not None}


def list_models(db: sqlite3.Connection) -> list[KnownModel]:
    """Return models and versions, those with the newest windows first.

    Each is found by index, with a few rows read of it: a history has millions of windows.
    """
    models: list[KnownModel] = []
    after = ("", "")
    while (name := _next_model(db, *after)) is not None:
        after = name
        first, newest = (
            db.execute(
                'SELECT start, "end" FROM report WHERE model = ? AND version = ? AND +sequence >= 0'
                f" ORDER BY start {order} LIMIT 1",
                name,
            ).fetchone()
            for order in ("ASC", "DESC")
        )
        if newest is not None:  # else only restated windows are left
            models.append(KnownModel(*name, first[0], newest[0], newest[1] - newest[0]))
    return sorted(models, key=lambda known: (-known.newest, known.model, known.version))


def _next_model(db: sqlite3.Connection, model: str, version: str) -> tuple[str, str] | None:
    """Return the model and version after this one. Two queries, since SQLite scans for a comparison of pairs."""
    for where, given in (("model = ? AND version > ?", (model, version)), ("model > ?", (model,))):
        row: tuple[str, str] | None = db.execute(
            f"SELECT model, version FROM report WHERE {where} ORDER BY model, version LIMIT 1", given
        ).fetchone()
        if row is not None:
            return row
    return None


def list_reports(db: sqlite3.Connection, model: str, version: str, start: int) -> list[tuple[int, int]]:
    """Return the reports of windows from `start` on, as (start, sequence), the oldest first."""
    return db.execute(
        "SELECT start, coalesce(origin, sequence) FROM report WHERE model = ? AND version = ? AND start >= ?"
        " AND +sequence >= 0 ORDER BY start, sequence",
        (model, version, start),
    ).fetchall()


def list_agents(db: sqlite3.Connection, model: str, version: str) -> list[str]:
    """Return the replicas that have sent rows."""
    rows = db.execute(
        "SELECT DISTINCT agent FROM bundle WHERE model = ? AND version = ? AND agent != '' ORDER BY agent",
        (model, version),
    )
    return [agent for (agent,) in rows]


def list_measures(db: sqlite3.Connection, model: str, version: str) -> list[str]:
    """Return every `what` of a model and version."""
    rows = db.execute("SELECT DISTINCT what FROM bundle WHERE model = ? AND version = ?", (model, version))
    return [what for (what,) in rows]


def find_series(
    db: sqlite3.Connection, model: str, version: str | None = None, search: str = "", limit: int = 200
) -> list[dict[str, str]]:
    """Return the names of the rollup's series that contain every word of `search`."""
    words = [word.casefold() for word in search.split()]
    rows = db.execute(
        "SELECT model, version, what, stat, names FROM bundle JOIN series ON series.bundle = bundle.id"
        " WHERE model = ? AND agent = ''"
        + ("" if version is None else " AND version = ?")
        + " ORDER BY what != 'feature_value', what, series.id",
        (model,) if version is None else (model, version),
    )
    matches = []
    for name, of, what, stat, text in rows:
        names = _names((what, name, of, "", stat), text)
        searched = " ".join(value for key, value in names.items() if not key.startswith("model")).casefold()
        if all(word in searched for word in words):
            matches.append(names)
            if len(matches) == limit:
                break
    return matches


def read_series(db: sqlite3.Connection, query: PointQuery) -> list[TimeSeries]:
    """Return the series that match a query.

    Raises
    ------
    QueryTooLargeError
        The query covers too many points.
    """
    series: list[TimeSeries] = []
    budget = MOST_VALUES
    for bundle, names in _matching_bundles(db, query):
        rows = db.execute(
            "SELECT start, layout, numbers FROM frame WHERE bundle = ? AND start >= ? AND start < ?"
            " ORDER BY start, report",
            (bundle, query.start, query.end),
        ).fetchall()
        budget -= sum(len(row[2]) for row in rows) // 8
        if budget < 0:
            raise QueryTooLargeError(
                f"more than {MOST_VALUES:,} values; choose a shorter time, fewer measures or one agent"
            )
        if rows:
            series += _unpack(db, (bundle, names), rows, query)
    return series


def read_details(
    db: sqlite3.Connection, query: PointQuery, metric: str, agent: str, most: int
) -> list[tuple[int, bytes]]:
    """Return what a metric's ``detail`` stored for the newest windows, newest first, with their starts."""
    return db.execute(
        "SELECT start, data FROM detail WHERE model = ? AND version = ? AND agent = ? AND metric = ?"
        " AND start >= ? AND start < ? ORDER BY start DESC LIMIT ?",
        (query.model, query.version or "", agent, metric, query.start, query.end, most),
    ).fetchall()


def fits(names: Mapping[str, str], query: PointQuery) -> bool:
    """Return whether a series of these names matches a query."""
    return all(names.get(name, "") in wanted for name, wanted in query.shared().items()) and _fits(names, query)


def _matching_bundles(db: sqlite3.Connection, query: PointQuery) -> Iterator[tuple[int, dict[str, str]]]:
    shared = query.shared()
    where = " AND ".join(f"{COLUMNS[name]} IN ({', '.join('?' * len(wanted))})" for name, wanted in shared.items())
    rows = db.execute(
        f"SELECT id, what, model, version, agent, stat FROM bundle WHERE {where} ORDER BY id",
        list(chain.from_iterable(shared.values())),
    )
    for number, *key in rows.fetchall():
        yield number, _names(key)


def _unpack(
    db: sqlite3.Connection, of: tuple[int, dict[str, str]], rows: list[tuple[int, int, bytes]], query: PointQuery
) -> list[TimeSeries]:
    """Return the matching series of a bundle, given by number and shared names, from its stored arrays."""
    bundle, shared = of
    names = {
        number: {**shared, **json.loads(text)}
        for number, text in db.execute("SELECT id, names FROM series WHERE bundle = ? ORDER BY id", (bundle,))
    }
    order = [number for number, of_series in names.items() if _fits(of_series, query)]
    if not order:
        return []
    column = {number: i for i, number in enumerate(order)}
    layouts = {
        number: [(i, column[id_]) for i, id_ in enumerate(np.frombuffer(ids, dtype="<u4").tolist()) if id_ in column]
        for number, ids in db.execute("SELECT id, ids FROM layout WHERE bundle = ?", (bundle,))
    }
    arrays = {number: np.array(pairs, dtype=np.intp).reshape(-1, 2) for number, pairs in layouts.items()}
    times, place = np.unique(np.array([start for start, _, _ in rows], dtype=np.int64), return_inverse=True)
    values, known = np.zeros((len(times), len(order))), np.zeros((len(times), len(order)), dtype=bool)
    counter = target_type(Value(shared["what"], 0.0)) == "counter"
    for layout, run in groupby(range(len(rows)), lambda i: rows[i][1]):  # most bundles have one layout all the time
        some = list(run)
        numbers = np.frombuffer(b"".join(rows[i][2] for i in some), dtype="<f8").reshape(len(some), -1)
        cells = np.ix_(place[some], arrays[layout][:, 1])
        known[cells] = True
        if counter:  # a later report of the same window carries further counts
            np.add.at(values, cells, numbers[:, arrays[layout][:, 0]])
        else:
            values[cells] = numbers[:, arrays[layout][:, 0]]
    values[~known] = np.nan
    by_series = values.T
    if query.step:
        times, by_series = downsample(times, by_series, query.step, counter=counter)
    return split_rows([names[number] for number in order], times, by_series)


def _fits(names: Mapping[str, str], query: PointQuery) -> bool:
    wanted = query.names or {}
    if "basis" in names and "basis" not in wanted:
        return False  # restated windows are only returned when requested by name
    if any(names.get(key, "") != value for key, value in wanted.items()):
        return False
    return not query.exact or not (names.keys() & WITHIN_BUNDLE) - wanted.keys()


def _names(bundle: Sequence[str], text: str = "{}") -> dict[str, str]:
    """Return the names of a series, given those of its bundle and its own as JSON; absent ones are left out."""
    names = {**dict(zip(COLUMNS, bundle, strict=True)), **json.loads(text)}
    return {key: value for key, value in names.items() if value}
