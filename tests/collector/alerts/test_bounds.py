"""Many models, series and alerts: what has no room is left out and said, and never in the way of what has."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from zmon_collector.alerts import alert_list, series_state
from zmon_collector.alerts.alert_list import AlertList
from zmon_collector.alerts.rules import AlertEvent, AlertTracker
from zmon_collector.alerts.series_state import SeriesStates
from zmon_collector.config.alerting import AlertRule

from zmon import Point, Report, RowCounts, Value, Window
from zmon.state import pack_state, unpack_state

DRIFT = AlertRule("drift", what="feature_drift", feat_name="*", stat="psi", above=0.25, windows=2)
LEARNT = AlertRule("learnt", what="feature_value", feat_name="*", stat="mean", sigma=4.0, least=0.1, windows=2)
GONE = AlertRule("gone", when="no_data")


class Models:
    """Models that give windows in turns, each with values of the same features."""

    def __init__(self, *rules: AlertRule, features: int) -> None:
        self.tracker = AlertTracker(rules)
        self.features = features
        self.sequence = 0

    def window(self, model: str, value: float, number: int) -> list[AlertEvent]:
        self.sequence += 1
        points = [
            Point(None, each)
            for i in range(self.features)
            for each in (
                Value("feature_drift", value, feat_name=f"f{i}", stat="psi"),
                Value("feature_value", value, feat_name=f"f{i}", stat="mean"),
            )
        ]
        window = Window(60 * number, 60 * number + 60)
        return self.tracker.evaluate(
            Report(self.sequence, model, "", window, points, {"pod": RowCounts(500)}), float(window.end)
        )

    def windows(self, models: Iterable[str], value: float, numbers: Iterable[int]) -> list[str]:
        """Give windows in turns; return the models whose alert opened."""
        return [
            event.alert["model"]
            for number in numbers
            for model in models
            for event in self.window(model, value, number)
            if event.kind == "opened"
        ]


def test_series_within_their_bounds_need_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series_state, "SERIES", 10)
    feed, names = Models(DRIFT, features=5), [f"m{i}" for i in range(50)]
    assert feed.windows(names, 0.1, range(3)) == []
    assert feed.windows(names[7:8], 0.9, range(3, 5)) == ["m7"]
    assert not feed.tracker.left_out
    assert len(feed.tracker.state()["series"]) == 5
    feed.windows(names[7:8], 0.1, range(5, 8))
    assert feed.tracker.open() == []
    assert feed.tracker.state()["series"] == []


def test_every_model_is_watched_by_default() -> None:
    """210 models with a hundred series each, which all move at once."""
    feed, names = Models(DRIFT, features=100), [f"m{i}" for i in range(210)]
    assert feed.windows(names, 0.9, range(2)) == names
    assert len(feed.tracker.open()) == 210
    assert feed.windows(names, 0.9, range(2, 4)) == [], "none opens a second time"
    assert not feed.tracker.left_out


@pytest.mark.parametrize("rule", [DRIFT, LEARNT], ids=["bound", "learnt"])
def test_models_beyond_the_bound_displace_none_that_gives_windows(
    rule: AlertRule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(series_state, "SERIES", 40)
    feed, names = Models(rule, features=10), [f"m{i}" for i in range(6)]
    feed.windows(names, 0.1, range(5))
    assert feed.windows(names, 0.9, range(5, 8)) == names[:4]
    assert feed.tracker.left_out == {("m4", ""): 10, ("m5", ""): 10}
    later = feed.windows(names[2:], 0.9, range(8, 14))  # m0 and m1 are silent
    if rule is LEARNT:  # what is usual must be learnt first
        assert later == []
        later = feed.windows(names[2:], 0.1, range(14, 17))
    assert later == ["m4", "m5"]
    assert not feed.tracker.left_out


def test_a_new_version_takes_the_place_of_one_that_went(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series_state, "SERIES", 10)
    feed = Models(DRIFT, features=10)
    for i in range(20):
        assert feed.windows([f"m{i}"], 0.9, range(3 * i, 3 * i + 3)) == [f"m{i}"]
    assert len(feed.tracker.state()["series"]) == 10


def test_a_series_that_never_comes_again_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series_state, "UNUSED", 5)
    tracker = AlertTracker([AlertRule("pods", what="accuracy", agent_id="*", sigma=4.0)])
    for number in range(100):
        window = Window(60 * number, 60 * number + 60)
        points = [Point(f"pod-{number // 2}", Value("accuracy", 0.9)), Point("stays", Value("accuracy", 0.9))]
        rows = {f"pod-{number // 2}": RowCounts(500), "stays": RowCounts(500)}
        tracker.evaluate(Report(number + 1, "m", "", window, points, rows), float(window.end))
    members = {each[3] for each in tracker.state()["series"]}
    assert members == {"stays", "pod-49", "pod-48", "pod-47"}


def test_states_are_counted_right_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series_state, "SERIES", 15)
    monkeypatch.setattr(series_state, "UNUSED", 4)
    chance, states = random.Random(1), SeriesStates()
    for number in range(3000):
        model = (f"m{chance.randint(0, 6)}", "")
        action = chance.random()
        if action < 0.8:
            states.begin(model, 60 * number)
            for _ in range(chance.randint(0, 6)):
                states.get(f"r{chance.randint(0, 1)}", model, str(chance.randint(0, 4)))
            states.end(model, 60)
        elif action < 0.9:
            states.drop("r0", model, str(chance.randint(0, 4)))
        elif action < 0.95:
            states.forget(model)
        else:
            states.keep_rules([f"r{chance.randint(0, 1)}"])
        kept = list(states.all())
        assert len(kept) <= 15
        again = SeriesStates(kept)
        assert list(again.all()) == kept
        for i in range(20):
            again.get("r", ("new", ""), str(i))
        assert again.left_out.get(("new", ""), 0) == 5 + len(kept), "as much room as there must be"


def test_open_alerts_are_bounded_and_keep_their_closing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alert_list, "OPEN", 3)
    monkeypatch.setattr(alert_list, "KEPT", 2)
    feed, names = Models(DRIFT, features=1), [f"m{i}" for i in range(5)]
    assert feed.windows(names, 0.9, range(2)) == names[:3]
    assert feed.tracker.refused == 2
    feed.windows(names[:1], 0.1, range(2, 5))
    assert [alert["state"] for alert in feed.tracker.alerts] == ["closed", "firing", "firing"]
    assert feed.windows(names, 0.9, range(5, 6)) == ["m3"], "there is room for one"
    feed.windows(names, 0.1, range(6, 9))
    assert [(alert["model"], alert["state"]) for alert in feed.tracker.alerts] == [("m2", "closed"), ("m3", "closed")]
    assert not feed.tracker.open()


def test_more_alerts_than_were_ever_kept_stay_open_over_a_restart() -> None:
    feed, names = Models(DRIFT, features=1), [f"m{i}" for i in range(alert_list.KEPT + 50)]
    assert feed.windows(names, 0.9, range(2)) == names
    feed.tracker = AlertTracker([DRIFT], unpack_state(pack_state(feed.tracker.state())))
    assert feed.windows(names, 0.9, range(2, 4)) == []
    assert len(feed.tracker.open()) == len(names)


def test_numbers_of_alerts_are_never_used_again() -> None:
    kept = [{"id": 7, "model": "m", "version": "", "rule": "drift", "state": "closed", "members": {}}]
    feed = Models(DRIFT, features=1)
    feed.tracker = AlertTracker([DRIFT], {"alerts": kept})  # what else was kept is damaged
    feed.windows(["m"], 0.9, range(2))
    assert [alert["id"] for alert in feed.tracker.alerts] == [7, 8]
    assert AlertList(kept).newest_id == 7


def test_what_rules_remember_goes_with_the_model() -> None:
    feed = Models(DRIFT, LEARNT, GONE, features=10)
    for i in range(30):
        feed.windows([f"m{i}"], 0.9, range(3))
    feed.tracker.advance(1e4)
    feed.tracker.note_saved()
    closed = feed.tracker.advance(2e9)
    assert len(closed) == 60
    state = feed.tracker.state()
    assert (state["series"], state["models"]) == ([], [])
    changes = feed.tracker.changes()
    assert set(changes.models.values()) == {None}
    assert len(changes.models) == 30
