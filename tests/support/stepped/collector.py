"""The collector that is moved step by step: its life, its publishers, its steps, and what came of it."""

from __future__ import annotations

import atexit
import contextlib
import tempfile
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import greenlet
from zmon_collector import build, pauses, service
from zmon_collector.clock import Clock as NeverBack
from zmon_collector.compute import batcher, executors
from zmon_collector.config import Config, parse
from zmon_collector.dashboard.live import Live
from zmon_collector.dashboard.web.site import Site
from zmon_collector.delivery import report_codec
from zmon_collector.delivery.dispatch import Deliveries
from zmon_collector.ingest import checkpoint_policy
from zmon_collector.ingest.receiver import ReceivedMessage, Receiver
from zmon_collector.service import Service
from zmon_collector.storage import database
from zmon_collector.storage.integrity import unseal
from zmon_collector.watchdog import Watchdog

from tests.support.stepped.clock import Clock, clocks, replaced
from tests.support.stepped.disk import Disk, Killed, Pauses, connect, flip
from tests.support.stepped.lanes import Lane, Wakeup
from tests.support.stepped.metrics import registry
from tests.support.stepped.publishers import Sender
from zmon._wire import control
from zmon.contract import Report

SMALL = (  # so few rows reach every bound
    (batcher, "MICRO_ROWS", 4),
    (batcher, "FOLD_AT", 2),
    (batcher, "QUEUE_BYTES", 4096),
    (checkpoint_policy, "WORTH", 2**40),
    (pauses, "ENGINE_BYTES", 1024),
    (pauses, "DATABASE_BYTES", 1024),
    (service, "LOOK_EVERY", 3600.0),  # nobody looks at the collector's health
)


class Opening(NamedTuple):
    """What held when a window opened."""

    end: int
    scale: int


