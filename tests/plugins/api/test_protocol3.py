"""Protocol 3.0 against the stand-in: schemas once, the bearer renewed in time, watermarks in order."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from zmon_plugins.anodot import LegalNames
from zmon_plugins.api.chunk_sender import SendingPaused
from zmon_plugins.api.protocol3 import MEASUREMENTS, POINT, refusal3, samples3, schema
from zmon_plugins.sinks.anodot import Anodot3, register_sinks

from tests.support.api_sinks import CLOCK, Ledger, all_of, deliver, report, target
from tests.support.standin import ACCESS_KEY, REFUSING, TOKEN, StandIn
from zmon.contract import Point, Report, Value, Window
from zmon.errors import ConfigurationError, RetryLater
from zmon.testing import check_sink, example_report

OLD = 1_000_000_020


@pytest.fixture
def api() -> Iterator[StandIn]:
    with StandIn() as server:
        yield server


def opened(api: StandIn, ledger: Ledger | None = None, **options: Any) -> Anodot3:
    sink = Anodot3(target(api, **options), TOKEN, ACCESS_KEY, lambda value: "minimal", clock=CLOCK, random=lambda: 0.0)
    if ledger is not None:
        sink.attach(ledger)
    sink.open()
    return sink


def test_the_sink_keeps_the_contract(api: StandIn) -> None:
    check_sink(opened(api))
    assert len(api.accepted) == 15
    assert [code for _, code in api.refused] == ["2021"] * 15, "the second example is of the same window: too late"


def test_a_window_that_closes_late_is_set_aside_and_moves_no_watermark(api: StandIn) -> None:
    ledger = Ledger()
    sink = opened(api, ledger)
    deliver(sink, report(5, 3))
    deliver(sink, Report(6, "m", "", report(2).window, report(2, 3).points))
    assert api.watermarks == {"schema-0": report(5).window.end}
    assert [each.code for each in ledger.refused] == ["2021"] * 3


def test_one_schema_a_model_and_version_and_a_watermark_a_window(api: StandIn) -> None:
    sink = opened(api, properties={"env": "prod"})
    for sequence in range(1, 4):
        deliver(sink, report(sequence, 5, "fraud"))
        deliver(sink, report(sequence + 100, 5, "other"))
    assert [each["name"] for each in api.schemas.values()] == ["zmon fraud", "zmon other"]
    fraud = next(iter(api.schemas.values()))
    assert "env" in fraud["dimensions"]
    assert api.watermarks[fraud["id"]] == report(3).window.end
    assert len(api.bearers) == 1
    again = opened(api, properties={"env": "prod"})  # after a restart it finds the schema
    deliver(again, report(4, 5, "fraud"))
    assert len(api.schemas) == 2
    assert not api.out_of_order
    assert len(api.accepted) == 35
    assert api.accepted[0]["dimensions"]["env"] == "prod"


def test_the_bearer_is_renewed_before_it_ends(api: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    api.bearer_lasts = 100.0
    sink = opened(api)
    deliver(sink, report(1, 3, "a"))
    deliver(sink, report(2, 3, "b"))
    assert len(api.bearers) == 1
    sink._schemas._now = lambda: time.time() + 41.0  # 59 s before its end
    deliver(sink, report(3, 3, "c"))
    assert len(api.bearers) == 2


def test_a_bearer_that_is_withdrawn_is_requested_again(api: StandIn) -> None:
    sink = opened(api)
    deliver(sink, report(1, 3, "a"))
    api.bearers.clear()
    with pytest.raises(SendingPaused):
        sink.write(report(2, 3, "b"))
    CLOCK.skip()
    deliver(sink, report(2, 3, "b"))
    assert len(api.accepted) == 6


@pytest.mark.parametrize("fault", sorted(REFUSING - {"hang", "html", "busy", "inactive"}))
def test_failures_on_the_way_to_a_schema(fault: str, api: StandIn) -> None:
    api.faults.extend([fault, "ok", fault])  # the bearer; after it the new schema
    ledger = Ledger()
    deliver(opened(api, ledger), report(1, 20))
    assert len(set(api.keys())) == len(api.accepted) == 20
    assert len(api.schemas) == 1
    assert api.watermarks == {"schema-0": report(1).window.end}
    assert ledger.done == {1: 20}


def test_refused_samples_are_set_aside(api: StandIn) -> None:
    api.refuses = lambda s: ("2011", "bad") if s["dimensions"]["class_name"] == "c3" else None
    ledger = Ledger()
    deliver(opened(api, ledger, chunk=4), report(1, 10))
    assert [each.sample["dimensions"]["class_name"] for each in ledger.refused] == ["c3"]
    assert len(api.accepted) == 9


def test_the_shape_is_that_of_the_vendors_client() -> None:
    from anodot import Aggregation, Measurement, Metric30, MissingDimPolicy, MissingDimPolicyAction, Schema

    points = [Point("pod 1", Value("label_count", 4.0, class_name="a.b"))]
    given = Report(1, "m", "v1", Window(OLD, OLD + 60), points, {}, {"pod 1": {"zone": "a"}})
    (made,) = samples3(given, LegalNames(), points, {}, "id")
    theirs = Metric30(
        "id", datetime.fromtimestamp(OLD, UTC), {"count": 4.0},
        {"what": "label_count", "model": "m", "model_version": "v1", "agent_id": "pod 1", "class_name": "a.b"},
        {"zone": ["a"]},
    ).to_dict()  # fmt: skip
    assert made == theirs
    measurements = [Measurement("value", Aggregation.AVERAGE), Measurement("count", Aggregation.SUM)]
    policy = MissingDimPolicy(MissingDimPolicyAction.FILL, "none")
    wanted = Schema("zmon m", list(POINT), measurements, policy).to_dict()
    del wanted["id"]
    assert {**schema("zmon m", {}), "version": 1} == wanted


def test_the_rules_are_those_of_the_other_protocol() -> None:
    good = {"schemaId": "x", "timestamp": OLD, "dimensions": {"what": "w"}, "measurements": {"value": 1.0}, "tags": {}}
    assert refusal3(good, OLD) is None
    for change, code in (
        ({"measurements": {}}, "2024"),
        ({"measurements": {"value": float("nan")}}, "2026"),
        ({"timestamp": -1}, "2023"),
        ({"dimensions": {"what": "a b"}}, "2011"),
    ):
        found = refusal3({**good, **change}, OLD)
        assert found is not None
        assert found.code == code
    assert set(MEASUREMENTS) == {"value", "count"}
    assert Counter(POINT).most_common(1)[0][1] == 1


def test_neither_key_nor_bearer_is_anywhere(api: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    told = []
    sink = opened(api)
    api.faults.extend(["500", "expired", "ok", "refuse", "429"] * 3)
    for sequence in range(1, 5):
        for _ in range(30):
            CLOCK.skip()
            try:
                sink.write(example_report(sequence))
                break
            except RetryLater as error:
                told += all_of(error)
    issued = list(api.bearers)
    assert issued
    api.bearers.clear()  # the API says no, and repeats what it was given
    api.access_key = "another"
    for given in (report(9, 3, "new"), report(10, 3, "newer")):
        CLOCK.skip()
        with pytest.raises(SendingPaused, match="who is") as error:
            sink.write(given)
        told += all_of(error.value)
    for secret in (TOKEN, ACCESS_KEY, *issued):
        for text in [*told, caplog.text, repr(sink)]:
            assert secret not in text


def test_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANODOT_TOKEN", "t")
    monkeypatch.delenv("ANODOT_ACCESS_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="ANODOT_ACCESS_KEY holds no token"):
        register_sinks(lambda sink: None, {"sinks": {"anodot": {"protocol": "3.0"}}})
    with pytest.raises(ConfigurationError, match="not one of"):
        register_sinks(lambda sink: None, {"sinks": {"anodot": {"protocol": "4.0"}}})
    monkeypatch.setenv("ANODOT_ACCESS_KEY", "k")
    found: list[Any] = []
    register_sinks(found.append, {"sinks": {"anodot": {"protocol": "3.0"}}})
    assert isinstance(found[0], Anodot3)
