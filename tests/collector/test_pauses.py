"""Pauses end: whatever keeps rows from being accepted goes by itself, or health says what it waits for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from zmon_collector import pauses
from zmon_collector.config import Config
from zmon_collector.config.parsing import load
from zmon_collector.config.sections import LimitsSection, WebSection
from zmon_collector.ingest import checkpoint_policy
from zmon_collector.ingest.checkpoint_policy import CheckpointPolicy
from zmon_collector.ingest.row_placement import UnreportedWindow
from zmon_collector.pauses import Pauses
from zmon_collector.storage.journal import Turn
from zmon_collector.telemetry import Telemetry
from zmon_collector.windows.window import Now, OpenWindow

from tests.support.processes import OLD
from tests.support.unstarted import AB, Table, messages
from tests.support.waiting import until
from zmon.errors import ConfigurationError

MIB = 2**20
NOW = Now(1_700_000_000.0, 100.0)


class Parts:
    """What decides on pauses, with numbers that a test sets."""

    def __init__(self, journal_bytes: int = 16 * MIB) -> None:
        self.joining: set[int] = set()
        self.begun: list[int] = []
        self.early: list[str] = []
        self.closing: set[int] = set()
        self.flushed = 0
        self.engine = SimpleNamespace(
            backlog=0, gathered=0, idle=True, checkpoint=self._checkpoint, relieve=self._relieve
        )
        self.database = SimpleNamespace(used_bytes=0, pending_bytes=0, full=False, path="state.sqlite")
        self.ingestor = SimpleNamespace(
            config=Config(limits=LimitsSection(journal_bytes=journal_bytes)),
            unreported={},
            engine=self.engine,
            late=SimpleNamespace(is_joining=self.joining.__contains__, idle=True),
            telemetry=Telemetry(),
            close_early=self._close_early,
            is_open=lambda unreported: unreported.window.number not in self.closing,
        )
        self.others = 0
        self.policy = CheckpointPolicy(self.ingestor, self.database, lambda: self.others)  # type: ignore[arg-type]
        self.pauses = Pauses(self.engine, self.database, self.ingestor, self.policy)  # type: ignore[arg-type]

    def _checkpoint(self, model: Any, window: OpenWindow, write: Callable[[bytes], None]) -> bool:
        self.begun.append(window.number)
        return True

    def _relieve(self, most: int) -> None:
        self.flushed += 1

    def _close_early(self, model: tuple[str, str]) -> OpenWindow | None:
        for number, unreported in self.ingestor.unreported.items():
            if unreported.model == model and number not in self.closing:
                self.early.append(model[0])
                self.closing.add(number)
                return unreported.window
        return None

    def window(self, number: int, nbytes: int, model: str = "m", checkpoint_bytes: int = 0) -> None:
        window = UnreportedWindow((model, ""), OpenWindow(0, 60, number), set(), nbytes, checkpoint_bytes)
        self.ingestor.unreported[number] = window

    def look(self, mono: float, replayed: int | None = None) -> bool:
        return self.pauses.look(NOW._replace(mono=mono), replayed)

    def by(self) -> list[str]:
        return [pause.by for pause in self.pauses.current()]


# --- checkpoints -----------------------------------------------------------------------------------------------------


def test_a_checkpoint_that_is_no_longer_due_is_not_waited_for() -> None:
    parts = Parts()
    parts.window(1, 9 * MIB * 2)
    parts.database.used_bytes, parts.joining = 9 * MIB, parts.joining | {1}
    parts.ingestor.late.is_joining = parts.joining.__contains__
    parts.policy.start_due(Turn(1, chunks={1: []}))
    assert parts.policy.waiting
    assert not parts.look(1.0)
    assert parts.by() == ["labels"]
    parts.database.used_bytes = 0  # another window has closed: the journal has room again
    parts.policy.start_due(Turn(2))
    assert not parts.policy.waiting
    assert parts.look(1.1)
    assert not parts.begun


def test_a_checkpoint_is_made_once_the_join_is_back() -> None:
    parts = Parts()
    parts.window(1, checkpoint_policy.CHECKPOINT_BYTES)
    parts.ingestor.late.is_joining = lambda number: True
    parts.policy.start_due(Turn(1, chunks={1: []}))
    parts.ingestor.late.is_joining = lambda number: False
    parts.policy.start_due(Turn(2))
    assert (parts.begun, parts.policy.waiting) == ([1], False)


def test_a_checkpoint_that_cannot_be_made_is_counted_and_writes_nothing() -> None:
    parts = Parts()
    parts.window(1, checkpoint_policy.CHECKPOINT_BYTES)
    made: list[Callable[[bytes | None], None]] = []
    parts.engine.checkpoint = lambda model, window, write: made.append(write) or True
    parts.policy.start_due(Turn(1, chunks={1: []}))
    made[0](None)  # the database of this test takes nothing
    assert parts.ingestor.telemetry.get("checkpoints_failed") == 1


def test_a_checkpoint_that_is_not_smaller_than_its_rows_is_dropped_and_tried_again_with_twice_as_many() -> None:
    """With few rows it is larger, and at the limit it would make things worse."""
    parts = Parts()
    parts.window(1, 100)
    made: list[Callable[[bytes | None], None]] = []
    parts.engine.checkpoint = lambda model, window, write: made.append(write) or True
    parts.database.used_bytes = 17 * MIB
    parts.policy.start_due(Turn(1))
    window = parts.ingestor.unreported[1]
    window.nbytes += 7  # rows that came meanwhile
    made[0](bytes(100))  # the database of this test takes nothing
    assert (window.held_bytes, window.checkpoint_bytes) == (107, 0)
    parts.policy.start_due(Turn(2))
    assert len(made) == 1
    window.nbytes = 200
    parts.policy.start_due(Turn(3))
    assert len(made) == 2
    taken: list[int] = []
    parts.database.submit = lambda write, then, nbytes, failed: taken.append(nbytes)
    made[1](bytes(100))
    assert (taken, window.nbytes, window.checkpoint_bytes) == ([100], 0, 100)
    window.nbytes = 24
    parts.policy.start_due(Turn(4))
    assert len(made) == 2, "a quarter of the last one is little gain"
    window.nbytes = 25
    parts.policy.start_due(Turn(5))
    assert len(made) == 3
    assert parts.ingestor.telemetry.get("checkpoints_dropped") == 1


@pytest.mark.parametrize(("nbytes", "written"), [(199, True), (200, False)])
def test_with_room_in_the_journal_a_checkpoint_may_be_larger_for_the_replay_that_it_spares(
    nbytes: int, written: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_policy, "CHECKPOINT_BYTES", 1)
    parts = Parts()
    parts.window(1, 100)
    made: list[Callable[[bytes | None], None]] = []
    parts.engine.checkpoint = lambda model, window, write: made.append(write) or True
    taken: list[int] = []
    parts.database.submit = lambda write, then, nbytes, failed: taken.append(nbytes)
    parts.policy.start_due(Turn(1, chunks={1: []}))
    made[0](bytes(nbytes))
    assert taken == [nbytes] * written


def test_a_window_that_was_reported_is_not_waited_for() -> None:
    parts = Parts()
    parts.window(1, checkpoint_policy.CHECKPOINT_BYTES)
    parts.ingestor.late.is_joining = lambda number: True
    parts.policy.start_due(Turn(1, chunks={1: []}))
    parts.ingestor.unreported.clear()
    parts.policy.start_due(Turn(2))
    assert not parts.policy.waiting


def test_a_full_journal_has_every_window_checkpointed_the_largest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rows are accepted, so no turn has any: what is due is not found by looking at the turn's rows."""
    monkeypatch.setattr(checkpoint_policy, "AT_ONCE", 2)
    parts = Parts()
    for number, nbytes in ((1, 2 * MIB), (2, 6 * MIB), (3, 4 * MIB), (4, 0)):
        parts.window(number, nbytes)
    parts.database.used_bytes = 17 * MIB
    assert not parts.look(1.0)
    assert parts.by() == ["journal_bytes"]
    parts.policy.start_due(Turn(1))
    assert sorted(parts.begun) == [2, 3]
    parts.policy.start_due(Turn(2))
    assert parts.begun[2:] == [1]


