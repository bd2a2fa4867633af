"""Places that are shared: what one identity takes is never another's part; refusals are answered, and kept in mind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from zmon_collector.config import Config
from zmon_collector.config.sections import LimitsSection
from zmon_collector.ingest.admission import MANY, REFUSALS, REFUSED_FOR, Admission, Pool, identity_at
from zmon_collector.ingest.receiver import ReceivedMessage
from zmon_collector.ingest.sessions import IDLE_STREAM

from tests.support.unstarted import AB, Table, messages
from zmon._wire import control
from zmon._wire.frames import Topic

NAMES = ("a", "b", "c", "d")
HALVES: Any = (("*",), ("*",))  # two identities

# --- the pool -----------------------------------------------------------------------------------------------------


@given(
    st.integers(1, 200),
    st.integers(1, len(NAMES)),
    st.lists(st.tuples(st.sampled_from(NAMES), st.booleans(), st.integers(1, 9)), max_size=200),
)
def test_an_identity_below_its_part_always_finds_room(
    capacity: int, identities: int, steps: list[tuple[str, bool, int]]
) -> None:
    pool, held = Pool(capacity, identities), Counter[str]()
    known = NAMES[:identities]
    for name, takes, amount in steps:
        if name not in known:
            continue
        if takes and pool.take(name, amount):
            held[name] += amount
        elif not takes and held[name]:
            amount = min(amount, held[name])
            pool.release(name, amount)
            held[name] -= amount
        assert pool.used == held.total() <= capacity
        assert all(pool.held(each) == held[each] for each in NAMES)
        if capacity >= 2 * identities:
            for each in known:
                assert held[each] >= pool.part or pool.has_room(each, pool.part - held[each])
        elif held.total() < capacity:
            assert any(pool.has_room(each) for each in known)


@given(st.integers(1, 100), st.integers(1, 9))
def test_one_identity_alone_takes_half_at_least_and_all_if_it_is_the_only_one(capacity: int, identities: int) -> None:
    pool = Pool(capacity, identities)
    while pool.take("greedy"):
        pass
    assert pool.used == capacity if identities == 1 else pool.used >= capacity // 2


@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.integers(1, 9)), max_size=30), st.integers(1, 99), st.integers(1, 5)
)
def test_other_limits_hold_at_once_and_take_nothing_away(
    holds: list[tuple[str, int]], capacity: int, identities: int
) -> None:
    changed, fresh = Pool(50, 2), Pool(capacity, identities)
    for name, amount in holds:
        changed.hold(name, amount)
        fresh.hold(name, amount)
    changed.resize(capacity, identities)
    assert changed.plain() == fresh.plain()
    assert [changed.has_room(name) for name in NAMES] == [fresh.has_room(name) for name in NAMES]


@pytest.mark.parametrize(
    ("address", "identity"),
    [
        ("127.0.0.2", "127.0.0.2"),
        ("::ffff:10.0.0.7", "10.0.0.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("localhost:1000:100:4711", "uid 1000"),
        ("", ""),
        ("what", "what"),
    ],
)
def test_who_an_address_belongs_to(address: str, identity: str) -> None:
    assert identity_at(address) == identity


def test_refusals_are_problems_for_a_while_and_bounded() -> None:
    admission = Admission(LimitsSection())
    admission.follow(LimitsSection(models=10), MANY)
    said = [admission.refuse(admission.models, "models", f"10.0.0.{number % 60}", 0.0)[1] for number in range(120)]
    assert sum(said[:60]) == 60 and len(admission.problems(0.0)) == REFUSALS
    assert "10.0.0.59 fills its share of limits.models" in admission.problems(0.0)[-1]
    assert not admission.problems(REFUSED_FOR + 1)


# --- streams, models and agents -----------------------------------------------------------------------------------


class Crowd:
    """Two identities that share a collector with small limits."""

    def __init__(self, lay: Callable[..., Table], **limits: int) -> None:
        self._lay, self._limits = lay, LimitsSection(**limits)
        self.table = self._laid()

    def _laid(self) -> Table:
        table = self._lay(replace(Config(), limits=self._limits))
        table.ingestor.admission.follow(self._limits, HALVES)
        return table

    def restarts(self) -> None:
        """The collector is killed and starts on what it had journaled."""
        before, self.table = self.table, self._laid()
        before.end_turn()
        before.disk.backup(self.table.disk)
        self.table.ingestor.store_id = before.ingestor.store_id
        self.table.recovery(self.table.disk).restore(self.table.now)

    def greet(self, who: str, number: int, *, model: str = "m", version: str = "", kind: str = "hello", issued: int = 0,
              agent: str = "x") -> None:  # fmt: skip
        frame = control.encode_greeting(
            kind, topic=Topic(model, version, agent).encode(), stream=self.stream(who, number),
            base=1, acked=0, issued=issued, clock=0, tally={},
        )  # fmt: skip
        received = ReceivedMessage("control", [frame], self.stream(who, number), "", who)
        self.table.service.message_handler.handle(received, self.table.now)

    def rows(
        self, who: str, number: int, *, model: str = "m", version: str = "", agent: str = "x", first: int = 1
    ) -> None:
        topic, stream = Topic(model, version, agent).encode(), self.stream(who, number)
        for frames in messages(
            AB, {"probabilities": np.full((5, 2), 0.5)}, first=first, ts=int(self.table.now.wall * 1e9)
        ):
            header = frames[1].replace(b"s" * 16, stream)
            self.table.service.message_handler.handle(
                ReceivedMessage("data", [topic, header, *frames[2:]], b"", "", who), self.table.now
            )

    def publish(self, who: str, number: int, **names: str) -> None:
        self.greet(who, number, **names)  # type: ignore[arg-type]
        self.rows(who, number, **names)  # type: ignore[arg-type]

    @staticmethod
    def stream(who: str, number: int) -> bytes:
        return who.encode().ljust(8, b"_") + number.to_bytes(8, "big")

    def by(self, pool: str) -> dict[str, int]:
        found: dict[str, int] = self.table.ingestor.admission.plain()[pool]["by"]
        return found


@pytest.fixture
def crowd(lay: Callable[..., Table]) -> Callable[..., Crowd]:
    return lambda **limits: Crowd(lay, **limits)


@pytest.mark.parametrize("kind", ["hello", "ping", "bye"])
@pytest.mark.parametrize("issued", [0, 7])
def test_a_greeting_takes_no_place_of_a_model(kind: str, issued: int, crowd: Callable[..., Crowd]) -> None:
    some = crowd()
    some.greet("evil", 1, kind=kind, issued=issued)
    assert not some.table.ingestor.models
    some.rows("evil", 1)
    assert some.by("models") == {"evil": 1}


def test_windows_wait_for_rows_that_were_announced_before_the_model_was_known(crowd: Callable[..., Crowd]) -> None:
    some = crowd()
    some.greet("a", 1, agent="slow", issued=5)
    some.greet("a", 2, agent="idle")
    some.publish("a", 3, agent="quick")
    windows = some.table.ingestor.models["m", ""].windows
    assert windows.knows("slow") and windows.knows("quick") and not windows.knows("idle")
    some.greet("a", 2, agent="idle", kind="ping", issued=5)
    assert windows.knows("idle")


def test_a_greeting_of_an_agent_without_rows_takes_none_of_the_agents_places(crowd: Callable[..., Crowd]) -> None:
    some = crowd(agents=4)
    some.publish("a", 0, agent="first")
    for number in range(1, 9):
        some.greet("a", number, agent=f"new-{number}")
    assert some.table.ingestor.models["m", ""].places.used == 1


def test_rows_of_a_model_without_a_place_are_rejected_answered_and_admitted_later(crowd: Callable[..., Crowd]) -> None:
    some = crowd(models=4)
    for number in range(4):
        some.publish("evil", number, version=str(number))
    assert some.by("models") == {"evil": 3}
    ack = some.table.answers()[some.stream("evil", 3)]
    assert ack.row == 5 and ack.refused["models"][0] == 5
    assert "evil fills its share of limits.models: it holds 3 of 4 places" in ack.refused["models"][1]
    (problem,) = some.table.ingestor.admission.problems(some.table.now.mono)
    assert "evil fills its share of limits.models" in problem
    assert some.table.service.telemetry.get("rejected", "models") == 5
    some.publish("good", 9, version="good")
    assert some.by("models") == {"evil": 3, "good": 1}
    some.table.ingestor.admission.follow(LimitsSection(models=9), HALVES)
    some.rows("evil", 3, version="3", first=6)
    assert some.by("models") == {"evil": 4, "good": 1}


def test_a_stream_without_a_place_is_told_so_and_nothing_of_it_is_settled(crowd: Callable[..., Crowd]) -> None:
    some = crowd(streams=4)
    for number in range(3):
        some.publish("evil", number)
    some.table.answers()
    some.greet("evil", 4, issued=5)
    some.rows("evil", 4)
    found = some.table.answers()
    assert [ack.held_off for ack in found.values()] == [some.stream("evil", 4)]
    assert found[b""].refused["streams"][0] == 0 and not found[b""].declined
    some.publish("good", 1)
    assert some.by("streams") == {"evil": 3, "good": 1}
    some.table.goes(IDLE_STREAM)
    some.publish("evil", 4)
    assert some.by("streams") == {"evil": 3, "good": 1}
    assert some.by("remembered") == {"evil": 1}, "its own oldest one has made room"


def test_streams_that_only_greeted_make_room_for_those_of_their_own(crowd: Callable[..., Crowd]) -> None:
    some = crowd(streams=8)
    some.publish("good", 1)
    for number in range(100):
        some.greet("evil", number)
    sessions = some.table.ingestor.sessions
    assert some.by("streams") == {"evil": 6, "good": 1}
    assert sessions.get(some.stream("evil", 99)) and not sessions.get(some.stream("evil", 0))
    assert not sessions.departed, "nothing was settled of them, so nothing is remembered"
    some.table.end_turn()
    (kept,) = some.table.disk.execute("SELECT count(*) FROM streams").fetchone()
    assert kept == 1


def test_what_is_remembered_of_an_identity_never_pushes_out_anothers(
    crowd: Callable[..., Crowd], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zmon_collector.ingest.admission.REMEMBERED", 8)
    some = crowd()
    for who, streams in (("good", 2), ("evil", 50)):
        for number in range(streams):
            some.publish(who, number)
            some.greet(who, number, kind="bye", issued=5)
            some.table.later()
            some.table.later()
    assert some.by("remembered") == {"evil": 6, "good": 2}


def test_rows_behind_those_that_found_no_place_are_not_taken_for_the_first(crowd: Callable[..., Crowd]) -> None:
    """The stream's first message was refused, and a place is free by now."""
    some = crowd()
    for frames in messages(AB, {"probabilities": np.full((5, 2), 0.5)}, first=6, base=1, ts=0):
        some.table.data(frames)
    assert not len(some.table.ingestor.sessions)
    assert some.table.service.telemetry.get("rejected_messages", "stream_unknown") == 1


