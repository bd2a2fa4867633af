"""The collector's thread: ingest → windows → compute → delivery, turn by turn, until it is stopped.

Every turn receives messages, assigns their rows to windows, hands what was decided to the database, and delivers the
windows that are computed. Parts with threads of their own only wake this one.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from sqlite3 import Connection

from zmon_collector.admin import Admin, OutboxAnswers
from zmon_collector.build import Parts
from zmon_collector.compute.finalizer import ClosedWindow
from zmon_collector.config import Config
from zmon_collector.health import HealthReport
from zmon_collector.ingest.acks import PendingAck, fair_share
from zmon_collector.ingest.recovery import Recovery
from zmon_collector.lifecycle import finish, restore, watch
from zmon_collector.loading import load_plugins
from zmon_collector.messages import MessageHandler
from zmon_collector.plugins import Registry
from zmon_collector.private_files import open_folder
from zmon_collector.reloader import Reloader
from zmon_collector.storage import journal, label_join
from zmon_collector.windows.window import Now

log = logging.getLogger("zmon.collector")

TICK = 0.05  # seconds that a turn waits to be woken
LOOK_EVERY = 1.0  # seconds between two looks at the collector's health
SETTLE = 2.0  # seconds after a start in which publishers reconnect and no window closes
TURN_MESSAGES = 256  # handled in one turn
TURN_SECONDS = 0.2  # the same: an operator's question waits for the end of a turn
TURN_BYTES = 16 * 2**20  # the same: a turn is one transaction, and before the next one its rows count for the pauses
EXIT_WAIT = 10.0  # seconds that the settling of what was received gets at the end, and metrics beyond their timeout


class Service:
    """One collector. `run` works until `stop` is called, from a signal handler or another thread.

    Parameters
    ----------
    config : Config
    registry : Registry, optional
        Plugins already loaded; by default all that are installed.
    read : callable, optional
        Reads the configuration again, for a reload.
    """

    def __init__(
        self, config: Config, registry: Registry | None = None, read: Callable[[], Config] | None = None
    ) -> None:
        self.wakeup = threading.Event()  # set by any thread to have the next turn at once
        self._parts = parts = Parts(config, registry or load_plugins(config), self.wakeup.set)
        self.telemetry, self.registry = parts.telemetry, parts.registry
        self.receiver, self.ingestor, self.database = parts.receiver, parts.ingestor, parts.database
        self.checkpoint_policy, self.pauses, self.retention = parts.checkpoint_policy, parts.pauses, parts.retention
        self.engine, self.restater = parts.engine, parts.restater
        self.outbox, self.deliveries = parts.outbox, parts.deliveries
        self.alert_worker, self.live = parts.alert_worker, parts.live
        self.metrics_page, self.site, self.watchdog = parts.metrics_page, parts.site, parts.watchdog
        self.reloader = Reloader(config, read or (lambda: config), parts)
        outbox_answers = OutboxAnswers(self.outbox, parts.dead_letters, self.deliveries)
        admin = Admin(self.live, self.database, outbox_answers, self.reloader.reload)
        self.message_handler = MessageHandler(parts, admin)
        self.recovery: Recovery | None = None  # until all rows of an earlier run are replayed
        self._joined: deque[tuple[frozenset[int], label_join.Joined]] = deque()  # from the database's thread
        self._unwritten: deque[tuple[ClosedWindow, Exception]] = deque()  # from the database's thread
        self._stopping = self._reloading = False
        self._error = ""  # that ended the collector's own thread
        self.turns: int | None = None  # that were begun; None while the thread does something else
        self._ident: int | None = None
        self.started = self._next_look = 0.0  # monotonic
        self._holding = True  # no window closes by the clock before publishers have sent again what they still hold

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self.reloader.config

    @property
    def failed(self) -> bool:
        """Whether it ended by an error: the process must end with one, so that somebody looks."""
        return bool(self.database.broken or self._error)

    def health(self) -> HealthReport:
        """Measure the collector's health now."""
        return self._parts.inspect()

    # --- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Open the database, bind the sockets, start the threads; raise ConfigurationError if that is impossible."""
        open_folder(self.config.collector.data_dir, "[collector] data_dir")
        self.database.open()
        self.database.start()
        try:
            # Before anything is restored: publishers connect and get first answers meanwhile, and what they send waits
            # in the inbox.
            self.receiver.start()
            self.recovery = restore(self._parts, self._now(), self.wakeup.set)
        except BaseException:
            self.receiver.stop()
            self.site.stop()
            self.database.close(1.0)
            raise
        self.site.ready = True
        self.alert_worker.link_to(self.site.url)
        self.deliveries.start()
        watch(self._parts, lambda: self.turns, lambda: self._ident)
        self.started = time.monotonic()
        log.info("collecting on %s (control %s)", self.receiver.data, self.receiver.control)

    def run(self) -> None:
        """Work until stopped, then finish what is open."""
        try:
            self._work()
            self._stop_watching()
            self._settle()
        except (Exception, SystemExit) as error:
            # What the turn has decided is half of the truth, and is not committed: publishers send its rows again.
            log.exception("the collector's own thread failed; the collector stops")
            self._error = f"{type(error).__name__}: {error}"
            self._stop_watching()
        finish(self._parts)

    def _work(self) -> None:
        self._ident, self.turns = threading.get_ident(), 0
        while not self._stopping and not self.database.broken:
            if not self.database.is_alive():
                raise RuntimeError("the thread of the database has ended")
            self.turns += 1
            self._run_turn()

    def _stop_watching(self) -> None:
        """Let threads end without a fault, and viewers go: they must not wait for sinks that take their time."""
        self.turns = None
        self.watchdog.stop()
        self.site.stop()

    # These only set a flag: waking the thread takes the lock of its Event, and in a signal handler that thread may be
    # interrupted just while it holds the lock. It would wait for itself. The next turn comes within TICK anyway.

    def stop(self) -> None:
        """Request the end of `run`. Safe in a signal handler, and twice."""
        self._stopping = True

    def request_reload(self) -> None:
        """Request a reload of the configuration. Safe in a signal handler."""
        self._reloading = True

    def _now(self) -> Now:
        return Now(self._parts.clock.wall(), time.monotonic())

    # --- one turn ----------------------------------------------------------------------------------------------------

    def _run_turn(self) -> None:
        """Do what is due, and wait before that for at most TICK until something is."""
        self._wait()
        now = self._now()
        if self._reloading:
            self._reloading = False
            self.reloader.reload_or_log()
        self._answer_requests(now)
        self._add_joined()
        self._give_up_unwritten(now)
        accepts = self.pauses.look(now, self.recovery.replayed if self.recovery is not None else None)
        if self.pauses.has_room_for_replay:
            self._replay()
        if accepts:
            self._receive(now)
        self.close_due(now)
        self._commit(now)
        self._write_reports()
        if self.ingestor.late.used:
            self.restater.turn(now.mono)
        if now.mono >= self._next_look:
            self._next_look = now.mono + LOOK_EVERY
            health = self.health()
            self.metrics_page.update(health)
            self.live.record_health(health, now.mono)
        self.live.turn(now.mono)

    def _wait(self) -> None:
        self.wakeup.wait(TICK)
        self.wakeup.clear()

    def _answer_requests(self, now: Now) -> None:
        """Answer operators, however much there is to do and however full the queues are."""
        if self.receiver.requests:
            self.live.health = self.health()  # an operator sees this moment, not the last look
        while self.receiver.requests:
            self.message_handler.handle(self.receiver.requests.popleft(), now)

    # --- ingest ------------------------------------------------------------------------------------------------------

    def _replay(self) -> bool:
        """Replay rows of an earlier run from the journal, a few chunks a turn. Return whether that is finished."""
        if self.recovery is not None:
            self.recovery.advance()
            if self.recovery.finished:
                if self.recovery.replayed:
                    log.info("replayed %d rows", self.recovery.replayed)
                self.telemetry.count("replayed", by=self.recovery.replayed)
                self.recovery = None
        return self.recovery is None

    def _receive(self, now: Now) -> None:
        nbytes, until = 0, time.monotonic() + TURN_SECONDS
        for _ in range(TURN_MESSAGES):
            received = self.receiver.next_message()
            if received is None:
                return
            self.message_handler.handle(received, now)
            nbytes += sum(map(len, received.frames))
            if nbytes >= TURN_BYTES or time.monotonic() > until:
                break
        self.wakeup.set()  # more is waiting

    def _commit(self, now: Now) -> None:
        """Hand the turn's decisions to the database. Acknowledge only what is on disk: a kill must lose nothing."""
        turn, acks, waiting = self.ingestor.end_turn(now)
        if turn:

            def committed(joined: label_join.Joined) -> None:
                if waiting:
                    self._joined.append((waiting, joined))
                    self.wakeup.set()
                self._acknowledge(acks)

            self.database.submit(lambda connection: journal.write(turn, connection), committed, turn.nbytes)
        elif acks:
            self.database.submit(None, lambda _: self._acknowledge(acks))  # behind the writes that they depend on
        if self.recovery is None:  # else some rows of the windows are not replayed yet
            self.checkpoint_policy.start_due(turn)

    def _acknowledge(self, acks: list[PendingAck]) -> None:
        """Send acknowledgements, with each publisher's share of the unacknowledged bytes. In the database's thread."""
        limits = self.config.limits
        share = fair_share(limits.inflight_bytes, self.ingestor.sessions.connected)
        for ack in acks:
            frame = ack.encode(share, self.ingestor.store_id, limits.message_bytes)
            self.receiver.reply("control", ack.peer, frame)
        self.receiver.flush()

    def _add_joined(self) -> None:
        """Add predictions that labels of earlier turns have completed, now that both are on disk."""
        while self._joined:
            self.ingestor.handle_joined(*self._joined.popleft())

    # --- windows, compute, delivery ----------------------------------------------------------------------------------

    def close_due(self, now: Now) -> None:
        """Close the windows that are due. After a start, none before publishers have had time to reconnect."""
        since = now.mono - self.started
        if since < SETTLE or self.recovery is not None:
            return
        idle = self.config.collector.idle
        self._holding = self._holding and (since < idle or self.ingestor.sessions.is_behind(now, idle))
        if self.receiver.caught_up:  # else rows that a goodbye has overtaken may be waiting
            self.ingestor.end_streams(now)
        self.ingestor.close_due(now, hold=self._holding)
        self.retention.forget_silent(now)

    def _write_reports(self) -> None:
        """Put each window's report into the outbox, drop its rows and replace changed memory, in one transaction."""
        for closed in self.engine.advance():
            self.telemetry.count("windows")
            self._write_report(closed, self.ingestor.finish_window(closed))

    def _write_report(self, closed: ClosedWindow, tags: Mapping[str, Mapping[str, str]]) -> None:
        write_report, written = self.outbox.prepare(closed, tags) if closed.points else (None, None)

        def write(connection: Connection) -> int:
            journal.write_closed(closed.number, closed.model, closed.memory, connection)
            return write_report(connection) if write_report is not None else 0

        def committed(nbytes: int) -> None:
            if written is not None:
                written(nbytes)
            self.database.delete_chunks(closed.number, self.ingestor.turn.number)

        def failed(error: Exception) -> None:
            self._unwritten.append((closed, error))
            self.wakeup.set()

        self.database.submit(write, committed, failed=failed)

    def _give_up_unwritten(self, now: Now) -> None:
        """Count the rows of windows whose reports the database did not take, for instance because of their size."""
        while self._unwritten and not self.database.broken:
            closed, error = self._unwritten.popleft()
            self.telemetry.count("reports_unwritten")
            log.error("the report of model %r for the window from %d to %d cannot be written; its rows are lost: %s",
                      closed.model[0], closed.window.start, closed.window.end, error)  # fmt: skip
            self.ingestor.lose_window(closed, now)
            self.database.delete_chunks(closed.number, self.ingestor.turn.number)

    # --- the end -----------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Settle what was received, and close windows that cannot wait for the next run."""
        now = self._now()
        # What is not settled in time is not acknowledged: its publishers send it again.
        until = time.monotonic() + EXIT_WAIT
        while time.monotonic() < until and (received := self.receiver.next_message()) is not None:
            self.message_handler.handle(received, now)
        if self._flushes:
            self._deliver_until(lambda: self._replay() or self.failed, math.inf)
            self.ingestor.end_streams(now, force=True)
            self.ingestor.close_all(now)
        self._commit(now)
        seconds = self.config.collector.metric_timeout + EXIT_WAIT if self._flushes else 0.0
        self._deliver_until(lambda: self.engine.idle and self.ingestor.late.idle, seconds)

    @property
    def _flushes(self) -> bool:
        """Whether open windows are closed at the end; without a journal, or with a removed one, they would be lost."""
        collector = self.config.collector
        return collector.flush_on_exit or collector.journal != "on" or self.database.removed

    def _deliver_until(self, done: Callable[[], bool], seconds: float) -> None:
        """Deliver until `done`, but no longer than `seconds` without any progress of the metrics."""
        until, steps = time.monotonic() + seconds, self.engine.ended_steps
        while not done() and time.monotonic() < until:
            self._wait()
            self._add_joined()
            self._write_reports()
            if self.engine.ended_steps != steps:  # a close takes as long as its agents and features need
                until, steps = time.monotonic() + seconds, self.engine.ended_steps
