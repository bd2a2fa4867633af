"""What targets refuse: set aside with its reason, listed, shown, sent again by the sink's thread, dropped, bounded."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from zmon_collector.cli.main import cli
from zmon_collector.compute.finalizer import ClosedWindow
from zmon_collector.config import Config
from zmon_collector.delivery import dispatch
from zmon_collector.delivery.dead_letters import DeadLetters
from zmon_collector.delivery.dispatch import SinkDelivery
from zmon_collector.delivery.outbox import Outbox
from zmon_collector.storage.database import Database
from zmon_collector.telemetry import Telemetry
from zmon_plugins.api.chunk_sender import SendingPaused

from tests.support.collectors import Collector, answer
from tests.support.standin import TOKEN, StandIn
from tests.support.waiting import until
from zmon.contract import Point, Refused, Report, Value, Window
from zmon.errors import RetryLater

OLD = 1_000_000_020


@pytest.fixture
def api() -> Iterator[StandIn]:
    with StandIn(
        refuses=lambda s: ("2011", "dislike") if s["properties"]["what"] == "buffer_count" else None
    ) as server:
        yield server


@pytest.fixture
def collector(api: StandIn, collect: Callable[..., Collector], monkeypatch: pytest.MonkeyPatch) -> Collector:
    monkeypatch.setenv("ANODOT_TOKEN", TOKEN)
    table = {"url": api.url, "requests_per_second": 1000, "samples_per_second": 1_000_000}
    running = collect(config=Config(sinks={"anodot": table, "anodot_file": {}}), grace=0.0)
    with running.publisher(classes=3, agent_id="pod") as publisher:
        for window in range(4):
            publisher.publish(np.full((10, 3), 1 / 3), timestamps=OLD + 60 * window)
        assert publisher.flush(60)
    running.close_windows()
    until(lambda: len(rows(running)) >= 8, what="rollup's and agent's count of each window to be refused")
    return running


def rows(collector: Collector) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answer(collector.folder, "outbox")["rows"]
    return found


def zmon(collector: Collector, *arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(cli, ["outbox", *arguments, "--data-dir", str(collector.folder)])
    assert result.exit_code == code, result.output
    return result.output


def test_what_is_refused_is_listed_with_its_reason(collector: Collector) -> None:
    lines = zmon(collector, "ls").splitlines()
    assert "anodot: 0 reports wait, 8 samples set aside" in lines
    assert sum("2011 dislike: what=buffer_count model=model" in line for line in lines) == 8
    found = [json.loads(line) for line in zmon(collector, "ls", "--sink", "anodot", "--json").splitlines()]
    assert len(found) == 8
    assert found[0]["sample"]["value"] == 10
    assert zmon(collector, "ls", "--sink", "anodot_file").count("\n") == 1
    shown = json.loads(zmon(collector, "show", str(found[3]["id"])))
    assert shown == found[3]
    assert "no refused sample has the id 999" in zmon(collector, "show", "999", code=1)
    health = answer(collector.folder)
    assert any("8 samples were refused" in each for each in health["problems"])
    assert health["counters"]["samples_refused{anodot}"] == 8


def test_sent_again_and_dropped(api: StandIn, collector: Collector) -> None:
    first, second, third, *_ = [row["id"] for row in rows(collector)]
    zmon(collector, "retry", str(first))
    until(lambda: rows(collector)[0]["at"] > rows(collector)[-1]["at"], what="it to be refused again")
    before = len(api.accepted)
    api.refuses = lambda sample: None
    assert "anodot: sending 2 samples again" in zmon(collector, "retry", str(first), str(second))
    until(lambda: len(rows(collector)) == 6, what="both to be taken")
    assert len(api.accepted) == before + 2
    assert "dropped 1" in zmon(collector, "drop", str(third))
    zmon(collector, "retry", "--sink", "anodot")
    until(lambda: rows(collector) == [], what="all to be taken")
    assert len(api.accepted) == before + 7
    assert "nothing to send again" in zmon(collector, "retry", "--all", code=1)
    assert "dropped 0" in zmon(collector, "drop", "--all")


def test_the_api_is_down_while_samples_are_sent_again(api: StandIn, collector: Collector) -> None:
    api.refuses = lambda sample: None
    api.faults.extend(["500", "503"])
    zmon(collector, "retry", "--all")
    until(lambda: rows(collector) == [], what="all to be taken")


@pytest.mark.parametrize("arguments", [["retry"], ["drop"], ["drop", "1", "--all"], ["retry", "--sink", "x", "--all"]])
def test_a_selection_is_one(arguments: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["outbox", *arguments, "--data-dir", str(tmp_path)])
    assert result.exit_code == 2
    assert "name ids" in result.output


def test_without_a_collector(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["outbox", "ls", "--data-dir", str(tmp_path)])
    assert result.exit_code == 1
    assert "no collector answers" in result.output


# --- the store's side ---------------------------------------------------------------------------------------------


def refused(n: int) -> list[Refused]:
    return [Refused({"value": i}, "2026", "NaN") for i in range(n)]


def test_it_is_bounded_by_count_and_counted(database: Database) -> None:
    telemetry = Telemetry()
    dead_letters = DeadLetters(database, telemetry, rows=10, keep=3600.0)
    dead_letters.ledger("a").settle(1, 5, refused(5))
    dead_letters.ledger("b").settle(1, 8, refused(8))
    assert dead_letters.counts == {"a": 2, "b": 8}
    assert (telemetry.get("refused_dropped", "a"), telemetry.get("refused_dropped", "b")) == (3, 0)
    assert telemetry.get("samples_refused") == 13


def test_it_is_bounded_by_age(database: Database) -> None:
    telemetry = Telemetry()
    DeadLetters(database, telemetry, rows=10, keep=3600.0).ledger("a").settle(1, 5, refused(5))
    database.call(DeadLetters(database, telemetry, rows=10, keep=-1.0).trim)
    assert telemetry.get("refused_dropped", "a") == 5
    assert database.call(lambda c: c.execute("SELECT count(*) FROM refused").fetchone()) == (0,)


def test_nothing_is_forgotten_when_sending_again_fails(database: Database) -> None:
    dead_letters = DeadLetters(database, Telemetry(), rows=10, keep=3600.0)
    dead_letters.ledger("a").settle(1, 3, refused(3))
    ids = database.call(lambda c: dead_letters.ids_by_sink(c, None, None))["a"]

    def later(samples: Sequence[Any]) -> list[Refused | None]:
        raise RetryLater("not now")

    with pytest.raises(RetryLater):
        dead_letters.resend(ids, later)
    assert dead_letters.counts == {"a": 3}
    dead_letters.resend(ids, lambda samples: [None, Refused(samples[1], "2003", "slow"), None])
    (row,) = database.call(lambda c: dead_letters.page(c, None, 0))
    assert (row["id"], row["code"], row["description"]) == (ids[1], "2003", "slow")


def steps(database: Database, work: Callable[[sqlite3.Connection], Any]) -> int:
    """Count the steps of SQLite's machine in a job."""
    counted = [0]

    def add() -> int:
        counted[0] += 1
        return 0

    def run(connection: sqlite3.Connection) -> None:
        connection.set_progress_handler(add, 1)
        work(connection)
        connection.set_progress_handler(None, 0)

    database.call(run)
    return counted[0]


