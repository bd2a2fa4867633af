"""Sessions of streams: who is remembered for how long, over restarts as well, and what a turn costs."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import pytest
from zmon_collector.config.sections import LimitsSection
from zmon_collector.ingest import admission
from zmon_collector.ingest.admission import Admission
from zmon_collector.ingest.sessions import (
    FORGET_STREAM,
    GONE_AFTER,
    IDLE_STREAM,
    NOTED_EVERY,
    REMEMBER,
    SessionRegistry,
)
from zmon_collector.ingest.stream_position import StreamPosition
from zmon_collector.storage import journal_state
from zmon_collector.telemetry import Telemetry
from zmon_collector.windows.window import Now

from tests.support.unstarted import STREAM, Table
from zmon._wire.frames import Topic
from zmon.errors import WireError

DAY = 86400.0
MILLION = 1_000_000
TOPIC = Topic("m", "", "a")


def restarted(lay: Callable[[], Table], before: Table, down: float = 2.0) -> Table:
    """A collector that starts on the disk of another that was killed, some seconds later."""
    before.end_turn()
    after = lay()
    before.disk.backup(after.disk)
    after.now = Now(before.now.wall + down, 50.0)
    after.ingestor.store_id = before.ingestor.store_id
    after.recovery(after.disk).restore(after.now)
    after.ingestor.end_streams(after.now)
    after.end_turn()
    return after


def with_a_million(lay: Callable[[], Table]) -> Table:
    """A collector with a stream of which it has settled a million rows."""
    table = lay()
    table.greeting("hello", base=MILLION + 1, issued=MILLION, acked=MILLION)
    table.end_turn()
    assert table.counts("lost") == 0
    return table


def comes_back(table: Table) -> None:
    """The publisher, which holds none of its million rows any more."""
    store = table.ingestor.store_id
    table.greeting("hello", base=MILLION + 1, issued=MILLION, acked=MILLION, store=store)


def made_registry(limit: int = 10**6) -> SessionRegistry:
    return SessionRegistry(Telemetry(), Admission(LimitsSection(streams=limit)))


def register(registry: SessionRegistry, number: int, now: Now) -> Any:
    return registry.register(number.to_bytes(16, "big"), TOPIC, StreamPosition(1), "one", now)


def test_a_publisher_that_only_pings_for_days_is_known_after_a_restart(lay: Callable[[], Table]) -> None:
    table = with_a_million(lay)
    for _ in range(8 * 24):
        table.goes(NOTED_EVERY)
        table.greeting("ping", base=MILLION + 1, issued=MILLION)
        table.end_turn()
    after = restarted(lay, table)
    after.later(3600)
    assert after.ingestor.sessions.get(STREAM) is not None
    comes_back(after)
    assert after.counts("lost") == 0


def test_signs_of_life_are_journaled_once_an_hour(lay: Callable[[], Table]) -> None:
    table = with_a_million(lay)
    noted = 0
    for _ in range(7200):
        table.goes(1.0)
        table.greeting("ping", base=MILLION + 1, issued=MILLION)
        turn, _, _ = table.ingestor.end_turn(table.now)
        noted += len(turn.streams)
    assert noted == 2


def test_the_time_without_a_collector_is_no_silence_of_its_publishers(lay: Callable[[], Table]) -> None:
    after = restarted(lay, with_a_million(lay), down=30 * DAY)
    after.later(3600)
    comes_back(after)
    assert after.counts("lost") == 0


@pytest.mark.parametrize("restarts", [False, True])
def test_a_stream_that_is_silent_for_long_is_put_aside_and_keeps_its_position(
    restarts: bool, lay: Callable[[], Table]
) -> None:
    table = with_a_million(lay)
    table.later(FORGET_STREAM + 1)
    assert not len(table.ingestor.sessions)
    if restarts:
        table = restarted(lay, table)
        assert not len(table.ingestor.sessions)
    comes_back(table)
    assert table.counts("lost") == 0
    assert len(table.ingestor.sessions) == 1


@pytest.mark.parametrize("restarts", [False, True])
def test_a_stream_that_made_room_comes_back_where_it_was(restarts: bool, lay: Callable[[], Table]) -> None:
    table = with_a_million(lay)
    registry = table.ingestor.sessions
    table.ingestor.admission.streams.resize(1, 1)
    table.goes(IDLE_STREAM)
    registry.register(bytes(16), TOPIC, StreamPosition(0), "", table.now)
    assert registry.get(STREAM) is None
    if restarts:
        table = restarted(lay, table)
    comes_back(table)
    table.later(3.0)  # between two pings: it has not said goodbye
    assert table.ingestor.sessions.get(STREAM) is not None
    table.greeting("bye", base=MILLION + 1, issued=MILLION + 7)
    table.later()
    assert table.counts("lost") == 7


def test_no_stream_makes_room_before_its_missing_rows_are_counted() -> None:
    registry, now = made_registry(limit=1), Now(0.0, 0.0)
    registry.end(register(registry, 1, now), now)
    with pytest.raises(WireError, match="streams"):
        register(registry, 2, Now(0.0, IDLE_STREAM + 1))


def test_the_longest_silent_stream_makes_room() -> None:
    registry = made_registry(limit=3)
    made = [register(registry, number, Now(0.0, float(number))) for number in range(3)]
    registry.touch(made[0], TOPIC, "", Now(0.0, 50.0), "one")
    register(registry, 3, Now(0.0, 61.0))
    assert [session.key[-1] for session in registry] == [2, 0, 3]
    with pytest.raises(WireError, match="streams"):
        register(registry, 4, Now(0.0, 61.5))


@pytest.mark.parametrize("kills", [0, 1, 3])
def test_rows_that_a_goodbye_has_overtaken_are_counted_once_over_kills(kills: int, lay: Callable[[], Table]) -> None:
    table = lay()
    table.greeting("hello", rejected={"x": 3})
    table.batch(1, 10)
    table.greeting("bye", issued=110, rejected={"x": 5}, sampled_out=4)
    table.later()
    table.later()
    assert (table.counts("lost"), table.counts("sampled_out")) == (100, 4)
    assert not len(table.ingestor.sessions)
    for _ in range(kills):
        table = restarted(lay, table)
    before = {kind: table.counts(kind) for kind in ("rows", "lost", "sampled_out")}
    assert table.counts("duplicates") == 0
    table.batch(11, 100, tally={"rejected": {"x": 4}, "sampled_out": 2})
    assert table.counts("duplicates") == 100
    assert {kind: table.counts(kind) for kind in before} == before
    assert table.service.telemetry.get("rejected", "x") == (0 if kills else 5)
    table.later(GONE_AFTER + 1)
    assert not len(table.ingestor.sessions), "it has left, and is put aside again"


def test_a_kill_between_a_goodbye_and_its_second_loses_no_count(lay: Callable[[], Table]) -> None:
    table = lay()
    table.batch(1, 10)
    table.greeting("bye", issued=110)
    after = restarted(lay, table)
    after.later()
    assert after.counts("lost") == 100
    again = restarted(lay, after)
    again.later()
    assert again.counts("lost") == 0


def test_what_is_remembered_of_departed_streams_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "REMEMBERED", 5)
    registry, at = made_registry(), 0.0
    for number in range(20):
        registry.end(register(registry, number, Now(at, at)), Now(at, at))
        at += 10.0
        assert len(list(registry.ended(Now(at, at)))) == 1
        registry.forget_gone(Now(at, at))
    assert (len(registry), len(registry.departed)) == (0, 5)
    rows, forgotten = registry.drain_changes(Now(at, at))
    assert ({row.id for row in rows}, len(forgotten)) == (set(registry.departed), 15)
    registry.forget_gone(Now(at, at + REMEMBER))
    assert not registry.departed


def test_a_stream_that_comes_back_when_it_is_forgotten_stays_in_the_journal(lay: Callable[[], Table]) -> None:
    table = lay()
    table.batch(1, 10)
    table.greeting("bye", issued=10)
    table.later()
    table.later()
    table.later(REMEMBER + 1)
    assert not table.ingestor.sessions.departed
    table.batch(11, 5)
    table.end_turn()
    (row,) = journal_state.load(table.disk).streams
    assert row.row == 15


# --- what a turn costs ------------------------------------------------------------------------------------------------


def cost_of_a_turn(streams: int) -> float:
    """Seconds for what a turn asks of the registry when a few streams have sent something; the least of many."""
    registry, now = made_registry(), Now(0.0, 0.0)
    made = [register(registry, number, now) for number in range(streams)]
    for session in made:
        session.position.issued = 1
    register(registry, streams, now)
    registry.drain_changes(now)
    times = []
    for turn in range(40):
        now = Now(0.0, 100.0 + turn)
        began = perf_counter()
        for session in made[turn - 50 :][:10]:
            registry.touch(session, TOPIC, "", now, "one")
        registry.end(made[turn - 50], now)
        list(registry.ended(now))
        registry.forget_gone(now)
        register(registry, 10**9 + turn, now)
        registry.is_behind(now, 60.0)
        registry.drain_changes(now)
        times.append(perf_counter() - began)
    return min(times)


def test_a_turn_costs_no_more_with_a_hundred_times_the_streams() -> None:
    assert cost_of_a_turn(10_000) < 5 * cost_of_a_turn(100)
