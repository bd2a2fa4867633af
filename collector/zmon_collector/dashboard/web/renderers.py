"""Renders views as plain data: queries the history and the overview, builds panels. Runs in worker threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from sqlite3 import Connection
from typing import Any, TypeVar

import numpy as np

from zmon.contract import Report
from zmon_collector.compute import details
from zmon_collector.dashboard import history_queries, panels
from zmon_collector.dashboard.health_panels import health_panels
from zmon_collector.dashboard.history_queries import KnownModel, PointQuery, QueryTooLargeError
from zmon_collector.dashboard.live import Live
from zmon_collector.dashboard.movers import rank_movers
from zmon_collector.dashboard.plugin_series import measures_of_plugins
from zmon_collector.dashboard.refusals import refusal_table
from zmon_collector.dashboard.timeseries import TimeSeries, extend
from zmon_collector.dashboard.web.query_params import QueryParams, resolve_range

T = TypeVar("T")
SUMMED = 60  # windows behind the calibration curve over several windows
NO_TIMES, NO_VALUES = np.empty(0, dtype=np.int64), np.empty(0)


class Renderer:
    """Renders views and answers the API as plain data, ready to be written as JSON.

    Parameters
    ----------
    live : Live
    clock : callable
    """

    def __init__(self, live: Live, clock: Callable[[], float] = time.time) -> None:
        self._live = live
        self._clock = clock
        self._spent = threading.local()

    def render(self, params: QueryParams) -> tuple[dict[str, Any], float]:
        """Return a view, and the seconds of a core that the history spent on it."""
        self._spent.seconds = 0.0
        view = getattr(self, f"_{params.view}")(params)
        return {"view": params.view, **view}, self._spent.seconds

    # --- views -------------------------------------------------------------------------------------------------------

    def _overview(self, _: QueryParams) -> dict[str, Any]:
        return {"models": self.models()}

    def _model(self, params: QueryParams) -> dict[str, Any]:
        model = self._find_model(params)
        if model is None:
            return _missing(params)
        query = self._query(params, model)
        agents = self._agents(model)
        series = [
            *self._read_with_open(replace(query, what=panels.MODEL_WHAT, stat=panels.MODEL_STAT)),
            *self._read_with_open(replace(query, what=panels.FEATURE_WHAT, stat=panels.FEATURE_STAT)),
        ]
        of_plugins, of_plugins_by_agent = self._plugin_series(query, agents)
        compared = replace(query, what=(*panels.SHARED_WHAT, *panels.ROW_COUNTS), stat=("", "mean"), agents=agents)
        versions = replace(compared, version=None, agents=("",), what=panels.SHARED_WHAT)
        by_agent = self._read_with_open(compared) if agents else []
        cards = panels.model_panels(
            _as_rollup([*series, *of_plugins]),
            [*by_agent, *of_plugins_by_agent],
            self._read_with_open(versions),
            query.step or model.period,
            reliability=panels.reliability_panel(self._details(query, "calibration", SUMMED)),
            declared=self._live.declared,
        )
        models = self._read(history_queries.list_models)
        return {
            **self._head(params, model, query, agents),
            "versions": [other.version for other in models if other.model == model.model],
            "summary": self._summary(model, params.agent),
            "panels": self._mark_open(cards, query),
            "movers": panels.mover_table(rank_movers(_as_rollup(series))),
            "refusals": refusal_table(by_agent, self._live.details_of((model.model, model.version)), params.agent),
        }

    def _series(self, params: QueryParams) -> dict[str, Any]:
        model = self._find_model(params)
        if model is None:
            return _missing(params)
        names = dict(params.names)
        query = replace(self._query(params, model), what=(params.what,), names=names, exact=True)
        agents = self._agents(model)
        centre = replace(query, agents=agents, stat=("", "mean", "macro"))
        drift = self._read_with_open(replace(query, what=("feature_drift",))) if names.get("feat_name") else []
        (counts,) = self._details(replace(query, agents=("",)), "drift", 1) or [None]
        profile = self._live.reference((model.model, model.version))
        named = {"what": params.what, **names}
        cards = panels.series_panels(
            _as_rollup(self._read_with_open(query)),
            self._read_with_open(centre) if agents else [],
            _as_rollup(drift),
            params.what,
            panels.reference_panel(profile, counts, named),
        )
        return {**self._head(params, model, query, agents), "names": named, "panels": self._mark_open(cards, query)}

    def _alerts(self, _: QueryParams) -> dict[str, Any]:
        return {"alerts": self.alerts()}

    def _health(self, _: QueryParams) -> dict[str, Any]:
        reports = list(self._live.health_history)
        plugins = list(self._live.health.plugins)
        newest = reports[-1] if reports else {}
        what = ("transport_delay_seconds",)
        delays: list[TimeSeries] = []
        for model in self._read(history_queries.list_models)[:5]:
            delays += self.points(PointQuery(model.model, model.version, what=what, start=model.newest - 3600))
        return {
            "health": {name: value for name, value in newest.items() if name not in ("mono", "time")},
            "plugins": plugins,
            "history": {"bytes": self._live.history.read_bytes(), "set_aside": self._live.history.set_aside},
            "panels": health_panels(reports, plugins, delays),
        }

    # --- the API ------------------------------------------------------------------------------------------------------

    def models(self) -> list[dict[str, Any]]:
        """Return every model with its state."""
        return self._live.overview.view(self._clock(), self._live.alerts())

    def alerts(self) -> list[dict[str, Any]]:
        """Return the alerts, the newest first."""
        return self._live.alerts()

    def health(self) -> dict[str, Any]:
        """Return the newest health report."""
        reports = self._live.health_history
        return dict(reports[-1]) if reports else {}

    def series(self, model: str, version: str | None, search: str, limit: int) -> list[dict[str, str]]:
        """Return the names of series that contain every word of `search`."""
        return self._read(lambda db: history_queries.find_series(db, model, version, search, limit))

    def points(self, query: PointQuery) -> list[TimeSeries]:
        """Return the series that match a query, of closed windows."""
        return self._read(lambda db: history_queries.read_series(db, query))

    # --- data --------------------------------------------------------------------------------------------------------

    def _find_model(self, params: QueryParams) -> KnownModel | None:
        name = (params.model, params.version)
        model = next((row for row in self._read(history_queries.list_models) if row[:2] == name), None)
        previews = self._live.open_windows(*name)
        if model is None and previews:  # its first window is still open
            oldest, newest = previews[0].window, previews[-1].window
            return KnownModel(*name, oldest.start, newest.start, oldest.end - oldest.start)
        return model

    def _query(self, params: QueryParams, model: KnownModel) -> PointQuery:
        start, end, step = resolve_range(params.range, params.until, model, self._clock())
        query = PointQuery(model.model, model.version, agents=(params.agent,), start=start, end=end, step=step)
        return replace(query, frozen=params.until is not None)

    def _head(self, params: QueryParams, model: KnownModel, query: PointQuery, agents: list[str]) -> dict[str, Any]:
        return {
            "model": model.model,
            "version": model.version,
            "period": model.period,
            "agent": params.agent,
            "agents": agents,
            "from": query.start,
            "to": query.end,
        }

    def _summary(self, model: KnownModel, agent: str) -> Mapping[str, Any]:
        entry = next((e for e in self.models() if (e["model"], e["version"]) == model[:2]), {})
        if agent:
            return next((of_agent for of_agent in entry.get("agents", []) if of_agent["agent"] == agent), {})
        return {name: value for name, value in entry.items() if name != "agents"}

    def _agents(self, model: KnownModel) -> list[str]:
        return self._read(lambda db: history_queries.list_agents(db, model.model, model.version))

    def _read(self, query: Callable[[Connection], T]) -> T:
        """Run a query in the history's thread and note the seconds of a core that it takes."""

        def timed(db: Connection) -> tuple[T, float]:
            started = time.thread_time()
            return query(db), time.thread_time() - started

        result, seconds = self._live.history.read(timed).result()
        self._spent.seconds = getattr(self._spent, "seconds", 0.0) + seconds
        return result

    def _details(self, query: PointQuery, metric: str, most: int) -> list[Any]:
        """Return a metric's details of the newest windows, open windows first."""
        (agent,) = query.agents or ("",)
        stored = self._read(lambda db: history_queries.read_details(db, query, metric, agent, most))
        of_open = [preview.details.get((agent or None, metric)) for preview in reversed(self._previews(query))]
        newest = [*(data for data in of_open if data is not None), *(data for _, data in stored)][:most]
        return [detail for data in newest if (detail := details.read(data)) is not None]

    def _read_with_open(self, query: PointQuery) -> list[TimeSeries]:
        """Return matching series with the preliminary values of open windows, unless windows are gathered in steps."""
        series = self.points(query)
        previews = [] if query.step or query.frozen else list(self._live.partials.values())
        for preview in sorted(previews, key=lambda preview: preview.window.start):
            if query.start <= preview.window.start and preview.model == query.model:
                start = np.array([preview.window.start], dtype=np.int64)
                matching = [
                    TimeSeries(names, start, np.array([point.value.value]))
                    for point in preview.points
                    if history_queries.fits(names := preview.properties(point), query)
                ]
                series = extend(series, matching)
        return series

    def _plugin_series(self, query: PointQuery, agents: list[str]) -> tuple[list[TimeSeries], list[TimeSeries]]:
        """Return the series of plugins' measures, and of measures that only replicas have.

        A measure without values, or with more than a query may read, has an empty series: its panel stays on the view.
        """
        series: list[TimeSeries] = []
        by_agent: list[TimeSeries] = []
        for what in sorted(measures_of_plugins(self._measures(query)))[: panels.MOST_PLUGIN_CHARTS + 1]:
            of_measure = replace(query, what=(what,))
            try:
                values, of_replicas = self._read_with_open(of_measure), []
                if not values and query.agents == ("",):
                    of_replicas = self._read_with_open(replace(of_measure, agents=agents))
            except QueryTooLargeError:
                values, of_replicas = [], []
            series += values or ([] if of_replicas else [TimeSeries({"what": what}, NO_TIMES, NO_VALUES)])
            by_agent += of_replicas
        return series, by_agent

    def _measures(self, query: PointQuery) -> Iterator[str]:
        yield from self._read(lambda db: history_queries.list_measures(db, query.model, query.version or ""))
        for preview in self._previews(query):
            yield from {point.value.what for point in preview.points}

    def _previews(self, query: PointQuery) -> list[Report]:
        """Return the open windows of a model, oldest first; none while the view is paused."""
        return [] if query.frozen else self._live.open_windows(query.model, query.version or "")

    def _mark_open(self, cards: list[panels.Panel], query: PointQuery) -> list[panels.Panel]:
        """Mark the open windows that the panels show."""
        previews = self._previews(query)
        if not previews or query.step:
            return cards
        return panels.mark_partial(cards, (previews[0].window.start, previews[-1].window.end))


def _missing(params: QueryParams) -> dict[str, Any]:
    return {"model": params.model, "version": params.version, "panels": [], "missing": True}


def _as_rollup(series: Sequence[TimeSeries]) -> list[TimeSeries]:
    """Drop the replica's name: figures of the rollup then show the series of one replica."""
    return [ts._replace(names={k: v for k, v in ts.names.items() if k != "agent_id"}) for ts in series]
