"""The views as data: asks the history and the board, and builds panels. Called by worker threads, never by the loop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from zmon_collector.compute import details
from zmon_collector.dashboard import history_queries, panels
from zmon_collector.dashboard.health_panels import health_panels
from zmon_collector.dashboard.history_queries import KnownModel, PointQuery, QueryTooLargeError
from zmon_collector.dashboard.live import Live
from zmon_collector.dashboard.movers import rank_movers
from zmon_collector.dashboard.plugin_series import measures_of_plugins
from zmon_collector.dashboard.timeseries import TimeSeries, extend
from zmon_collector.dashboard.web.query_params import QueryParams, TimeRange, resolve_range

SUMMED = 60  # windows behind the calibration curve of them all

NO_TIMES, NO_VALUES = np.empty(0, dtype=np.int64), np.empty(0)


class Renderer:
    """Renders what is asked for as plain data, ready to be written as JSON.

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
        """One view, and the seconds of a core that the history spent on it."""
        self._spent.seconds = 0.0
        found = getattr(self, f"_{params.view}")(params)
        return {"view": params.view, **found}, self._spent.seconds

    # --- views -------------------------------------------------------------------------------------------------------

    def _overview(self, _: QueryParams) -> dict[str, Any]:
        return {"models": self.models()}

    def _model(self, params: QueryParams) -> dict[str, Any]:
        known = self._known(params)
        if known is None:
            return {"model": params.model, "version": params.version, "panels": [], "missing": True}
        stretch = resolve_range(params.range, params.until, known, self._clock())
        period = stretch.step or known.period
        ask = self._question(params, known, stretch)
        series = _alone(
            [
                *self._so_far(replace(ask, what=panels.MODEL_WHAT, stat=panels.MODEL_STAT)),
                *self._so_far(replace(ask, what=panels.FEATURE_WHAT, stat=panels.FEATURE_STAT)),
            ]
        )
        agents = self._read(lambda db: history_queries.list_agents(db, known.model, known.version))
        of_plugins, of_plugins_by_agent = self._plugin_series(ask, agents)
        shared = replace(ask, what=(*panels.SHARED_WHAT, *panels.ROW_COUNTS), stat=("", "mean"), agents=agents)
        versions = replace(shared, version=None, agents=("",), what=panels.SHARED_WHAT)
        entry = self._entry(known)
        return {
            **_identity(known),
            "agent": params.agent,
            "agents": agents,
            "versions": [each.version for each in self._read(history_queries.list_models) if each.model == known.model],
            "summary": _chosen(entry, params.agent),
            "from": stretch.start,
            "to": stretch.end,
            "panels": panels.mark_partial(
                panels.model_panels(
                    [*series, *_alone(of_plugins)],
                    [*(self._so_far(shared) if agents else []), *of_plugins_by_agent],
                    self._so_far(versions),
                    period,
                    reliability=panels.reliability_panel(self._details(ask, "calibration", SUMMED)),
                    declared=self._live.declared,
                ),
                self._partial(known, ask),
            ),
            "movers": panels.mover_table(rank_movers(series)),
        }

    def _series(self, params: QueryParams) -> dict[str, Any]:
        known = self._known(params)
        if known is None:
            return {"model": params.model, "version": params.version, "panels": [], "missing": True}
        stretch = resolve_range(params.range, params.until, known, self._clock())
        ask = replace(self._question(params, known, stretch), what=(params.what,), names=dict(params.names), exact=True)
        agents = self._read(lambda db: history_queries.list_agents(db, known.model, known.version))
        centre = replace(ask, agents=agents, stat=("", "mean", "macro"))
        feature = dict(params.names).get("feat_name")
        drift = replace(ask, what=("feature_drift",)) if feature else None
        names = {"what": params.what, **dict(params.names)}
        (counts,) = self._details(replace(ask, agents=("",)), "drift", 1) or [None]
        return {
            **_identity(known),
            "agent": params.agent,
            "agents": agents,
            "names": names,
            "from": stretch.start,
            "to": stretch.end,
            "panels": panels.mark_partial(
                panels.series_panels(
                    _alone(self._so_far(ask)),
                    self._so_far(centre) if agents else [],
                    _alone(self._so_far(drift)) if drift else [],
                    params.what,
                    panels.reference_panel(self._live.reference((known.model, known.version)), counts, names),
                ),
                self._partial(known, ask),
            ),
        }

    def _alerts(self, _: QueryParams) -> dict[str, Any]:
        return {"alerts": self._live.alerts()}

    def _health(self, _: QueryParams) -> dict[str, Any]:
        beats = list(self._live.health_history)
        plugins = list(self._live.health.plugins)
        newest = beats[-1] if beats else {}
        lag: list[TimeSeries] = []
        for known in self._read(history_queries.list_models)[:5]:
            query = PointQuery(known.model, known.version, what=("transport_delay_seconds",), start=known.newest - 3600)
            lag += self._read_series(query)
        return {
            "health": {name: value for name, value in newest.items() if name not in ("mono", "time")},
            "plugins": plugins,
            "history": {"bytes": self._live.history.read_bytes(), "set_aside": self._live.history.set_aside},
            "panels": health_panels(beats, plugins, lag),
        }

    # --- data --------------------------------------------------------------------------------------------------------

    def models(self) -> list[dict[str, Any]]:
        return self._live.overview.view(self._clock(), self._live.alerts())

    def alerts(self) -> list[dict[str, Any]]:
        return self._live.alerts()

    def health(self) -> dict[str, Any]:
        beats = self._live.health_history
        return dict(beats[-1]) if beats else {}

    def series(self, model: str, version: str | None, search: str, limit: int) -> list[dict[str, str]]:
        found: list[dict[str, str]] = self._read(
            lambda db: history_queries.find_series(db, model, version, search, limit)
        )
        return found

    def points(self, query: PointQuery) -> list[TimeSeries]:
        return self._read_series(query)

    def _entry(self, known: KnownModel) -> dict[str, Any]:
        return next((e for e in self.models() if (e["model"], e["version"]) == (known.model, known.version)), {})

    def _known(self, params: QueryParams) -> KnownModel | None:
        found: Sequence[KnownModel] = self._read(history_queries.list_models)
        opened = self._live.open_windows(params.model, params.version)
        first = None
        if opened:  # its first window is still open
            oldest, newest = opened[0].window, opened[-1].window
            length = oldest.end - oldest.start
            first = KnownModel(params.model, params.version, oldest.start, newest.start, length, len(opened))
        return next((each for each in found if (each.model, each.version) == (params.model, params.version)), first)

    def _question(self, params: QueryParams, known: KnownModel, stretch: TimeRange) -> PointQuery:
        return PointQuery(
            known.model,
            known.version,
            agents=(params.agent,),
            start=stretch.start,
            end=stretch.end,
            step=stretch.step,
            frozen=params.until is not None,
        )

    def _read(self, query: Callable[[Any], Any]) -> Any:
        found, seconds = self._live.history.timed(query).result()
        self._spent.seconds = getattr(self._spent, "seconds", 0.0) + seconds
        return found

    def _read_series(self, query: PointQuery) -> list[TimeSeries]:
        found: list[TimeSeries] = self._read(lambda db: history_queries.read_series(db, query))
        return found

    def _details(self, query: PointQuery, metric: str, most: int) -> list[Any]:
        """What a metric gave behind its values: of the newest windows, the open ones first."""
        (agent,) = query.agents or ("",)
        found = self._read(lambda db: history_queries.read_details(db, query, metric, agent, most))
        for report in [] if query.frozen else self._live.open_windows(query.model, query.version or ""):
            so_far = report.details.get((agent or None, metric))
            if so_far is not None:
                found.insert(0, (0, so_far))
        return [each for _, data in found[:most] if (each := details.read(data)) is not None]

    def _so_far(self, query: PointQuery) -> list[TimeSeries]:
        """The same, with what the open windows hold so far; not where several windows are shown as one."""
        found = self._read_series(query)
        partials = [] if query.step or query.frozen else list(self._live.partials.values())
        for report in sorted(partials, key=lambda each: each.window.start):
            if query.start <= report.window.start and report.model == query.model:
                start = np.array([report.window.start], dtype=np.int64)
                named = ((report.properties(point), point.value.value) for point in report.points)
                fitting = [
                    TimeSeries(own, start, np.array([value]))
                    for own, value in named
                    if history_queries.fits(own, query)
                ]
                found = extend(found, fitting)
        return found

    def _plugin_series(self, query: PointQuery, agents: list[str]) -> tuple[list[TimeSeries], list[TimeSeries]]:
        """Return the series of plugins' measures, and of measures that only replicas have; an empty one for no values.

        So a panel stays on the view whatever the range. One measure that is too large does not cost the others.
        """
        version = query.version or ""
        measures = set(self._read(lambda db: history_queries.list_measures(db, query.model, version)))
        for report in [] if query.frozen else self._live.open_windows(query.model, version):
            measures |= {point.value.what for point in report.points}
        series: list[TimeSeries] = []
        by_agent: list[TimeSeries] = []
        for what in sorted(measures_of_plugins(measures))[: panels.MOST_PLUGIN_CHARTS + 1]:
            one = replace(query, what=(what,))
            try:
                own = self._so_far(one)
                replicas = [] if own or query.agents != ("",) else self._so_far(replace(one, agents=agents))
            except QueryTooLargeError:
                own, replicas = [], []
            series += own or ([] if replicas else [TimeSeries({"what": what}, NO_TIMES, NO_VALUES)])
            by_agent += replicas
        return series, by_agent

    def _partial(self, known: KnownModel, query: PointQuery) -> tuple[int, int] | None:
        """The stretch of the open windows that are shown."""
        opened = self._live.open_windows(known.model, known.version)
        if not opened or query.step or query.frozen:
            return None
        return opened[0].window.start, opened[-1].window.end


def _identity(known: KnownModel) -> dict[str, Any]:
    return {"model": known.model, "version": known.version, "period": known.period}


def _chosen(entry: Mapping[str, Any], agent: str) -> Mapping[str, Any]:
    if not agent:
        return {name: value for name, value in entry.items() if name != "agents"}
    return next((each for each in entry.get("agents", []) if each["agent"] == agent), {})


def _alone(series: Sequence[TimeSeries]) -> list[TimeSeries]:
    """Lines of one replica as if it were the only one: figures of the rollup show them."""
    return [ts._replace(names={k: v for k, v in ts.names.items() if k != "agent_id"}) for ts in series]