@cache
def _folder() -> str:
    """A folder in which nothing is ever written, since the database is in memory."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return folder.name


class Stepped:
    """A collector that takes a step when the test says so, dies, and starts again on the same disk.

    Attributes
    ----------
    opened : dict
        What held when each window opened, by (model and version, start).
    """

    def __init__(self, options: Mapping[str, Any], checkpoint_bytes: int) -> None:
        self.clock = Clock()
        self.moods: dict[str, str] = {}
        self.senders: list[Sender] = []
        self.connection = connect()
        self.config = self._parsed(options)
        self.opened: dict[tuple[tuple[str, str], int], Opening] = {}
        disk = type("Disk", (Disk,), {"connection": self.connection})
        none = lambda *_: None  # noqa: E731 - stands for what a test does not start
        self._lanes: list[Lane] = []
        lane = type("Lane", (Lane,), {"lanes": self._lanes})
        self._patches = contextlib.ExitStack()
        self._patches.enter_context(
            replaced(
                *SMALL,
                (checkpoint_policy, "CHECKPOINT_BYTES", checkpoint_bytes),
                (build, "Database", disk),
                (build, "Clock", lambda: NeverBack(self.clock.time, self.clock.monotonic)),
                (executors, "ThreadPoolExecutor", lane),
                *((owner, "start", none) for owner in (Receiver, Live, Site, Deliveries, Watchdog)),
                (Live, "turn", none),
                *clocks(self.clock),
                (database, "time", Pauses(self.clock)),
            )
        )
        self.deaths = 0
        self._start()

    @staticmethod
    def _parsed(options: Mapping[str, Any]) -> Config:
        return parse({**options, "collector": {**options["collector"], "data_dir": _folder()}})

    def _start(self) -> None:
        self._lanes.clear()
        self.service = Service(self.config, registry(self.moods), lambda: self.config)
        self.service.receiver.reply = self._reply  # type: ignore[method-assign]
        for sender in self.senders:
            if not sender.gone:
                sender.leaving = False
                sender.connect()
                self.greet(sender, "hello")  # which is answered while the state is restored
        self.service.start()
        self.service.wakeup = Wakeup()  # type: ignore[assignment]
        self._thread = greenlet.greenlet(self.service.run)  # which stands where it waits for the next turn
        self._thread.switch()
        self.disk: Any = self.service.database

    def end(self) -> None:
        self.service.receiver.close()
        self._patches.close()
        self.connection.close()

    def kill(self) -> None:
        """The process ends here, and starts again; publishers that are there connect."""
        self.deaths += 1
        self.service.receiver.close()
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")
        self._forget_undone()
        self._note_goodbyes()
        self._start()

    def _forget_undone(self) -> None:
        """Forget windows that the disk does not know: they may open again, otherwise."""
        rows = self.connection.execute
        known = {
            ((model, version), start) for model, version, start in rows("SELECT model, version, start FROM windows")
        }
        closed = rows('SELECT model, version, start, "end" FROM spans').fetchall()
        known |= {
            (key, at) for key, at in self.opened for *of, start, end in closed if tuple(of) == key and start <= at < end
        }
        self.opened = {window: opening for window, opening in self.opened.items() if window in known}

    # --- publishers --------------------------------------------------------------------------------------------------

    def join(self, model: str, agent: str) -> Sender:
        sender = Sender(model, agent, len(self.senders).to_bytes(16, "big"))
        self.senders.append(sender)
        self.greet(sender, "hello")
        return sender

    def greet(self, sender: Sender, kind: str, *, overtakes: bool = False) -> None:
        """Send a greeting; `overtakes` all that is under way."""
        message = ReceivedMessage("control", [sender.greeting(kind)], sender.stream)
        if overtakes:
            self.service.receiver.inbox.appendleft(message)
        else:
            self.service.receiver.inbox.append(message)

    def leave(self, sender: Sender, *, overtakes: bool = False) -> None:
        sender.closing = sender.leaving = True
        self.greet(sender, "bye", overtakes=overtakes)

    def send(self, sender: Sender) -> bool:
        """Send the next message of a publisher; whether there was one."""
        piece = sender.next_piece()
        if piece is None:
            return False
        schema, batch = piece.frames(sender.topic, sender.stream, sender.base, sender.tally)
        if piece.schema not in sender.schemas:
            sender.schemas.append(piece.schema)
            self.service.receiver.inbox.append(ReceivedMessage("data", schema, b""))
        self.service.receiver.inbox.append(ReceivedMessage("data", batch, b""))
        sender.sent = piece.last
        return True

    def _reply(self, kind: str, peer: bytes, frame: bytes) -> None:
        ack = control.decode_ack(frame)
        for sender in self.senders:
            if sender.stream == ack.stream:
                sender.acknowledge(ack)

    # --- steps -------------------------------------------------------------------------------------------------------

    def turn(self) -> None:
        self._thread.switch()
        assert not self.service.failed and not self._thread.dead, "the collector has ended by itself"
        for key, state in self.service.ingestor.models.items():
            for start, window in state.windows.open.items():
                if (key, start) not in self.opened:
                    scale = self.config.models[key[0]].metrics["kept"]["scale"]
                    self.opened[key, start] = Opening(window.end, scale)

    def work(self, most: int = 10**6) -> int:
        """Run steps of metrics; return how many there were."""
        for done in range(most):
            if not any(lane.work() for lane in list(self._lanes)):
                return done
        return most

    def catch_up(self) -> None:
        """Take turns until sound metrics have done what there is to do: they are quick, measured by the clock."""
        self.turn()
        while self.work():
            self.turn()

    def resume(self) -> None:
        for lane in list(self._lanes):
            lane.resume()

    def commit(self, most: int = 1000, *, dies: bool = False) -> None:
        """Commit at most so many jobs in one transaction; with `dies`, the process ends just after it."""
        self.disk.dies = dies
        self._commit(most)
        self.disk.dies = False

    def commit_all(self) -> None:
        """Commit all jobs, and delete what is not needed any more."""
        while self._commit():
            pass

    def _commit(self, most: int = 1000) -> bool:
        try:
            done: bool = self.disk.commit(most)
        except Killed:  # as was asked for now, or before the disk was full
            self.kill()
            return True
        self._note_goodbyes()
        return done

    def _note_goodbyes(self) -> None:
        for sender in self.senders:
            if sender.leaving and not sender.gone:
                row = self.connection.execute("SELECT gone FROM streams WHERE id = ?", (sender.stream,)).fetchone()
                sender.gone = row is not None and bool(row[0])

    def damage(self, table: str, row: int, column: int, bit: int) -> bool:
        """Flip a bit in a row of the disk; whether there was one."""
        return flip(self.connection, table, row, column, bit)

    def reload(self, options: Mapping[str, Any]) -> None:
        self.config = self._parsed(options)
        self.service.request_reload()

    # --- what came of it ---------------------------------------------------------------------------------------------

    @property
    def at_rest(self) -> bool:
        """Whether nothing is on its way to a report."""
        models = self.service.ingestor.models.values()
        return (
            not self.service.receiver.inbox
            and self.service.recovery is None
            and self.service.engine.idle
            and self.service.ingestor.late.idle
            and not self.service.ingestor.unreported
            and not self.disk.jobs
            and not len(self.service.ingestor.sessions)
            and not any(model.windows.open or model.windows.unplaced for model in models)
        )

    def reports(self) -> list[Report]:
        """The reports on disk, in the order in which they were written."""
        rows = self.connection.execute("SELECT crc, data, sequence FROM reports ORDER BY sequence").fetchall()
        return [report_codec.decode(unseal(*row)) for row in rows]

    def waiting_labels(self, model: str) -> int:
        """Labels on disk whose rows have not come."""
        query = "SELECT count(*) FROM labels_waiting JOIN label_owners USING (owner) WHERE model = ?"
        return int(self.connection.execute(query, (model,)).fetchone()[0])
