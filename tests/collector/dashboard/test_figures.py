"""Figures are valid plotly, say what the lines say, and show names as text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from zmon_collector.dashboard import figures
from zmon_collector.dashboard import panels as views
from zmon_collector.dashboard.health_panels import health_panels
from zmon_collector.dashboard.movers import rank_movers
from zmon_collector.dashboard.overview import Overview
from zmon_collector.dashboard.plugin_series import Declaration, Declarations
from zmon_collector.dashboard.timeseries import TimeSeries, select

from tests.support.frameworks import require
from tests.support.reports import window
from zmon import Point, Report, Value, Window


def lines_of(*reports: Report) -> list[TimeSeries]:
    """What the history would give, without it."""
    found: dict[tuple[tuple[str, str], ...], list[tuple[int, float]]] = {}
    for report in reports:
        for point in report.points:
            names = tuple(sorted(report.properties(point).items()))
            found.setdefault(names, []).append((report.window.start, point.value.value))
    return [TimeSeries(dict(n), *map(np.array, zip(*points, strict=True))) for n, points in found.items()]  # type: ignore[arg-type]


def everything(**names: Any) -> list[TimeSeries]:
    reports = [window(i, 10 * i, shift=3.0 * (i > 6), **names) for i in range(10)]
    lines = lines_of(*reports)
    times = np.arange(0, 100, 10)
    more = [
        {"what": "estimated_accuracy"}, {"what": "calibration_ece"}, {"what": "calibration_mce"}, {"what": "mae"},
        {"what": "roc_auc"}, {"what": "label_coverage"}, {"what": "rows_late", "agent_id": "a"},
        *({"what": "feature_drift", "feat_name": "age", "stat": stat} for stat in ("psi", "js", "ks")),
    ]  # fmt: skip
    return lines + [TimeSeries({"model": "m", **each}, times, np.linspace(0.1, 0.4, 10)) for each in more]


def split(lines: list[TimeSeries]) -> tuple[list[TimeSeries], list[TimeSeries]]:
    return [line for line in lines if not line.get("agent_id")], [line for line in lines if line.get("agent_id")]


def test_every_figure_is_valid_plotly() -> None:
    plotly = require("plotly.graph_objects")
    rollup, replicas = split(everything())
    versions = [*rollup, *(line._replace(names={**line.names, "model_version": "2"}) for line in rollup)]
    panels = [
        *views.model_panels(rollup, replicas, versions, 10),
        *views.series_panels(
            select(rollup, "feature_value", feat_name="age", stat="*"), replicas,
            select(rollup, "feature_drift", stat="*"), "feature_value",
        ),
        *health_panels([{"time": i, "mono": i, "counters": {"rows": 10 * i, "lost": i}} for i in range(5)],
                      [{"name": "rows", "seconds": 1.0}], []),
    ]  # fmt: skip
    drawn = [panel["id"] for panel in panels if panel["figure"]]
    assert {"classes", "confidence", "movement", "quality", "by_class", "confusion", "calibration", "rows", "errors",
            "replica_accuracy", "version_confidence", "bands", "drift", "received",
            "plugins"} <= set(drawn)  # fmt: skip
    for panel in panels:
        if panel["figure"]:
            plotly.Figure(figures.with_template(panel["figure"]))  # raises on a property that plotly does not know
        assert panel["empty"]


def test_nothing_gives_empty_panels_and_no_error() -> None:
    assert not any(panel["figure"] for panel in views.model_panels([], [], [], 10))
    assert not any(panel["figure"] for panel in views.series_panels([], [], [], ""))
    assert views.mover_table(rank_movers([])) == {"kind": "", "rows": []}


@pytest.mark.parametrize("name", ["<b>x</b>", "<img src=x onerror=alert(1)>", "a & b", "x" * 10_000, "a\x1b[2J\n"])
def test_labels_are_text_and_short(name: str) -> None:
    label = figures.label(name)
    assert "<" not in label
    assert label.isprintable()
    assert len(label) < 4 * figures.NAME_LENGTH


def test_long_names_that_look_alike_stay_apart() -> None:
    features = tuple("x" * 100 + "y" * i + "z" * 50 for i in range(3))
    rollup, _ = split(lines_of(*(window(i, 10 * i, features=features) for i in range(3))))
    made = figures.movement(rank_movers(rollup))
    assert made is not None
    assert len(set(made["data"][0]["y"])) == 3


def test_a_hole_in_time_is_not_drawn_over() -> None:
    line = TimeSeries({}, np.array([0, 10, 20, 100, 110]), np.arange(5.0))
    drawn = figures.trace(line, "a", "red")
    assert drawn["y"] == [0.0, 1.0, 2.0, None, 3.0, 4.0]


def test_the_shift_is_what_it_says() -> None:
    rng = np.random.default_rng(0)
    means, spread = rng.normal(size=(3, 20)), np.abs(rng.normal(size=(3, 20))) + 0.5
    times = np.arange(20)
    lines = [
        TimeSeries({"what": "feature_value", "feat_name": f"f{i}", "stat": stat}, times, values[i])
        for i in range(3)
        for stat, values in (("mean", means), ("std", spread))
    ]
    found = rank_movers(lines)
    assert found is not None
    for i in range(3):
        scale = np.sqrt(np.median(spread[i]) ** 2 + np.var(means[i]))
        np.testing.assert_allclose(found.scores[i], (means[i] - np.median(means[i])) / scale, rtol=1e-12)
    assert found.order[0] == np.abs(found.scores).max(axis=1).argmax()


def test_drift_against_a_reference_takes_the_place_of_the_shift() -> None:
    found = rank_movers(split(everything())[0])
    assert found is not None
    assert (found.kind, found.names) == ("psi", ["age"])


def test_classes_beyond_the_palette_are_added_up() -> None:
    rollup, _ = split(lines_of(window(1, 0, classes=tuple(f"c{i}" for i in range(25)))))
    made = figures.classes(rollup)
    assert made is not None
    assert len(made["data"]) == 11
    assert sum(trace["y"][0] for trace in made["data"]) == pytest.approx(1.0)


def test_series_of_segments_are_not_mixed_with_those_of_all_rows() -> None:
    rollup, replicas = split(everything())
    series = [*rollup, *replicas]
    segments = [ts._replace(names={**ts.names, "segment_name": "land", "segment_value": "at"}) for ts in series]
    with_segments = split([*segments, *series])
    assert views.model_panels(*with_segments, rollup, 10) == views.model_panels(rollup, replicas, rollup, 10)
    assert views.mover_table(rank_movers(with_segments[0])) == views.mover_table(rank_movers(rollup))


# --- states --------------------------------------------------------------------------------------------------------


def state_of(overview: Overview, wall: float, agent: str = "") -> str:
    (entry,) = overview.view(wall)
    return str(
        entry["state"] if not agent else next(each["state"] for each in entry["agents"] if each["agent"] == agent)
    )


def test_states_by_what_the_newest_windows_say() -> None:
    overview = Overview()
    for i in range(10):
        overview.record(window(i, 10 * i), 10.0 * i)
    assert state_of(overview, 100.0) == "ok"
    assert state_of(overview, 90 + 25 + 16.0) == "silent"
    overview.record(window(10, 100, lost=7), 100.0)
    assert (state_of(overview, 101.0), state_of(overview, 101.0, "a")) == ("degraded", "degraded")
    overview.record(window(11, 110, confidence=0.4), 110.0)
    assert state_of(overview, 111.0) == "drifting"
    overview.record(window(12, 120), 120.0)
    assert state_of(overview, 121.0) == "ok"
    (entry,) = overview.view(121.0)
    assert entry["lost"] == 14
    assert entry["loss"] == pytest.approx(14 / (13 * 200 + 14))


def test_an_agent_that_stops_is_silent_while_the_model_is_not() -> None:
    overview = Overview()
    overview.record(window(1, 0), 0.0)
    for i in range(1, 8):
        overview.record(window(1 + i, 10 * i, agents=("a",)), 10.0 * i)
    assert (state_of(overview, 71.0), state_of(overview, 71.0, "b")) == ("ok", "silent")


def test_pods_and_versions_of_long_ago_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zmon_collector.dashboard.overview.MODELS", 3)
    overview = Overview()
    for i in range(20):
        overview.record(window(i, 86_400 * i, agents=(f"pod-{i}",)), 86_400.0 * i)
        overview.record(Report(i, "m", f"v{i}", Window(0, 10), []), 86_400.0 * i)
    kept = overview.view(0.0)  # at that time nothing of it is old
    assert len(kept) == 3
    assert [agent["agent"] for entry in kept for agent in entry["agents"]] == ["pod-19"]


def test_a_report_of_counts_alone_adds_to_its_window() -> None:
    overview = Overview()
    overview.record(window(1, 0), 0.0)
    overview.record(Report(2, "m", "", Window(0, 10), [Point("a", Value("rows_lost", 5))]), 1.0)
    (entry,) = overview.view(2.0)
    assert (entry["rows"], entry["lost"], entry["state"]) == (200, 5, "degraded")


# --- series of plugins ---------------------------------------------------------------------------------------------


def of_plugin(what: str, **names: str) -> TimeSeries:
    return TimeSeries({"what": what, "model": "m", **names}, np.arange(3) * 10, np.arange(3.0))


def charts(
    series: list[TimeSeries], replicas: list[TimeSeries] | None = None, declared: Declarations | None = None
) -> dict[str, views.Panel]:
    made = views.model_panels(series, replicas or [], [], 10, declared=declared)
    return {panel["id"]: panel for panel in made if panel["id"].startswith("plugin")}


def traces(panel: views.Panel) -> list[str]:
    return [trace["name"] for trace in panel["figure"]["data"]]


def test_no_built_in_series_is_taken_for_a_plugins() -> None:
    assert charts(*split(everything())) == {}


def test_a_plugins_measure_gets_a_chart_of_its_classes_and_features() -> None:
    shown = charts(
        [
            of_plugin("lift"),
            *(of_plugin("odds", class_name=name) for name in ("no", "yes")),
            *(of_plugin("gap", feat_name=name, stat=stat) for name in ("age", "pay") for stat in ("mean", "q95")),
            *(of_plugin("width", stat=stat) for stat in ("mean", "q25", "q75")),
            of_plugin("odds", class_name="no", segment_name="country", segment_value="at"),
        ],
        declared={"lift": Declaration("uplift", "mean outcome over that of everybody")},
    )
    assert list(shown) == ["plugin:gap", "plugin:lift", "plugin:odds", "plugin:width"]
    assert (shown["plugin:lift"]["title"], shown["plugin:lift"]["note"]) == (
        "uplift: lift",
        "mean outcome over that of everybody",
    )
    assert (shown["plugin:odds"]["title"], shown["plugin:odds"]["what"]) == ("odds", "odds")
    assert traces(shown["plugin:odds"]) == ["no", "yes"]
    assert traces(shown["plugin:gap"]) == ["age", "pay"], "the means"
    assert traces(shown["plugin:width"]) == ["middle half from", "middle half", "mean"]


def test_a_measure_that_only_replicas_have_is_drawn_by_replica() -> None:
    shown = charts(
        [of_plugin("lift")], [of_plugin("lift", agent_id="a"), *(of_plugin("own", agent_id=a) for a in "ab")]
    )
    assert traces(shown["plugin:lift"]) == ["value"]
    assert traces(shown["plugin:own"]) == ["a", "b"]


def test_charts_and_lines_of_plugins_are_bounded() -> None:
    shown = charts([of_plugin(f"m{i:03}", feat_name=f"f{k}") for i in range(30) for k in range(20)])
    assert len(shown) == views.MOST_PLUGIN_CHARTS + 1
    assert len(traces(shown["plugin:m000"])) == views.MOST_PLUGIN_LINES
    assert "10 of 20 series" in shown["plugin:m000"]["note"]
    assert "search" in shown["plugin_further"]["empty"]


def test_a_measure_without_values_says_so() -> None:
    (panel,) = charts([TimeSeries({"what": "lift"}, np.empty(0, dtype=np.int64), np.empty(0))]).values()
    assert panel["figure"] is None
    assert "No values" in panel["empty"]
