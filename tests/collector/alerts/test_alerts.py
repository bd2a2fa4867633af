"""Alerts: what opens, holds and closes them; who is told, once; the default rules on the demonstration's data."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import numpy as np
import pytest
from zmon_collector.alerts.notifier import Answer, NotificationQueues, Notifier, message_of, request_body
from zmon_collector.alerts.rule_matching import AGENT_FORGOTTEN
from zmon_collector.alerts.rules import AlertEvent, AlertTracker
from zmon_collector.alerts.worker import AlertWorker
from zmon_collector.config import Config
from zmon_collector.config.alerting import DEFAULTS, AlertRule, NotifySection, rules
from zmon_collector.config.sections import WebSection
from zmon_collector.jobs.demo.replica import Traffic
from zmon_collector.telemetry import Telemetry

from tests.support.collectors import Collector
from tests.support.databases import stored
from tests.support.ports import free_port
from tests.support.waiting import until
from zmon import Point, Report, RowCounts, Value, Window
from zmon.state import pack_state, unpack_state

MINUTE = 60


class Feed:
    """Windows of one model, one after the other."""

    def __init__(self, *given: AlertRule) -> None:
        self.alerts = AlertTracker(given)
        self.number = 0

    def window(
        self,
        *values: Value | Point,
        rows: int = 500,
        lost: int = 0,
        model: str = "m",
        version: str = "",
        wall: float | None = None,
        **agents: int,
    ) -> list[AlertEvent]:
        self.number += 1
        counts = {name: RowCounts(many) for name, many in agents.items()} or {"pod": RowCounts(rows, lost=lost)}
        points = [each if isinstance(each, Point) else Point(None, each) for each in values]
        start = self.number * MINUTE
        return self.alerts.evaluate(
            Report(self.number, model, version, Window(start, start + MINUTE), points, counts),
            float(start) if wall is None else wall,
        )

    def run(self, values: Sequence[float | None], **options: Any) -> str:
        """What each window did: O opened, C closed, o still open, a dot for nothing. None: a window of few rows."""
        said = ""
        for value in values:
            few = {"rows": 5} if value is None else {}
            events = self.window(Value("accuracy", 0.0 if value is None else value), **{**options, **few})
            kinds = [each.kind for each in events]
            said += "O" if kinds == ["opened"] else "C" if kinds == ["closed"] else "o" if self.alerts.open() else "."
            assert len(kinds) <= 1
        return said


ABOVE = AlertRule("r", what="accuracy", above=0.5, windows=1, hysteresis=0.2)
BELOW = AlertRule("r", what="accuracy", below=0.5, windows=1, hysteresis=0.2)
GONE = AlertRule("gone", when="no_data")
CASES: dict[str, tuple[AlertRule, list[float | None], str]] = {
    "above": (ABOVE, [0.4, 0.5, 0.6, 0.7, 0.3, 0.3], "..OoC."),
    "below": (BELOW, [0.6, 0.5, 0.4, 0.3, 0.7, 0.7], "..OoC."),
    "hysteresis holds it open": (ABOVE, [0.6, 0.45, 0.41, 0.4, 0.45], "OooC."),
    "hysteresis from below": (BELOW, [0.4, 0.55, 0.59, 0.6, 0.55], "OooC."),
    "for two windows": (replace(ABOVE, windows=2), [0.6, 0.3, 0.6, 0.6, 0.3, 0.6, 0.3, 0.3], "...OoooC"),
    "for three windows": (replace(ABOVE, windows=3), [0.6, 0.6, 0.3, 0.6, 0.6, 0.6], ".....O"),
    "few rows change nothing": (ABOVE, [None, 0.6, None, 0.3, None], ".OoC."),
    "few rows do not break a run": (replace(BELOW, windows=2), [0.4, None, 0.4, None, 0.7, None, 0.7], "..OoooC"),
    "of another stat": (replace(ABOVE, stat="macro"), [0.9, 0.9], ".."),
    "of an agent": (replace(ABOVE, agent_id="pod"), [0.9, 0.9], ".."),
    "of another model": (replace(ABOVE, model="fraud*"), [0.9, 0.9], ".."),
    "sigma": (AlertRule("r", what="accuracy", sigma=4.0), [0.9, 0.91, 0.89, 0.9, 0.6, 0.6, 0.9, 0.9], "....OoC."),
    "sigma upwards": (AlertRule("r", what="accuracy", sigma=4.0), [0.5, 0.51, 0.5, 0.9, 0.5], "...OC"),
    "sigma learns from three windows": (AlertRule("r", what="accuracy", sigma=4.0), [0.9, 0.9, 0.1], "..."),
    "less than least": (AlertRule("r", what="accuracy", sigma=4.0, least=0.4), [0.9, 0.9, 0.9, 0.9, 0.6], "....."),
    "more than least": (AlertRule("r", what="accuracy", sigma=4.0, least=0.4), [0.9, 0.9, 0.9, 0.9, 0.4], "....O"),
    "what is beyond is not learnt": (
        AlertRule("r", what="accuracy", sigma=4.0, trailing=3),
        [0.9, 0.9, 0.9, *[0.3] * 20, 0.9],
        "...O" + "o" * 19 + "C",
    ),
    "what stays is the new normal": (
        AlertRule("r", what="accuracy", sigma=4.0), [0.9, 0.9, 0.9, *[0.3] * 66], "...O" + "o" * 62 + "C..",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("rule", "values", "said"), CASES.values(), ids=CASES.keys())
def test_open_hold_close(rule: AlertRule, values: list[float | None], said: str) -> None:
    assert Feed(rule).run(values) == said


def test_scores_of_few_labels_change_nothing() -> None:
    feed = Feed(BELOW)
    assert feed.window(Value("accuracy", 0.1), Value("label_coverage", 0.1)) == []
    assert (
        feed.window(
            Value("accuracy", 0.1), Value("label_coverage", 0.0), Value("late_label_count", 99, reason="joined")
        )
        == []
    )
    late = Value("late_label_count", 100, reason="joined")
    assert len(feed.window(Value("accuracy", 0.1), Value("label_coverage", 0.0), late)) == 1


def test_series_of_one_rule_are_one_alert() -> None:
    feed = Feed(AlertRule("drift", what="feature_drift", feat_name="*", stat="psi", above=0.25))

    def drifts(*values: float) -> list[AlertEvent]:
        return feed.window(
            *(Value("feature_drift", value, feat_name=f"f{i}", stat="psi") for i, value in enumerate(values))
        )

    assert drifts(0.1, 0.1, 0.1) == []
    (opened,) = drifts(0.9, 0.9, 0.1)
    assert opened.alert["members"].keys() == {"f0 psi", "f1 psi"}
    assert "f0 psi" in opened.alert["text"] and "and 1 further series" in opened.alert["text"]
    assert drifts(0.1, 0.9, 0.9) == []
    assert feed.alerts.open()[0]["members"].keys() == {"f1 psi", "f2 psi"}
    (closed,) = drifts(0.1, 0.1, 0.1)
    assert (closed.kind, closed.alert["id"]) == ("closed", opened.alert["id"])


def test_agents_are_named() -> None:
    feed = Feed(replace(BELOW, agent_id="*"))
    (opened,) = feed.window(Point("a", Value("accuracy", 0.9)), Point("b", Value("accuracy", 0.1)), a=200, b=200)
    assert list(opened.alert["members"]) == ["b"]


def test_loss() -> None:
    feed = Feed(AlertRule("loss", when="loss", above=0.01, min_rows=1))
    assert feed.window(lost=2) == []
    (opened,) = feed.window(lost=50)
    assert "50 of 550 rows were lost" in opened.alert["text"]
    assert [each.kind for each in feed.window()] == ["closed"]


def test_an_agent_falls_silent() -> None:
    feed = Feed(AlertRule("silent", when="silent", windows=2))
    for _ in range(3):
        assert feed.window(a=100, b=100) == []
    assert feed.window(a=100) == []
    (opened,) = feed.window(a=100)
    assert list(opened.alert["members"]) == ["b"]
    assert feed.window(a=100, b=100) == []
    assert [each.kind for each in feed.window(a=100, b=100)] == ["closed"]


def test_a_model_without_data() -> None:
    feed = Feed(AlertRule("gone", when="no_data", windows=3))
    feed.window()
    heard = float(MINUTE)
    assert feed.alerts.advance(heard + 4 * MINUTE + 29) == []
    (opened,) = feed.alerts.advance(heard + 4 * MINUTE + 31)
    assert feed.alerts.advance(heard + 9 * MINUTE) == []
    assert (opened.kind, opened.alert["model"]) == ("opened", "m")
    feed.window()
    assert [each.kind for each in feed.alerts.advance(2.0 * MINUTE)] == ["closed"]


def test_state_goes_on_after_a_restart_and_a_report_counts_once() -> None:
    feed = Feed(replace(BELOW, windows=2))
    assert feed.run([0.1]) == "."
    feed.alerts = AlertTracker([replace(BELOW, windows=2)], unpack_state(pack_state(feed.alerts.state())))
    feed.number -= 1
    assert feed.run([0.1, 0.1]) == ".O"
    feed.alerts = AlertTracker([replace(BELOW, windows=2)], unpack_state(pack_state(feed.alerts.state())))
    assert feed.run([0.1, 0.9, 0.9]) == "ooC"


EARLIER = {  # written by the zmon before keys were lists: an open alert of "m 2", and a model whose name holds a NUL
    "sequence": 7,
    "number": 1,
    "alerts": [
        {"id": 1, "rule": "r", "severity": "warning", "model": "m", "version": "2", "state": "firing", "since": 60,
         "until": None, "value": 0.1, "text": "r of m 2: 0.1, below 0.5", "members": {"": "0.1, below 0.5"}}
    ],
    "series": {"r\0m\x002\0": {"beyond": 3, "within": 0}, "r\0a\0b\0\0": {"beyond": 1, "within": 0}},
    "models": {"m\x002": {"agents": {"pod": [9, 0]}, "heard": 420.0, "period": 60, "start": 420},
               "a\0b\0": {"agents": {"pod": [9, 0]}, "heard": 420.0, "period": 60, "start": 420}},
}  # fmt: skip


def test_state_of_the_earlier_format_goes_on() -> None:
    feed = Feed()
    feed.alerts = AlertTracker([BELOW, GONE], unpack_state(pack_state(EARLIER)))
    feed.number = 7
    assert feed.alerts.advance(421.0) == []
    (closed,) = feed.window(Value("accuracy", 0.9), version="2")
    assert (closed.kind, closed.alert["id"]) == ("closed", 1)


def test_names_may_hold_anything() -> None:
    feed = Feed(BELOW, GONE)
    (opened,) = feed.window(Value("accuracy", 0.1), model="a\0b", version="c\0d")
    assert (opened.alert["model"], opened.alert["version"]) == ("a\0b", "c\0d")
    feed.alerts = AlertTracker([BELOW, GONE], unpack_state(pack_state(feed.alerts.state())))
    feed.alerts.advance(float(MINUTE))
    gone = feed.alerts.advance(10.0 * MINUTE)
    assert [(each.kind, each.alert["model"]) for each in gone] == [("opened", "a\0b")]


def test_other_rules_keep_the_state_of_those_that_stay() -> None:
    feed = Feed(BELOW, replace(BELOW, name="gone"))
    feed.window(Value("accuracy", 0.1))
    (closed,) = feed.alerts.replace_rules([replace(BELOW, below=0.6)], 1000.0)
    assert (closed.alert["rule"], closed.kind) == ("gone", "closed")
    assert [each["rule"] for each in feed.alerts.open()] == ["r"]
    assert feed.run([0.1, 0.9]) == "oC"


def test_a_rule_that_went_while_nothing_ran_closes_its_alert_and_says_so() -> None:
    feed = Feed(BELOW)
    feed.window(Value("accuracy", 0.1))
    feed.alerts = AlertTracker([GONE], unpack_state(pack_state(feed.alerts.state())))
    (closed,) = feed.alerts.replace_rules([GONE], 1000.0)
    assert (closed.kind, closed.alert["until"], closed.alert["why"]) == ("closed", 1000, "its rule is gone")


def test_default_rules_are_replaced_by_name() -> None:
    assert rules(()) == DEFAULTS
    own = AlertRule("confidence", what="max_prediction_proba", stat="mean", below=0.5)
    assert [each for each in rules((own,)) if each.name == "confidence"] == [own]
    assert "loss" not in {each.name for each in rules((AlertRule("loss", enabled=False),))}


def test_false_alarms_of_the_default_rules() -> None:
    """Windows of 500 rows of a model that does not change: all seeds together, far below one in a hundred."""
    windows, opened = 0, 0
    for seed in range(5):
        random = np.random.default_rng(seed)
        feed = Feed(*DEFAULTS)
        for _ in range(1000):
            p = random.dirichlet((0.6, 0.4, 0.3), 500)
            right = random.random(500) < p.max(axis=1)
            events = feed.window(
                Value("max_prediction_proba", float(p.max(axis=1).mean()), stat="mean"),
                Value("accuracy", float(right.mean())),
                Value("label_coverage", 1.0),
                Value("drifted_feature_freq", float((random.random(20) < 0.01).mean())),
            )
            windows += 1
            opened += sum(each.kind == "opened" for each in events)
    print(f"default alerts opened in {opened} of {windows} stationary windows: {opened / windows:.4%}")
    assert opened / windows < 0.01


# --- what gives nothing for long -----------------------------------------------------------------------------------

WORSE, BETTER = Value("accuracy", 0.1), Value("accuracy", 0.9)


def test_the_alert_of_a_canary_that_was_rolled_back_closes() -> None:
    feed = Feed(BELOW)
    feed.window(BETTER, version="1")
    (opened,) = feed.window(WORSE, version="2")
    for _ in range(59):
        assert feed.window(BETTER, version="1") == []
    (closed,) = feed.window(BETTER, version="1")
    assert (closed.kind, closed.alert["id"]) == ("closed", opened.alert["id"])
    assert (closed.alert["why"], closed.alert["until"]) == ("no more data", 62 * MINUTE)
    (again,) = feed.window(WORSE, version="2")
    assert (again.kind, again.alert["id"]) == ("opened", 2)


def test_a_canary_that_goes_on_stays() -> None:
    feed = Feed(BELOW)
    feed.window(WORSE, version="2")
    for _ in range(300):
        assert feed.window(BETTER, version="1") == feed.window(WORSE, version="2") == []


def test_another_model_and_the_clock_alone_close_nothing() -> None:
    feed = Feed(BELOW)
    feed.window(WORSE)
    for _ in range(300):
        assert feed.window(BETTER, model="other") == []
    assert feed.alerts.advance(400.0 * MINUTE) == []


@pytest.mark.parametrize(
    "few",
    [
        {"rows": 5},
        {"rows": 500, "values": [Value("label_coverage", 0.0)]},
        {"rows": 500, "values": [WORSE, Value("label_coverage", 0.01)]},
        {"rows": 5, "values": [BETTER]},
    ],
    ids=["few rows", "no labels", "few labels", "few rows with a value"],
)
def test_windows_of_few_rows_close_nothing(few: dict[str, Any]) -> None:
    feed = Feed(BELOW)
    feed.window(WORSE, version="2")
    for _ in range(300):
        assert feed.window(*few.get("values", []), rows=few["rows"], version="2") == []
        assert feed.window(BETTER, version="1") == []


def test_a_series_that_ends_leaves_its_alert() -> None:
    feed = Feed(AlertRule("drift", what="feature_drift", feat_name="*", stat="psi", above=0.25))
    a, b = (Value("feature_drift", 0.9, feat_name=name, stat="psi") for name in "ab")
    feed.window(a, b)
    for _ in range(59):
        assert feed.window(a) == []
    assert feed.alerts.open()[0]["members"].keys() == {"a psi", "b psi"}
    assert feed.window(a) == []
    assert feed.alerts.open()[0]["members"].keys() == {"a psi"}
    assert [event.alert["why"] for _ in range(60) for event in feed.window()] == ["no more data"]


def test_an_agent_that_ends_leaves_its_alert() -> None:
    feed = Feed(replace(BELOW, agent_id="*"))
    feed.window(Point("a", WORSE), a=200, b=200)
    closed = [(n, event.alert["why"]) for n in range(1, 100) for event in feed.window(Point("b", BETTER), b=200)]
    assert closed == [(60, "no more data")]
    feed.window(Point("a", WORSE), a=200, b=200)
    for _ in range(300):
        assert feed.window(Point("b", BETTER), a=3, b=200) == [], "it sends, though little"


def test_windows_of_an_hour_need_ten() -> None:
    feed = Feed(BELOW)
    feed.window(WORSE, version="2")
    closed = [(n, event.kind) for n in range(1, 30) for event in feed.window(BETTER, version="1", wall=n * 3600.0)]
    assert closed == [(10, "closed")]


def test_an_agent_that_is_forgotten_is_no_longer_silent() -> None:
    feed = Feed(AlertRule("silent", when="silent"))
    for _ in range(3):
        feed.window(a=10, b=10)
    assert [event.kind for event in feed.window(a=10)] == ["opened"]
    closed = [(n, event.alert["why"]) for n in range(2, 2000) for event in feed.window(a=10)]
    assert closed == [(AGENT_FORGOTTEN + 1, "no more data")]


def test_an_hour_without_the_collector_closes_and_opens_nothing() -> None:
    """Windows that waited come at once; the agents of one version are back later than those of the other."""
    feed = Feed(BELOW, GONE)
    feed.window(BETTER, version="1")
    feed.window(WORSE, version="2")
    feed.alerts = AlertTracker([BELOW, GONE], unpack_state(pack_state(feed.alerts.state())))
    back = 3600.0 + 2 * MINUTE
    for n in range(60):
        assert feed.window(BETTER, version="1", wall=back + n / 60) == []
    assert feed.alerts.advance(back + 60) == []
    assert feed.window(WORSE, version="2", wall=back + 70) == []
    assert len(feed.alerts.open()) == 1


def test_members_of_the_earlier_state_are_given_their_time() -> None:
    feed = Feed()
    feed.alerts = AlertTracker([BELOW], unpack_state(pack_state(EARLIER)))
    feed.number = 100
    closed = [(n, event.alert["why"]) for n in range(1, 100) for event in feed.window(BETTER, version="1")]
    assert closed == [(61, "no more data")]


DAY = 86400.0


def test_a_model_that_gives_nothing_for_long_is_forgotten_with_its_alerts() -> None:
    feed = Feed(BELOW, GONE)
    feed.window(WORSE, wall=0.0)
    feed.window(lost=5, rows=0, model="only lost", wall=0.0)
    feed.window(BETTER, model="other", wall=4 * DAY)
    assert [each.alert["rule"] for each in feed.alerts.advance(4 * DAY)] == ["gone"]
    assert [each.alert["model"] for each in feed.alerts.advance(8 * DAY)] == ["other"]
    closed = feed.alerts.advance(8 * DAY + 1)
    assert [(each.kind, each.alert["rule"], each.alert["why"]) for each in closed] == [
        ("closed", "r", "no more data"), ("closed", "gone", "no more data")
    ]  # fmt: skip
    state = feed.alerts.state()
    assert [each[0] for each in state["models"]] == ["other"]
    assert {each[1] for each in state["series"]} == {"other"}
    (opened,) = feed.window(WORSE, wall=9 * DAY)
    assert opened.alert["model"] == "m"


def test_a_model_of_once_a_week_goes_on_and_time_without_the_collector_is_not_counted() -> None:
    feed = Feed(BELOW)
    feed.window(WORSE, wall=0.0)
    assert feed.alerts.advance(7.5 * DAY) == []
    feed.alerts = AlertTracker([BELOW], unpack_state(pack_state(feed.alerts.state())))
    assert feed.alerts.advance(100 * DAY) == []
    assert [each.kind for each in feed.window(BETTER, wall=100.4 * DAY)] == ["closed"]


def test_models_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zmon_collector.alerts.rules.MODELS", 3)
    feed = Feed(BELOW)
    for model in "abca":
        feed.window(WORSE, model=model)
    (closed, opened) = feed.window(WORSE, model="d")
    assert (closed.kind, closed.alert["model"], closed.alert["why"]) == ("closed", "b", "no more data")
    assert (opened.kind, opened.alert["model"]) == ("opened", "d")
    assert [each[0] for each in feed.alerts.state()["models"]] == ["c", "a", "d"]


# --- who is told --------------------------------------------------------------------------------------------------


def event(number: int, kind: str = "opened") -> AlertEvent:
    alert = {"id": number, "rule": "r", "severity": "warning", "model": "a&b", "version": "2", "state": "firing",
             "since": 0, "until": None, "value": 1.0, "text": "r of a&b <2>", "members": {}}  # fmt: skip
    return AlertEvent(kind, alert)


def test_a_webhook_that_is_down_for_an_hour_gets_every_alert_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", "http://127.0.0.1:1/")
    clock, got, tries = 0.0, [], 0
    notifications = NotificationQueues({"ops": NotifySection(url_env="HOOK")})

    def send(target: NotifySection, content: Any) -> Answer:
        nonlocal tries
        tries += 1
        if clock < 3600:
            if tries % 2:
                raise OSError(f"{target.url} refused")
            return Answer(503)
        got.append(content["key"])
        return Answer(200)

    saved: list[dict[str, Any]] = []
    sender = Notifier(notifications, threading.Lock(), lambda: saved.append({}), Telemetry(), send)
    expected = []
    while clock < 4200:
        if clock % 600 == 0:
            for kind in ("opened", "closed"):
                message = message_of(event(int(clock), kind), "store")
                notifications.enqueue(message)
                expected.append(message["key"])
        for thread in sender.turn(clock):
            thread.join()
        if clock == 1800:  # the collector is restarted meanwhile
            waiting, notifications = notifications.queues["ops"], NotificationQueues(notifications.targets)
            for each in waiting:
                notifications.restore("ops", *each)
            sender = Notifier(notifications, threading.Lock(), lambda: saved.append({}), Telemetry(), send)
        clock += 1
    assert got == expected
    assert tries < 60 + len(expected), "it waits longer and longer"
    assert not any(notifications.queues.values())


def test_severity_decides_which_targets_are_notified() -> None:
    notifications = NotificationQueues({"all": NotifySection(), "night": NotifySection(min_severity="critical")})
    notifications.enqueue(message_of(event(1), "x"))
    assert {name: len(queue) for name, queue in notifications.queues.items()} == {"all": 1, "night": 0}


def test_formats() -> None:
    message = message_of(event(7), "store")
    assert request_body("webhook", message, "http://page:8787/") == {
        **message, "page": "http://page:8787/#/model?model=a%26b&version=2"
    }  # fmt: skip
    slack = request_body("slack", message, "http://page:8787")
    assert slack["text"] == (
        ":rotating_light: *warning* opened: r of a&amp;b &lt;2&gt; "
        "<http://page:8787/#/model?model=a%26b&version=2|live page>"
    )
    closed = message_of(AlertEvent("closed", {**event(7).alert, "why": "no more data"}), "store")
    assert request_body("slack", closed, "")["text"].endswith("r of a&amp;b &lt;2&gt; (no more data)")
    assert request_body("webhook", closed, "")["why"] == "no more data"
    assert (
        json.dumps(request_body("webhook", message, ""))
        and "live page" not in request_body("slack", message, "")["text"]
    )


@contextmanager
def hook() -> Iterator[tuple[str, list[Any]]]:
    """A webhook on loopback, and what it got."""
    got: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/secret", got
    finally:
        server.shutdown()
        server.server_close()


# --- the demonstration's data, through a collector -----------------------------------------------------------------

PERIOD, WINDOWS, LENGTH = 10, 30, 8


@pytest.fixture(scope="module")
def served() -> Callable[[bool], tuple[Any, Any]]:
    """Probabilities and labels of some hundred digits, as they are or inverted."""
    traffic = Traffic(0)
    pools = {}
    for inverted in (False, True):
        images, labels = zip(*(traffic.batch(inverted=inverted) for _ in range(150)), strict=True)
        pools[inverted] = traffic.model.predict_proba(np.vstack(images)), np.concatenate(labels)
    random = np.random.default_rng(1)

    def draw(inverted: bool) -> tuple[Any, Any]:
        p, labels = pools[inverted]
        rows = random.integers(0, len(p), 400)
        return p[rows], labels[rows]

    return draw


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("first", [None, 3, 11, 20])
def test_the_inversion_of_the_digits(
    first: int | None, labelled: bool, served: Callable[[bool], tuple[Any, Any]], collect: Callable[..., Collector]
) -> None:
    inverted = range(0) if first is None else range(first, first + LENGTH)
    collector = collect(window=PERIOD, config=Config(web=WebSection(enabled=False)))
    with collector.publisher("digits", classes=10) as publisher:
        for window in range(WINDOWS):
            p, labels = served(window in inverted)
            publisher.publish(p, labels=labels if labelled else None, timestamps=1_700_000_000.0 + window * PERIOD)
        assert publisher.flush(60)
    collector.stop()
    found = collector.service.alert_worker.entries()
    assert bool(found) == (first is not None), found
    for alert in found:
        opened, closed = ((alert[each] - 1_700_000_000) // PERIOD for each in ("since", "until"))
        assert inverted.start <= opened < inverted.start + 2, alert
        assert inverted.stop <= closed < inverted.stop + 2, alert
    rules_that_spoke = {alert["rule"] for alert in found}
    assert rules_that_spoke == (set() if first is None else {"confidence", "accuracy"} if labelled else {"confidence"})


def test_alerts_are_sent_and_kept(
    served: Callable[[bool], tuple[Any, Any]], collect: Callable[..., Collector], monkeypatch: pytest.MonkeyPatch
) -> None:
    with hook() as (url, got):
        monkeypatch.setenv("HOOK", url)
        notify = {"ops": NotifySection(url_env="HOOK"), "chat": NotifySection(kind="slack", url_env="HOOK")}
        config = Config(web=WebSection(enabled=False), notify=notify)
        collector = collect(window=PERIOD, idle=1.0, config=config)
        with collector.publisher("digits", classes=10) as publisher:
            for window in range(8):
                publisher.publish(served(window > 4)[0], timestamps=1_700_000_000.0 + window * PERIOD)
            assert publisher.flush(60)
            until(lambda: len(got) == 2, what="both targets were told")
        collector.stop()
        assert {each.get("event") or each["text"].split(":")[1] for each in got} == {"opened", "rotating_light"}
        again = collect(window=PERIOD, idle=1.0, config=config)
        assert [each["state"] for each in again.service.live.alerts()] == ["firing"]
        with again.publisher("digits", classes=10) as publisher:
            for window in range(8, 11):
                publisher.publish(served(False)[0], timestamps=1_700_000_000.0 + window * PERIOD)
            assert publisher.flush(60)
            until(lambda: len(got) == 4, what="both targets were told of its end")
        again.stop()
        assert [each["state"] for each in again.service.live.alerts()] == ["closed"]
        assert len(got) == 4
        assert stored(again.folder, "SELECT count(*) FROM alert_entries") == [(1,)]
        assert stored(again.folder, "SELECT count(*) FROM alert_messages") == [(0,)]


def test_what_could_not_be_sent_is_sent_once_after_a_restart(
    served: Callable[[bool], tuple[Any, Any]], collect: Callable[..., Collector], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(web=WebSection(enabled=False), notify={"ops": NotifySection(url_env="HOOK")})
    monkeypatch.setenv("HOOK", f"http://127.0.0.1:{free_port()}/nobody")
    collector = collect(window=PERIOD, idle=1.0, config=config)
    with collector.publisher("digits", classes=10) as publisher:
        for window in range(8):
            publisher.publish(served(window > 4)[0], timestamps=1_700_000_000.0 + window * PERIOD)
        assert publisher.flush(60)
        until(lambda: collector.service.telemetry.snapshot().get("alert_errors{ops}"), what="a try that failed")
    collector.stop()
    with hook() as (url, got):
        monkeypatch.setenv("HOOK", url)
        again = collect(window=PERIOD, idle=1.0, config=config)
        until(lambda: got, what="the alert of the last run")
        again.stop()
        collect(window=PERIOD, idle=1.0, config=config).stop()
        assert [each["event"] for each in got] == ["opened"]


def test_a_reload_changes_rules_and_keeps_what_is_open(
    served: Callable[[bool], tuple[Any, Any]], collect: Callable[..., Collector]
) -> None:
    config = Config(web=WebSection(enabled=False), alerts=(AlertRule("low", what="accuracy", below=0.99),))
    collector = collect(window=PERIOD, config=config)
    p, labels = served(True)
    with collector.publisher("digits", classes=10) as publisher:
        for window in range(3):
            publisher.publish(p, labels=labels, timestamps=1_700_000_000.0 + window * PERIOD)
        publisher.flush(20)
        entries = collector.service.alert_worker.entries
        until(lambda: entries(), what="an alert")
        collector.service.alert_worker.reload(replace(config, alerts=(AlertRule("low", what="accuracy", below=0.98),)))
        assert [each["state"] for each in entries()] == ["firing"]
        collector.service.alert_worker.reload(replace(config, alerts=()))
        assert [(each["state"], each["why"]) for each in entries()] == [("closed", "its rule is gone")]


# --- the alerts' thread --------------------------------------------------------------------------------------------


class Reports:
    """An outbox that gives one report after the other without a pause, and a store that keeps nothing."""

    def __init__(self, many: int) -> None:
        self.left, self.read = many, list[int]()

    def wait_for_next(self, reader: str, timeout: float) -> Report | None:
        time.sleep(0.001)
        number = len(self.read) + 1
        return None if self.ended else Report(number, f"m{number}", "", Window(0, MINUTE), [], {"pod": RowCounts(9)})

    def mark_done(self, reader: str, sequence: int) -> None:
        self.read.append(sequence)

    @property
    def ended(self) -> bool:
        return len(self.read) >= self.left

    def submit(self, work: Any) -> None:
        pass


def alerting_of(reports: Any, telemetry: Telemetry | None = None) -> AlertWorker:
    return AlertWorker(Config(), reports, reports, telemetry or Telemetry())


def test_a_report_on_which_the_rules_fail_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reports, telemetry = Reports(20), Telemetry()
    alerting = alerting_of(reports, telemetry)
    take, taken = AlertTracker.evaluate, []

    def fails(self: AlertTracker, report: Report, wall: float) -> list[AlertEvent]:
        if report.sequence % 5 == 0:
            raise RuntimeError(f"of {report.model}")
        taken.append(report.sequence)
        return take(self, report, wall)

    monkeypatch.setattr(AlertTracker, "evaluate", fails)
    alerting.start()
    assert alerting.join(60)
    assert reports.read == list(range(1, 21)), "nothing waits behind it"
    assert taken == [each for each in range(1, 21) if each % 5]
    assert telemetry.get("alerts_failed", "RuntimeError") == 4
    assert (alerting.state, alerting.error) == ("failing", "RuntimeError: of m20")
    assert alerting.problem() == "alert rules fail on reports, which are skipped: RuntimeError: of m20"
    assert len([each for each in caplog.records if each.exc_info]) == 1, "the log has one, however many there are"


def test_a_reader_that_failed_is_well_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zmon_collector.delivery.dispatch.FAILING", 0.0)
    telemetry = Telemetry()
    alerting = alerting_of(Reports(3), telemetry)
    monkeypatch.setattr(alerting, "_read", iter_of(ValueError("once"), True, True))
    alerting.start()
    assert alerting.join(60)
    assert (alerting.state, alerting.error) == ("ok", "")
    assert telemetry.get("alerts_failed") == 1


def iter_of(*answers: Any) -> Callable[[Any], Any]:
    """Gives one answer after the other; raises those that are errors."""
    left = iter(answers)

    def call(_: Any) -> Any:
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return call


def test_models_without_data_are_looked_for_while_others_give_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zmon_collector.alerts.worker.TICK", 0.02)
    ticks: list[float] = []
    monkeypatch.setattr(AlertTracker, "advance", lambda self, wall: ticks.append(wall) or [])
    alerting = alerting_of(Reports(100))
    alerting.start()
    assert alerting.join(60)
    assert len(ticks) >= 2