# --- the journal's budget --------------------------------------------------------------------------------------------


def test_labels_and_reports_do_not_fill_the_journal() -> None:
    parts = Parts()
    parts.window(1, 12 * MIB)
    parts.database.used_bytes, parts.others = 40 * MIB, 30 * MIB
    assert parts.look(1.0)
    parts.others = 20 * MIB
    assert not parts.look(1.1)


def test_a_journal_that_no_window_could_empty_does_not_pause() -> None:
    parts = Parts()
    parts.database.used_bytes = 40 * MIB
    assert parts.look(1.0)
    parts.window(1, 8 * MIB)
    assert parts.look(1.1)
    parts.window(2, 1)
    assert not parts.look(1.2), "with half of the limit, windows are what fills it"


def test_windows_are_closed_early_only_until_they_hold_less_than_half_of_the_limit() -> None:
    """More of them would not free what others hold."""
    parts = Parts()
    for number in range(1, 13):
        parts.window(number, 0, checkpoint_bytes=MIB)
    parts.database.used_bytes = 80 * MIB
    parts.policy.close_excess()
    assert len(parts.early) == 5


def test_a_full_journal_has_as_many_windows_closed_early_as_it_needs() -> None:
    """Those of the models with most bytes, at once: one after the other they would take minutes."""
    parts = Parts()
    parts.window(1, 0, "small", checkpoint_bytes=4 * MIB)
    for number in range(2, 7):
        parts.window(number, 0, "large", checkpoint_bytes=4 * MIB)
    parts.database.used_bytes = 24 * MIB
    for second in range(1, 20):
        assert not parts.look(float(second))
        assert len(parts.early) == (3 if second > pauses.PATIENCE else 0), second
    assert set(parts.early) == {"large"}
    assert parts.ingestor.telemetry.get("windows_closed_early") == 3


