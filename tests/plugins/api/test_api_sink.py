"""The API sink against the strict stand-in: each failure, the order, the token that nobody sees, the shape."""

from __future__ import annotations

import json
import logging
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from zmon_plugins.anodot import LegalNames, fixed_properties, samples
from zmon_plugins.api import chunk_sender
from zmon_plugins.api.chunk_sender import ChunkSender, SendingPaused, chunk_of
from zmon_plugins.api.client import Client
from zmon_plugins.api.target import read, token_of
from zmon_plugins.http.response import Unreachable
from zmon_plugins.sinks.anodot import Anodot, register_sinks

from tests.support.api_sinks import CLOCK, OLD, Ledger, all_of, deliver, report, target
from tests.support.standin import FAULTS, TOKEN, UNANSWERED, StandIn, key
from zmon.contract import Point, Report, Value, Window
from zmon.errors import ConfigurationError, RetryLater
from zmon.testing import check_sink


@pytest.fixture
def api() -> Iterator[StandIn]:
    with StandIn() as server:
        yield server


def opened(api: StandIn, ledger: Ledger | None = None, **options: Any) -> Anodot:
    sink = Anodot(target(api, **options), TOKEN, lambda value: "minimal" if value.what == "accuracy" else "default",
                  clock=CLOCK, random=lambda: 0.0)  # fmt: skip
    if ledger is not None:
        sink.attach(ledger)
    sink.open()
    return sink


def test_the_sink_keeps_the_contract(api: StandIn) -> None:
    check_sink(opened(api))
    assert len(api.accepted) == 2 * (5 + 2), "rollups, and of each agent what the minimal preset has; each once"


def test_the_shape_is_that_of_the_vendors_client() -> None:
    from anodot import Metric20, TargetType

    (made,) = samples(
        Report(1, "m", "v1", Window(OLD, OLD + 60), [Point("pod 1", Value("accuracy", 0.25, class_name="a.b"))],
               {}, {"pod 1": {"zone": "a"}}), LegalNames()
    )  # fmt: skip
    theirs = Metric20(
        "accuracy", 0.25, TargetType.GAUGE, datetime.fromtimestamp(OLD, UTC),
        {"model": "m", "model_version": "v1", "agent_id": "pod 1", "class_name": "a.b"}, {"zone": ["a"]}, version=1,
    ).to_dict()  # fmt: skip
    theirs["properties"]["ver"] = str(theirs["properties"]["ver"])  # theirs is a number, the API's own example a text
    assert made == theirs


def test_chunks_are_full_and_go_over_one_connection(api: StandIn) -> None:
    sink = opened(api)
    deliver(sink, report(1, 2500))
    assert [len(each.samples) for each in api.exchanges] == [1000, 1000, 500]
    assert api.connections == 1
    assert len(set(api.keys())) == len(api.accepted) == 2500


@pytest.mark.parametrize(("agents", "expected"), [("health", 3 + 1), ("all", 3 + 3), ("none", 3)])
def test_which_points_are_sent(api: StandIn, agents: str, expected: int) -> None:
    values = [Value("accuracy", 0.5), Value("feature_value", 1.0), Value("recall", 0.5)]
    points = [Point(agent, value) for value in values for agent in (None, "pod")]
    deliver(opened(api, agents=agents), Report(1, "m", "", Window(OLD, OLD + 60), points))
    assert len(api.accepted) == expected


@pytest.mark.parametrize("fault", FAULTS)
def test_each_failure_loses_nothing_and_doubles_only_what_was_not_answered(fault: str, api: StandIn) -> None:
    api.faults.extend([fault, fault, "ok"])
    api.refuses = lambda sample: ("2011", "not that one") if sample["properties"]["what"] == "bad" else None
    ledger = Ledger()
    never = fault in ("hang", "hang_accepted", "trickle_forever")
    sink = opened(api, ledger, chunk=20, read_timeout=0.7 if never else 10.0)
    given = report(1, 40, bad=lambda i: i == 7)
    deliver(sink, given)
    deliver(sink, report(2, 40))
    counts = Counter(api.keys())
    assert len(counts) == 79
    assert sum(counts.values()) - 79 <= api.unanswered()
    assert api.unanswered() == 0 or fault in UNANSWERED
    assert (ledger.done[1], ledger.done[2]) == (40, 40)
    assert not api.out_of_order
    if fault == "no_index":
        assert [each.sample for each in ledger.refused] == [{"one_of": 20, "timestamp": given.window.start}]
    else:
        assert [each.sample["properties"]["what"] for each in ledger.refused] == ["bad"]
    assert [each.code for each in ledger.refused] == ["2011"]


def test_a_refused_connection(api: StandIn) -> None:
    sink = opened(api)
    api.down()
    with pytest.raises(RetryLater, match="Connection refused"):
        sink.write(report(1))
    api.up()
    deliver(sink, report(1))
    assert len(api.accepted) == 10


def test_retry_after_is_obeyed_whatever_the_caller_does(api: StandIn) -> None:
    api.faults.append("429")
    api.retry_after = 300
    sink = opened(api)
    for _ in range(2):  # the second call comes too early and sends nothing
        with pytest.raises(RetryLater) as error:
            sink.write(report(1))
        assert 299 < error.value.after <= 300
    assert len(api.exchanges) == 1