@pytest.mark.parametrize("restarts", [False, True])
def test_shares_hold_over_a_restart(restarts: bool, crowd: Callable[..., Crowd]) -> None:
    some = crowd(models=4, streams=8, agents=8)
    for number in range(6):
        some.publish("evil", number, version=str(number), agent=f"agent-{number}")
    before = {pool: some.by(pool) for pool in ("models", "streams")}
    if restarts:
        some.restarts()
    assert before == {"models": {"evil": 3}, "streams": {"evil": 6}} == {pool: some.by(pool) for pool in before}
    assert {model.places.held("evil") for model in some.table.ingestor.models.values()} == {1}
    some.publish("evil", 9, version="9")
    assert some.by("models") == {"evil": 3}


def test_a_forgotten_agent_and_model_give_their_places_back(crowd: Callable[..., Crowd]) -> None:
    some = crowd()
    some.publish("a", 1)
    ingestor = some.table.ingestor
    model = ingestor.models["m", ""]
    ingestor.forget_agents(model, ["x"])
    assert (model.places.used, model.agents) == (0, {})
    ingestor.forget(("m", ""))
    assert some.by("models") == {}


def test_a_stream_that_moves_takes_its_place_along(crowd: Callable[..., Crowd]) -> None:
    some = crowd()
    some.publish("a", 1)
    some.table.service.message_handler.handle(
        ReceivedMessage("control", [control.encode_greeting(
            "ping", topic=Topic("m", "", "x").encode(), stream=some.stream("a", 1), base=6, acked=5, issued=5, clock=0,
            tally={},
        )], b"peer", "", "b"), some.table.now,
    )  # fmt: skip
    assert some.by("streams") == {"b": 1}
