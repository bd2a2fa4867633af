"""What a collector makes of what comes, on a clock of the test's: no socket, no thread but those of metrics."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from zmon_collector.ingest.receiver import ReceivedMessage
from zmon_collector.storage import journal_state
from zmon_collector.storage.chunk_codec import ChunkRecord

from tests.support.unstarted import Table


def test_counts_without_a_window_and_rows_of_its_time_are_one_report(lay: Callable[[], Table]) -> None:
    """Counts for which no window opens get one, which takes the rows of its time like any other."""
    table = lay()
    table.greeting("hello")
    table.greeting("ping", rejected={"x": 5})
    table.end_turn()
    table.goes(61)
    table.ingestor.close_due(table.now, hold=False)
    table.batch(1, 100)
    table.end_turn()
    table.ingestor.close_all(table.now)
    (closed,) = table.finished(1)
    assert (closed.rows["a"].received, closed.rows["a"].rejected) == (100, {"x": 5})
    predicted = [each.value.value for each in closed.points if each[0] is None and each[1].what == "prediction_count"]
    assert sum(predicted) == 100, "the rows were counted, and no metric saw them"
    table.batch(101, 7)
    assert table.tally().late == 7, "its time has been reported"


def test_rows_that_a_goodbye_has_overtaken_are_counted_once(lay: Callable[[], Table]) -> None:
    table = lay()
    table.greeting("hello")
    table.batch(1, 10)
    table.greeting("bye", issued=110)
    table.later()
    assert table.counts("lost") == 100
    table.later()
    assert not len(table.ingestor.sessions)
    table.batch(11, 100)  # late beyond measure: they are in the count of the lost
    assert (table.counts("rows"), table.counts("lost"), table.counts("duplicates")) == (10, 100, 100)


def test_a_goodbye_survives_a_restart(lay: Callable[[], Table]) -> None:
    """Rows that were under way with it are lost, and the next run counts them."""
    first, second = lay(), lay()
    first.greeting("hello")
    first.batch(1, 10)
    first.end_turn()
    first.greeting("bye", issued=110)
    first.end_turn()
    second.recovery(first.disk).restore(second.now)
    second.later()
    assert second.counts("lost") == 100
    second.later()
    assert not len(second.ingestor.sessions)


def test_streams_end_only_when_nothing_waits(lay: Callable[[], Table]) -> None:
    table = lay()
    service, receiver = table.service, table.service.receiver
    service.started = 0.0
    table.batch(1, 10)
    table.greeting("bye", issued=15)
    table.goes(1.1)
    receiver.inbox.append(ReceivedMessage("data", [b""]))
    service.close_due(table.now)
    assert table.counts("lost") == 0, "what waits may be what is missing"
    receiver.next_message()
    receiver.paused = True
    service.close_due(table.now)
    assert table.counts("lost") == 0, "and so may be what is kept out"
    receiver.paused = False
    service.close_due(table.now)
    assert table.counts("lost") == 5


def test_a_proper_end_settles_goodbyes_at_once(lay: Callable[[], Table]) -> None:
    table = lay()
    table.batch(1, 10)
    table.greeting("bye", issued=15)
    table.ingestor.end_streams(table.now, force=True)
    assert table.counts("lost") == 5


def test_an_agent_with_label_outcomes_only_is_kept_after_two_restarts(lay: Callable[[], Table]) -> None:
    """The first end came before the journal heard of the agent; a checkpoint then takes the place of the outcomes."""
    table = lay()
    table.batch(1, 10)
    (window,) = table.ingestor.models["m", ""].windows.open.values()
    table.end_turn()
    (row,) = journal_state.load(table.disk).windows
    outcomes = ChunkRecord("truth", b"", b"", 0, 2, {"label_outcomes": np.array([2, 3], dtype=np.int8)})
    table.recovery(table.disk).replay(outcomes, row, window)
    table.end_turn()
    assert ("m", "truth") in {(model, agent) for _, model, _, agent, _ in journal_state.load(table.disk).counts}


def test_counts_of_a_window_that_was_finished_meanwhile_are_not_asked_for(lay: Callable[[], Table]) -> None:
    table = lay()
    table.batch(1, 10)
    table.end_turn()
    manager = table.ingestor.models["m", ""].windows
    (window,) = manager.open.values()
    manager.include_agent(window, "truth")
    del table.ingestor.unreported[window.number]
    table.end_turn()