@pytest.mark.parametrize("fault", ["expired", "forbidden", "inactive"])
def test_a_token_that_is_not_taken_pauses(fault: str, api: StandIn) -> None:
    api.faults.append(fault)
    sink = opened(api)
    with pytest.raises(SendingPaused, match="check the token") as error:
        sink.write(report(1))
    assert error.value.after == chunk_sender.PAUSE


def test_a_trickle_does_not_hold_the_sink(api: StandIn) -> None:
    api.faults.append("trickle_forever")
    sink = opened(api, read_timeout=0.3)
    started = time.monotonic()
    with pytest.raises(RetryLater, match=r"no response within 0\.6 s"):
        sink.write(report(1))
    assert time.monotonic() - started < 3.0
    deliver(opened(api), report(1))


def test_a_request_refused_for_an_unknown_sample_is_halved_until_it_is_found(api: StandIn) -> None:
    posts = []

    class Blind:
        def send(self, samples: Sequence[Any]) -> Any:
            from zmon_plugins.http.response import Response

            posts.append(len(samples))
            bad = any(each["value"] == 37.0 for each in samples)
            return Response(400, {}, b"bad request") if bad else Response(200, {}, b"{}")

    chunk = chunk_of(list(samples(report(0, 100), LegalNames())), time.time())
    ChunkSender(Blind(), target(api), random=lambda: 0.0).send(chunk)
    assert list(chunk.refused) == [37]
    assert len(posts) < 20


def test_invalid_samples_are_not_sent_but_set_aside(api: StandIn) -> None:
    ledger = Ledger()
    sink = opened(api, ledger)
    deliver(sink, Report(1, "m", "", Window(OLD, OLD + 60), [Point(None, Value("accuracy", math.inf))] * 3))
    assert not api.exchanges
    assert [each.code for each in ledger.refused] == ["2026"] * 3
    assert "inf" in ledger.refused[0].description


def test_what_is_too_far_ahead_is_for_the_api_to_say(api: StandIn) -> None:
    """The system's clock may have been set back since the window closed."""
    ahead = int(time.time()) + 7200
    ledger = Ledger()
    sink = opened(api, ledger)
    deliver(sink, Report(1, "m", "", Window(ahead, ahead + 60), [Point(None, Value("accuracy", 0.5))] * 3))
    assert [len(each.samples) for each in api.exchanges] == [3]
    assert [each.code for each in ledger.refused] == ["2022"] * 3


def test_after_a_restart_it_goes_on_behind_the_last_answered_chunk(api: StandIn) -> None:
    ledger = Ledger()
    api.faults.extend(["ok", "ok", "500"])
    with pytest.raises(RetryLater):
        opened(api, ledger, chunk=100).write(report(1, 1000))
    assert ledger.done == {1: 200}
    deliver(opened(api, ledger, chunk=300, agents="all"), report(1, 1000))
    assert [len(each.samples) for each in api.exchanges] == [100, 100, 100, 300, 300, 200]
    assert max(Counter(api.keys()).values()) == 1


def test_the_pace_is_kept(api: StandIn) -> None:
    api.quota = (1e9, 1e9)
    client = Client(target(api), TOKEN)

    class Still:
        """A clock that only a sleeper moves."""

        now = 100.0

        def monotonic(self) -> float:
            return self.now

        def sleep(self, seconds: float) -> None:
            self.now += seconds

    clock = Still()
    pace = target(api, requests_per_second=2.0, samples_per_second=2000.0)
    sender = ChunkSender(client, pace, clock, lambda: 0.0)
    for sequence in range(1, 11):
        sender.send(chunk_of(list(samples(report(sequence, 1000), LegalNames())), time.time()))
    client.close()
    assert 4.4 < clock.now - 100.0 <= 4.6, "ten requests of a thousand at two a second"


def test_sent_again_from_what_was_set_aside(api: StandIn) -> None:
    api.refuses = lambda sample: ("2011", "not yet") if sample["value"] == 2 else None
    sink = opened(api)
    rows = [{**each, "value": i} for i, each in enumerate(samples(report(1, 4), LegalNames()))]
    found = sink.resend(rows)
    assert [each and each.code for each in found] == [None, None, "2011", None]
    assert len(api.accepted) == 3


# --- the token ----------------------------------------------------------------------------------------------------