def steps_with(database: Database, many: int) -> list[int]:
    """Count the steps to keep one more of many samples, to trim them, and to list the newest."""
    dead_letters = DeadLetters(database, Telemetry(), rows=many, keep=3600.0)
    for sink in ("a", "b"):
        dead_letters.ledger(sink).settle(1, many, refused(many // 2))
    taken = [
        steps(database, lambda connection: dead_letters.record(connection, "b", 1, refused(1))),
        steps(database, dead_letters.trim),
        steps(database, lambda connection: dead_letters.page(connection, "a", many // 2 - 10)),
    ]
    assert dead_letters.counts == {"a": many // 2 - 1, "b": many // 2 + 1}
    database.call(lambda connection: dead_letters.drop(connection, None, None))
    assert dead_letters.counts == {}
    return taken


def test_many_are_not_scanned(database: Database) -> None:
    few, many = steps_with(database, 100), steps_with(database, 20_000)
    assert all(b < 3 * a for a, b in zip(few, many, strict=True)), (few, many)


def test_a_damaged_sample_costs_only_itself(database: Database) -> None:
    telemetry = Telemetry()
    dead_letters = DeadLetters(database, telemetry, rows=10, keep=3600.0)
    dead_letters.ledger("a").settle(1, 4, refused(4))
    for number, change in ((1, "sample = x'c1'"), (2, "description = 'Nan'"), (3, "sequence = 7")):
        database.call(lambda c, n=number, to=change: c.execute(f"UPDATE refused SET {to} WHERE id = {n}"))
    (row,) = database.call(lambda c: dead_letters.page(c, None, 0))
    assert (row["id"], row["sample"]) == (4, {"value": 3})
    assert telemetry.get("refused_damaged") == 3
    sent: list[Any] = []
    dead_letters.resend([1, 2, 3, 4], lambda samples: sent.extend(samples) or [None])
    assert sent == [{"value": 3}]
    assert dead_letters.counts == {}


# --- the sink's thread --------------------------------------------------------------------------------------------


class Piecemeal:
    """A sink that delivers a report in ten pieces, and fails as it is told."""

    name = "piecemeal"

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.errors: list[Exception] = []
        self.gate = threading.Event()

    def attach(self, ledger: Any) -> None:
        self.ledger = ledger

    def open(self) -> None: ...

    def write(self, report: Report) -> None:
        for piece in range(self.ledger.settled(report.sequence), 10):
            self.gate.wait(20)
            if self.errors:
                raise self.errors.pop(0)
            self.sent.append(piece)
            self.ledger.settle(report.sequence, piece + 1)

    def close(self) -> None: ...


def delivery(database: Database, sink: Piecemeal, first: int = 1) -> tuple[SinkDelivery, Outbox]:
    telemetry = Telemetry()
    box = Outbox(database, telemetry, limit=2**30, keep=3600.0, first=first)
    database.call(lambda connection: box.load(connection, [sink.name]))
    return SinkDelivery(sink, box, DeadLetters(database, telemetry, rows=10, keep=3600.0), telemetry), box


def test_at_the_end_it_stops_between_two_pieces_and_goes_on_after_a_restart(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = Piecemeal()
    thread, box = delivery(database, sink)
    closed = ClosedWindow(("m", ""), Window(OLD, OLD + 60), 1, [Point(None, Value("a", 1.0))], {}, {}, {})
    write, written = box.prepare(closed, {})
    written(database.call(write))
    thread.start()
    until(lambda: box.behind() == {"piecemeal": 1})
    box.end()
    monkeypatch.setattr(dispatch, "LAST_PIECE", 20.0)
    threading.Thread(target=lambda: thread._stop.wait(20) and sink.gate.set(), daemon=True).start()
    assert thread.join(0.05), "it ends once the piece under way is noted"
    assert sink.sent == [0]
    thread, box = delivery(database, sink)
    thread.start()
    until(lambda: box.behind() == {"piecemeal": 0})
    box.end()
    assert thread.join(60)
    assert sink.sent == list(range(10))


def test_another_kind_of_failure_is_logged_while_the_sink_is_failing(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    sink = Piecemeal()
    sink.gate.set()
    sink.errors = [RetryLater("status 500", after=0.0)] * 5 + [SendingPaused("status 401", after=0.0)] * 5
    thread, box = delivery(database, sink)
    closed = ClosedWindow(("m", ""), Window(OLD, OLD + 60), 1, [Point(None, Value("a", 1.0))], {}, {}, {})
    write, written = box.prepare(closed, {})
    written(database.call(write))
    thread.start()
    until(lambda: box.behind() == {"piecemeal": 0})
    box.end()
    assert thread.join(60)
    told = [record.getMessage() for record in caplog.records if "piecemeal" in record.getMessage()]
    assert [("500" in each, "401" in each) for each in told] == [(True, False), (False, True)]
    assert (thread.state, thread.error) == ("ok", "")
