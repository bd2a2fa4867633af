"""Hellos that are answered while a start still restores the state: positions only, and nothing is decided."""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from zmon_collector.config import Config
from zmon_collector.config.sections import CollectorSection, LimitsSection, WebSection
from zmon_collector.ingest.early_answers import EarlyAnswers
from zmon_collector.ingest.receiver import ReceivedMessage
from zmon_collector.service import Service
from zmon_collector.storage import journal_state, positions

from tests.support import leftovers
from tests.support.leftovers import Leftover
from tests.support.restarts import Caller
from tests.support.unstarted import STREAM, Direct, Table, restarted, stream_of, topic_of
from zmon._wire import control
from zmon._wire.control import Ack
from zmon._wire.frames import Topic

Lay = Callable[[], Table]


class Start:
    """A start that knows the positions on a disk, and nothing else yet."""

    def __init__(self, table: Table, disk: Any) -> None:
        self.table = table
        self.sent: list[Ack] = []
        self.receiver = SimpleNamespace(
            inbox=deque(), auth=SimpleNamespace(check=lambda user, topic: None), reply=self._reply, flush=lambda: None
        )
        self.early = EarlyAnswers(self.receiver, table.ingestor)  # type: ignore[arg-type]
        self.positions = positions.load(disk)
        self.early.know(self.positions)

    def _reply(self, kind: str, peer: bytes, frame: bytes) -> None:
        self.sent.append(control.decode_ack(frame))

    def greet(self, agent: str = "a", kind: str = "hello", **given: Any) -> list[Ack]:
        """The answers to a greeting."""
        acked = given.get("acked", 0)
        fields = {"base": acked + 1, "acked": acked, "issued": acked, "clock": 0, "tally": {}, "counted": {}, **given}
        topic = fields.pop("topic", topic_of(agent))
        frame = control.encode_greeting(kind, topic=topic, stream=stream_of(agent), **fields)
        self.receiver.inbox.append(ReceivedMessage("control", [frame], b"peer"))
        sent = len(self.sent)
        self.early.answer()
        return self.sent[sent:]


@pytest.fixture
def start(lay: Lay) -> Start:
    """Of a collector that had 5 rows of a's stream."""
    killed = lay()
    killed.greeting("hello")
    killed.batch(1, 5)
    killed.end_turn()
    return Start(lay(), killed.disk)


def test_a_known_publisher_gets_the_position_on_disk_and_it_is_handled_in_full_later(start: Start) -> None:
    (ack,) = start.greet(acked=3, store=start.positions.store_id)
    assert (ack.stream, ack.row, ack.store, ack.tally) == (STREAM, 5, start.positions.store_id, {})
    assert len(start.receiver.inbox) == 1
    assert len(start.table.ingestor.sessions) == 0


def test_an_unknown_publisher_gets_back_what_it_says(start: Start) -> None:
    """Nothing of it is on disk: if the collector ended now, its own account must hold as before."""
    (ack,) = start.greet("b", acked=7, store=b"elsewhere", counted={"sampled_out": 2})
    assert (ack.stream, ack.row, ack.store, ack.tally) == (stream_of("b"), 7, b"elsewhere", {"sampled_out": 2})
    (new,) = start.greet("c")
    assert (new.row, new.store) == (0, b"")


@pytest.mark.parametrize("why", ["lost", "moved", "ping", "bye", "not taken", "streams"])
def test_what_the_whole_state_decides_is_not_answered_early(why: str, start: Start) -> None:
    config: Config = start.table.ingestor.config
    if why == "lost":  # our store had acknowledged it, and does not know it any more
        assert not start.greet("b", acked=7, store=start.positions.store_id)
    elif why == "moved":
        assert not start.greet(acked=9, store=b"elsewhere")
    elif why in ("ping", "bye"):
        assert not start.greet(kind=why)
    elif why == "not taken":
        start.table.ingestor.config = replace(config, collector=replace(config.collector, models=("other",)))
        assert not start.greet()
    else:
        start.table.ingestor.config = replace(config, limits=LimitsSection(streams=2))
        assert start.greet("b")
        assert not start.greet("c")
        assert start.greet("a")