def test_the_token_is_nowhere(api: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    """In no log line at any level, no exception or its chain, no repr, no set-aside sample."""
    caplog.set_level(logging.DEBUG)
    told: list[str] = []
    ledger = Ledger()
    sink = opened(api, ledger, chunk=5, read_timeout=0.5)
    api.faults.extend(FAULTS * 2)
    api.refuses = lambda sample: ("2011", f"token={TOKEN}") if sample["properties"]["what"] == "bad" else None
    for sequence in range(1, 30):
        for _ in range(100):
            CLOCK.skip()
            try:
                sink.write(report(sequence, 10, bad=lambda i: i == 3))
                break
            except RetryLater as error:
                told += all_of(error)
    api.down()
    for url in (api.url, "http://no-such-host.invalid", "http://127.0.0.1:1"):
        try:
            Client(target(api, url=url), TOKEN).send([{"x": 1}])
        except Unreachable as error:
            told += all_of(error)
    told += [repr(sink), repr(sink._target), str(vars(sink._target) if hasattr(sink._target, "__dict__") else "")]
    told += [str(each) for each in ledger.refused]
    assert len(told) > 20
    assert "/api/v1/metrics?token=***" in caplog.text, "the library does log addresses"
    for text in [*told, caplog.text, *map(repr, caplog.records)]:
        assert TOKEN not in text


def test_where_the_token_comes_from(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", " abc\n")
    assert token_of(read({"token_env": "MY_TOKEN"})) == "abc"
    (tmp_path / "token").write_text("def\n")
    assert token_of(read({"token_file": str(tmp_path / "token")})) == "def"
    monkeypatch.setenv("MY_TOKEN", "two words")
    for table in ({"token_env": "MY_TOKEN"}, {"token_env": "NOT_SET"}, {"token_file": str(tmp_path / "none")}):
        with pytest.raises(ConfigurationError, match=r"\[sinks.anodot\]") as error:
            token_of(read(table))
        assert "two words" not in str(error.value)


# --- configuration ------------------------------------------------------------------------------------------------

WRONG = {
    "token": ({"token": "abc"}, "environment"),
    "unknown": ({"ulr": "https://x"}, "did you mean 'url'"),
    "url": ({"url": "app.anodot.com"}, "base address"),
    "rate": ({"requests_per_second": 0}, "above 0"),
    "chunk": ({"chunk": 5000}, "1000"),
    "duration": ({"read_timeout": 30}, "duration"),
    "agents": ({"agents": "some"}, "health"),
    "many": ({"properties": {f"k{i}": "v" for i in range(7)}}, "limit of 20"),
    "taken": ({"properties": {"model": "x"}}, "already have this property"),
    "illegal": ({"properties": {"a.b": "x"}}, "2010"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_table_refuses_the_start(name: str) -> None:
    table, text = WRONG[name]
    with pytest.raises(ConfigurationError, match=text):
        register_sinks(lambda sink: None, {"sinks": {"anodot": table}})


def test_a_missing_token_refuses_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANODOT_TOKEN", raising=False)
    with pytest.raises(ConfigurationError, match="ANODOT_TOKEN holds no token"):
        register_sinks(lambda sink: None, {"sinks": {"anodot": {}}})
    register_sinks(lambda sink: None, {"sinks": {}})
    register_sinks(lambda sink: None, {"sinks": {"anodot": {"enabled": False}}})


def test_the_most_properties_that_fit(api: StandIn) -> None:
    most = next(n for n in range(20, 0, -1) if _fits(n))
    fixed = {f"k{i}": "v" for i in range(most)}
    value = Value("w", 1.0, *["x"] * 8)
    deliver(opened(api, properties=fixed), Report(1, "m", "1", Window(OLD, OLD + 60), [Point(None, value)]))
    assert len(api.accepted[0]["properties"]) == 19, "and one for the agent"


def _fits(n: int) -> bool:
    try:
        fixed_properties({f"k{i}": "v" for i in range(n)})
    except ValueError:
        return False
    return True


# --- everything at once -------------------------------------------------------------------------------------------


@pytest.mark.timeout(110)
def test_all_failures_at_random_for_ten_thousand_points() -> None:
    chance = random.Random(11)
    weights = [0.1 if each in ("hang", "hang_accepted", "trickle_forever") else 1.0 for each in FAULTS]

    def choose() -> str:
        return chance.choices(FAULTS, weights)[0] if chance.random() < 0.7 else "ok"

    api = StandIn(choose=choose, refuses=lambda s: ("2011", "bad") if s["properties"]["what"] == "bad" else None)
    ledger = Ledger()
    sink = opened(api, ledger, chunk=50, read_timeout=1.5)
    api.faults.extend(FAULTS)  # each at least once
    expected = set()
    invalid = 0
    for sequence in range(1, 41):
        given = report(sequence, 250, bad=lambda i: chance.random() < 0.02)
        for sample in samples(given, LegalNames()):
            if sample["properties"]["what"] == "bad":
                invalid += 1
            else:
                expected.add(key(json.loads(json.dumps(sample))))
        if sequence % 10 == 0:
            threading.Timer(0.01, lambda: (api.down(), time.sleep(0.05), api.up())).start()
        deliver(sink, given, 60)
    api.down()
    counts = Counter(api.keys())
    faults = Counter(each.fault for each in api.exchanges)
    doubles = sum(counts.values()) - len(counts)
    print(f"{len(counts)} points, {doubles} twice of {api.unanswered()} not answered, {dict(faults)}")
    assert set(counts) == expected
    assert doubles <= api.unanswered()
    assert not api.out_of_order
    assert len(ledger.refused) == invalid
    assert all(each.code == "2011" for each in ledger.refused)
    assert set(faults) >= set(FAULTS) - {"refuse", "reset"}
