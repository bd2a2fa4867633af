"""Query parameters of a view as checked values, and the time range they stand for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from zmon_collector.dashboard.history_queries import KnownModel

VIEWS = ("overview", "model", "series", "alerts", "health")
NAMES = ("class_name", "feat_name", "category", "segment_name", "segment_value", "predicted", "reason", "basis")
RANGES = {"5m": 300, "15m": 900, "1h": 3600, "6h": 21600, "24h": 86400, "7d": 604800, "all": 0}
DEFAULT_RANGE = "15m"
SHOWN = 360  # windows in a figure; beyond it they are gathered in steps
LONGEST = 16_384  # characters of a name
MOST_PARTS = 1000  # of a list


class BadRequestError(ValueError):
    """A query parameter is missing or wrong; the text says which and why."""


@dataclass(frozen=True, slots=True)
class QueryParams:
    """The parameters of a view; equal for all viewers of the same one."""

    view: str = "overview"
    model: str = ""
    version: str = ""
    agent: str = ""
    what: str = ""
    names: tuple[tuple[str, str], ...] = ()
    range: str = DEFAULT_RANGE
    until: int | None = None


def parse_query(query: Mapping[str, str]) -> QueryParams:
    """Check the query of a view and return its parameters.

    Raises
    ------
    BadRequestError
        A parameter is missing or wrong.
    """
    view = query.get("view", "overview")
    if view not in VIEWS:
        raise BadRequestError(f"view is {view!r:.40}; use one of {', '.join(VIEWS)}")
    chosen = query.get("range", DEFAULT_RANGE)
    if chosen not in RANGES:
        raise BadRequestError(f"range is {chosen!r:.40}; use one of {', '.join(RANGES)}")
    check_lengths(query)
    if view in ("model", "series") and not query.get("model"):
        raise BadRequestError("model is missing")
    if view == "series" and not query.get("what"):
        raise BadRequestError("what is missing")
    if view in ("overview", "alerts", "health"):
        return QueryParams(view)
    model, version, agent = query["model"], query.get("version", ""), query.get("agent", "")
    until = parse_seconds(query, "to")
    if view == "model":
        return QueryParams(view, model, version, agent, range=chosen, until=until)
    names = tuple((name, query[name]) for name in NAMES if query.get(name))
    return QueryParams(view, model, version, agent, query["what"], names, chosen, until)


def check_lengths(query: Mapping[str, str]) -> None:
    """Raise BadRequestError for a parameter that is longer than any name."""
    for name, value in query.items():
        if len(value) > LONGEST:
            raise BadRequestError(f"{name!r:.40} is longer than {LONGEST} characters")


def parse_list(text: str, name: str) -> tuple[str, ...]:
    """Return the parts of a list that is separated by commas."""
    parts = tuple(text.split(","))
    if len(parts) > MOST_PARTS:
        raise BadRequestError(f"{name} has {len(parts)} parts; give at most {MOST_PARTS}")
    return parts


def parse_seconds(query: Mapping[str, str], name: str) -> int | None:
    """Return a whole number of seconds; None when the query does not have it."""
    text = query.get(name)
    if text is None or text == "":
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 12:
        raise BadRequestError(f"{name} is {text!r:.40}; give a whole number of at most 12 digits")
    return int(text)


def resolve_range(chosen: str, until: int | None, model: KnownModel, wall: float) -> tuple[int, int, int]:
    """Return start and end of a range for a model, and by how many seconds its windows are gathered; 0 shows each.

    It lasts up to now, or to the model's newest window if that lies before the range.
    """
    newest = model.newest + model.period
    seconds = RANGES[chosen]
    end = until if until is not None else max(int(wall), newest)
    if until is None and seconds and newest <= end - seconds:
        end = newest  # a replayed or silent model: show its newest windows
    start = model.first if not seconds else end - seconds
    windows = (min(end, newest) - max(start, model.first)) / max(1, model.period)
    step = 0 if windows <= SHOWN else -(-int(windows) // SHOWN) * model.period
    return start, end, step