def test_the_next_model_closes_early_if_the_largest_has_nothing_more() -> None:
    parts = Parts()
    parts.window(1, 6 * MIB, "a")
    parts.window(2, 5 * MIB, "b")
    parts.window(3, 4 * MIB, "c")
    parts.database.used_bytes = 24 * MIB
    parts.policy.close_excess()
    assert parts.early == ["a", "b"]


def test_a_journal_that_shrinks_too_slowly_is_not_waited_for() -> None:
    parts = Parts()
    parts.window(1, 0, checkpoint_bytes=20 * MIB)
    parts.database.used_bytes = 24 * MIB
    for second in range(1, 8):
        parts.database.used_bytes -= 1024
        assert not parts.look(float(second))
    assert len(parts.early) == 1


@pytest.mark.parametrize("what", ["closing", "replay", "suspended"])
def test_no_window_is_closed_early_while_the_journal_is_on_its_way(what: str) -> None:
    parts = Parts()
    parts.window(1, 0, checkpoint_bytes=10 * MIB)
    parts.window(2, 0, checkpoint_bytes=10 * MIB)
    parts.database.used_bytes = 24 * MIB
    if what == "closing":
        parts.closing.add(1)
    if what == "replay":
        assert parts.look(0.5, 0)
        parts.database.used_bytes += 2 * MIB
    for second in range(1, 20):
        assert not parts.look(1000.0 * second if what == "suspended" and second < 4 else float(second),
                              second if what == "replay" else None)  # fmt: skip
        if what == "suspended" and second == 4:
            break
    assert not parts.early