def test_an_early_answer_that_a_kill_follows_changes_nothing(start: Start, lay: Lay) -> None:
    """The publisher keeps the name of the store that acknowledged its rows, so none counts as lost here."""
    (ack,) = start.greet("b", acked=7, issued=7, store=b"elsewhere")
    next_run = lay()
    next_run.greeting("hello", 8, 7, agent="b", acked=ack.row, store=ack.store, counted=ack.tally)
    assert next_run.counts("lost") == 0


def test_a_stream_whose_position_is_damaged_goes_on_after_its_journaled_rows(lay: Lay) -> None:
    """They may not have been acknowledged. Until they are found it gets back what it says, and its rows wait."""
    killed, table = lay(), lay()
    killed.greeting("hello")
    for first in (1, 6, 11):
        killed.batch(first, 5)
        killed.end_turn()
    killed.disk.execute("UPDATE streams SET tally = x'00'")
    copy = sqlite3.connect(":memory:")
    killed.disk.backup(copy)
    start = Start(table, copy)
    copy.close()
    assert start.positions.lost
    (ack,) = start.greet(acked=3, store=b"its name")
    assert (ack.row, ack.store) == (3, b"its name")
    table.ingestor.awaits_positions = True
    table.batch(4, 12)
    table.greeting("ping", 4, 15, acked=3)
    assert not table.answers()
    table.greeting("hello", 4, 15, acked=3)
    assert table.answers()[STREAM].row == 3
    assert len(table.ingestor.sessions) == 0
    restarted(killed, table)
    assert not table.ingestor.awaits_positions
    table.batch(4, 12)
    assert table.answer().row == 15
    assert (table.tally().received, table.counts("duplicates"), table.counts("lost")) == (15, 12, 0)


def test_chunks_are_searched_a_few_at_a_time_and_deleted_after_that(lay: Lay, monkeypatch: pytest.MonkeyPatch) -> None:
    killed, table = lay(), lay()
    monkeypatch.setattr(positions, "LOOKED_AT", 1)
    killed.greeting("hello")
    for first in (1, 6, 11):
        killed.batch(first, 5)
        killed.end_turn()
    killed.disk.execute("UPDATE streams SET tally = x'00'")
    killed.disk.execute("DELETE FROM windows")  # its chunks are left over
    jobs: list[str] = []

    class Noted(Direct):
        def submit(self, work: Callable[[Any], Any], done: Callable[[Any], None]) -> None:
            jobs.append(work.func.__name__ if isinstance(work, partial) else "other")
            super().submit(work, done)

        def delete_chunks(self, window: int, through: int) -> None:
            jobs.append("delete")

    monkeypatch.setattr("tests.support.unstarted.Direct", Noted)
    restarted(killed, table)
    assert jobs == ["last_rows"] * 4 + ["delete"]
    assert table.ingestor.settled_rows == {STREAM: 15}


def test_hellos_are_answered_while_the_state_is_still_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever there is to read: here it is not read before both publishers have their answers."""
    what = Leftover(models=2, agents=1, rows=3)
    leftovers.leave(tmp_path / "data", what)
    answered, load = threading.Event(), journal_state.load

    def held(*given: Any, **options: Any) -> Any:
        assert answered.wait(60)
        return load(*given, **options)

    monkeypatch.setattr(journal_state, "load", held)
    section = CollectorSection(data_dir=tmp_path / "data", bind=f"ipc://{tmp_path}/data.sock", window=60)
    service = Service(Config(web=WebSection(enabled=False), collector=section))
    starting = threading.Thread(target=service.start)
    starting.start()
    callers = [
        Caller(f"ipc://{tmp_path}/data.sock", f"ipc://{tmp_path}/data.sock.ctl", stream, Topic(model, "", "x"), row)
        for stream, model, row in ((what.stream(0, 0), "model-0000", 3), (b"n" * 16, "new", 0))
    ]
    try:
        assert [caller.hello().row for caller in callers] == [3, 0]
        assert starting.is_alive()
    finally:
        answered.set()
        starting.join()
        for caller in callers:
            caller.close()
        service.stop()
        service.run()