def test_replay_goes_on_whatever_the_journal_holds() -> None:
    """Room needs closing, closing needs the rows of the earlier run."""
    parts = Parts()
    parts.window(1, 4 * MIB)
    parts.database.used_bytes = 40 * MIB
    parts.look(1.0, 0)
    parts.database.used_bytes += 2 * MIB
    assert not parts.look(1.1, 0)
    assert parts.pauses.has_room_for_replay
    assert "replay" in parts.pauses.current()[0].ends
    parts.engine.backlog = pauses.ENGINE_BYTES + 1
    assert not parts.look(1.2, 0)
    assert not parts.pauses.has_room_for_replay


def test_a_journal_above_its_limit_takes_rows_during_the_replay_and_grows_by_a_part_of_the_limit() -> None:
    """Only the end of the replay frees it, and that may be minutes away."""
    parts = Parts()
    parts.window(1, 9 * MIB)
    parts.database.used_bytes = 40 * MIB
    assert parts.look(1.0, 0)
    parts.database.used_bytes = 41 * MIB
    assert parts.look(1.1, 10)
    parts.database.used_bytes = 41 * MIB + 1
    assert not parts.look(1.2, 20)
    parts.database.used_bytes = 41 * MIB
    assert parts.look(1.3, 30)
    assert not parts.look(1.4), "the rows are replayed"


def test_a_replay_leaves_room_for_new_rows() -> None:
    parts = Parts()
    parts.engine.backlog = pauses.ENGINE_BYTES // 2 + 1
    assert parts.look(1.0, 0)
    assert not parts.pauses.has_room_for_replay


@pytest.mark.parametrize(("limits", "said"), [
    ('inflight_bytes = 67108864\njournal_bytes = 33554432', "inflight_bytes = 67108864 is more than journal_bytes"),
    ('message_bytes = 67108864\njournal_bytes = 33554432', "message_bytes = 67108864 is more than journal_bytes"),
    ('label_bytes = 67108864\noutbox_bytes = 67108864\njournal_bytes = 33554432', ""),
], ids=["inflight", "message", "budgets of their own"])  # fmt: skip
def test_limits_that_contradict_each_other_are_refused(tmp_path: Path, limits: str, said: str) -> None:
    path = tmp_path / "zmon.toml"
    path.write_text(f"[limits]\n{limits}\n")
    if not said:
        assert load(path).limits.journal_bytes == 32 * MIB
        return
    with pytest.raises(ConfigurationError, match=said):
        load(path)


# --- what is said ----------------------------------------------------------------------------------------------------


def test_every_pause_says_since_when_and_what_ends_it() -> None:
    parts = Parts()
    parts.engine.backlog = pauses.ENGINE_BYTES + 1
    parts.database.pending_bytes = pauses.DATABASE_BYTES + 1
    for tenth in range(30):
        assert not parts.look(tenth / 10)
    assert parts.by() == ["metrics", "disk"]
    assert [round(pause.seconds, 3) for pause in parts.pauses.current()] == [2.9, 2.9]
    assert all(pause.ends for pause in parts.pauses.current())
    parts.database.full = True
    assert not parts.look(3.0)
    assert parts.by() == ["metrics", "disk_full"]
    parts.engine.backlog = 0
    parts.database.pending_bytes = 0
    assert parts.look(3.1)
    assert parts.by() == []
    assert parts.ingestor.telemetry.get("paused", "metrics") == 31


def test_time_in_which_the_process_was_stopped_is_no_pause() -> None:
    parts = Parts()
    parts.engine.backlog = pauses.ENGINE_BYTES + 1
    parts.look(1.0)
    parts.look(3601.0)
    assert parts.pauses.current()[0].seconds <= pauses.STALL


# --- rows that only gather -------------------------------------------------------------------------------------------


def test_rows_that_gather_up_to_the_bound_are_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many agents have few rows each, none enough for a step; with the bound reached no more come."""
    table = Table(tmp_path)
    try:
        for agent in ("a", "b", "c"):
            for frames in messages(
                AB, {"probabilities": np.full((200, 2), 0.5)}, agent=agent, ts=int(table.now.wall * 1e9)
            ):
                table.data(frames)
        service = table.service
        gathered = service.engine.gathered
        assert gathered == service.engine.backlog > 0
        monkeypatch.setattr(pauses, "ENGINE_BYTES", gathered - 1)
        assert not service.pauses.look(table.now)
        assert service.engine.gathered == 0

        def accepts() -> bool:
            service.engine.advance()
            return service.pauses.look(table.now)

        until(accepts, what="rows to be accepted again")
    finally:
        table.end()


# --- a whole collector -----------------------------------------------------------------------------------------------


def small(journal_bytes: int) -> Config:
    return Config(web=WebSection(enabled=False), limits=LimitsSection(journal_bytes=journal_bytes))


def test_a_window_larger_than_the_journal_is_taken_whole(collect: Callable[..., Any]) -> None:
    """Its rows become checkpoints, and the publisher loses none."""
    collector = collect(config=small(4 * MIB), window=3600, sample_rows=100)
    x = np.random.default_rng(0).normal(size=(2000, 100))
    with collector.publisher(classes=2) as publisher:
        for _ in range(8):  # 1.6 MB each
            publisher.publish(np.full((2000, 2), 0.5), inputs=x)
            assert publisher.flush(60)
    assert collector.service.telemetry.get("checkpoints")
    collector.stop()
    assert collector.counts("buffer_count", agent_id=None) == 16_000


def test_a_collector_that_starts_above_its_limit_takes_rows(collect: Callable[..., Any]) -> None:
    x = np.random.default_rng(0).normal(size=(2000, 100))
    collector = collect(window=3600, flush_on_exit=False, sample_rows=100)  # a window keeps its settings
    with collector.publisher(classes=2, agent_id="before") as publisher:
        for _ in range(4):
            publisher.publish(np.full((2000, 2), 0.5), inputs=x)
        assert publisher.flush(60)
    collector.stop()
    again = collect(config=small(2 * MIB), window=3600, sample_rows=100)
    assert again.service.database.used_bytes > 2 * MIB
    with again.publisher(classes=2, agent_id="after") as publisher:
        publisher.publish(np.full((10, 2), 0.5), inputs=x[:10])
        assert publisher.flush(60)
    again.stop()
    assert again.counts("buffer_count", agent_id=None) == 8010
    assert not again.service.telemetry.get("windows_closed_early")


def test_labels_above_the_journals_limit_pause_nothing(collect: Callable[..., Any]) -> None:
    collector = collect(config=small(MIB), sample_rows=100)
    with collector.publisher(classes=2) as publisher:
        for minute in range(3):
            ids = np.arange(10_000) + 10_000 * minute
            publisher.publish(np.full((10_000, 2), 0.5), ids=ids, timestamps=OLD + 60.0 * minute)
            assert publisher.flush(60)
        assert collector.service.ingestor.late.kept_bytes > MIB
    assert not collector.service.telemetry.get("windows_closed_early")
    collector.stop()
    assert collector.counts("buffer_count", agent_id=None) == 30_000


def test_kept_labels_are_known_after_a_start(collect: Callable[..., Any]) -> None:
    """What they take on disk is not the journal's, from the first turn on."""
    collector = collect(window=3600)
    with collector.publisher(classes=2) as publisher:
        publisher.publish(np.full((1000, 2), 0.5), ids=np.arange(1000))
        assert publisher.flush(60)
    collector.stop()
    kept = collector.service.ingestor.late.kept_bytes
    again = collect(window=3600)
    assert again.service.health().label_bytes == kept > 100_000
