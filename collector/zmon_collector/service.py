"""The collector: receive → settle → journal → window → metrics → outbox → sinks. Reads as the diagram in the docs."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from zmon._wire.control import decode_greeting, encode_ack
from zmon._wire.frames import decode, pack
from zmon.contract import Report
from zmon.errors import ConfigurationError, WireError
from zmon.state import pack_state
from zmon_collector.admin import Admin
from zmon_collector.alerts.worker import AlertWorker
from zmon_collector.compute.engine import Engine
from zmon_collector.compute.finalizer import ClosedWindow
from zmon_collector.compute.restatement import Restater
from zmon_collector.config import Config
from zmon_collector.config.policy import PolicyStore
from zmon_collector.config.reload import merged
from zmon_collector.dashboard.live import Live
from zmon_collector.dashboard.plugin_series import declarations
from zmon_collector.dashboard.prometheus import NewestReports, exposition
from zmon_collector.delivery.dead_letters import DeadLetters
from zmon_collector.delivery.dispatch import Deliveries, ObserverDelivery, SinkDelivery
from zmon_collector.delivery.outbox import Outbox, next_sequence
from zmon_collector.ingest.auth import AllowList
from zmon_collector.ingest.checkpoint_policy import CheckpointPolicy
from zmon_collector.ingest.ingestor import Ingestor
from zmon_collector.ingest.receiver import ReceivedMessage, Receiver
from zmon_collector.ingest.recovery import Recovery
from zmon_collector.ingest.retention import Retention
from zmon_collector.ingest.sessions import PendingAck
from zmon_collector.loading import load_plugins, sink_is_on
from zmon_collector.plugins import Registry, check_names
from zmon_collector.storage import journal, label_join
from zmon_collector.storage.database import Database
from zmon_collector.telemetry import Telemetry
from zmon_collector.windows.window import Now

log = logging.getLogger("zmon.collector")

TICK = 0.05  # seconds between looks at what is due
SETTLE = 2.0  # seconds after a start in which publishers reconnect and no window closes
TURN = 256  # messages taken between two looks at what is due
ENGINE_BYTES = 64 * 2**20  # of rows that wait for metrics; beyond it receiving pauses
STORE_BYTES = 64 * 2**20  # of rows that wait for the disk; the same
LEAST_WINDOW = 64 * 2**10  # bytes any publisher may have under way
EXIT_WAIT = 10.0  # seconds that sinks get at the end
ANSWERS_READ = 0.25  # seconds that publishers get at the end: they look every 0.05


class Service:
    """One collector. `run` works until `stop` is called, from a signal handler or another thread.

    Parameters
    ----------
    config : Config
    registry : Registry, optional
        Plugins already loaded; by default all that are installed.
    read : callable, optional
        Reads the configuration anew, for `reload`.
    """

    def __init__(
        self, config: Config, registry: Registry | None = None, read: Callable[[], Config] | None = None
    ) -> None:
        self.config = config
        self._read = read or (lambda: config)
        self._reloading = False
        self.telemetry = Telemetry()
        self.registry = registry or load_plugins(config)
        self._wakeup = threading.Event()
        self._stopping = False
        self._started = 0.0
        self._holding = True
        self.policies = PolicyStore(config)
        self._joined: deque[tuple[frozenset[int], label_join.Joined]] = deque()
        self._durable = config.collector.journal == "on"
        self._recovery: Recovery | None = None
        self.engine = Engine(
            self.registry,
            self.policies,
            sample_bytes=config.limits.sample_bytes,
            workers=config.collector.workers,
            timeout=config.collector.metric_timeout,
            wake=self._wakeup.set,
        )
        self.ingestor = Ingestor(config, self.policies, self.telemetry, self.engine, journal=self._durable)
        self.store = Database(config.collector.data_dir / "state.sqlite", self.telemetry, self._wakeup.set)
        self.compaction = CheckpointPolicy(self.ingestor, self.store)
        self.forgetting = Retention(self.ingestor)
        self.receiver = Receiver(config, self.telemetry, self._wakeup.set)
        self.outbox = Outbox(
            self.store,
            self.telemetry,
            limit=config.limits.outbox_bytes,
            keep=config.limits.outbox_age,
            first=next_sequence(config.collector.data_dir),
        )
        self.aside = DeadLetters(
            self.store, self.telemetry, rows=config.limits.refused_rows, keep=config.limits.refused_age
        )
        self.newest = NewestReports()
        self.admin = Admin(self)
        self.live = Live(config, self.outbox, self.telemetry, self.registry.table, self._metrics)
        self.alerting = AlertWorker(config, self.store, self.outbox, self.telemetry, lambda: self.live.url)
        self.live.alerts = self.alerting.entries
        self.live.declared = declarations(state.metric for state in self.registry.metrics.values())
        self.live.reference = self.engine.references.current
        self.deliveries = Deliveries(
            [
                *(
                    SinkDelivery(sink, self.outbox, self.aside, self.telemetry)
                    for name, sink in self.registry.sinks.items()
                    if sink_is_on(config, name)
                ),
                ObserverDelivery(self._announce, self.outbox, self.telemetry),
                self.alerting,
                *self.live.deliveries,
            ]
        )
        self.restater = Restater(self.store, self.live.memory.restate, self.registry, self.policies)

    def _metrics(self) -> bytes:
        return exposition(self, self.config.health.series)

    def _announce(self, report: Report) -> None:
        self.newest.take(report)
        self.registry.announce(report)

    # --- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Open the store, bind the sockets, start the threads; ConfigurationError when that cannot be."""
        self.config.collector.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.store.open()
        self.store.start()
        try:
            self._restore()
            self.live.start()
            self.receiver.start()
        except BaseException:
            self.store.close(1.0)
            raise
        self.deliveries.start()
        self._started = time.monotonic()
        log.info("collecting on %s (control %s)", self.receiver.data, self.receiver.control)

    def _restore(self) -> None:
        found = self.store.call(journal.load)
        if self._durable:
            self.ingestor.store = found.store
        self._recovery = Recovery(found, self.ingestor, self.store, self._wakeup.set)
        self._recovery.restore(self._now())
        self.store.call(lambda connection: self.outbox.load(connection, self.deliveries.names))
        self.store.call(self.aside.measure)
        self.store.call(self.alerting.load)

    def run(self) -> None:
        """Work until stopped, then finish what is open."""
        while not self._stopping and not self.store.broken:
            self._turn()
        self._finish()

    # Nothing is woken by these: an Event has a lock, which the interrupted thread may hold just then. `run` looks soon.

    def stop(self) -> None:
        """Ask `run` to end. Safe in a signal handler, and twice."""
        self._stopping = True

    def ask_to_reload(self) -> None:
        """Ask `run` to reload. Safe in a signal handler."""
        self._reloading = True

    def reload(self) -> list[str]:
        """Take over a changed configuration, from the next window on; the changed keys that need a restart.

        Raises ConfigurationError, and changes nothing, when the file is not valid.
        """
        new = self._read()
        check_names(self.registry, new.plugins, "plugins")
        check_names(self.registry, new.sinks, "sinks")
        allow = AllowList.of(new.security)
        config, waiting = merged(self.config, new)
        models = self.ingestor.models.values()
        columns = ((model.key[0], model.windows.columns) for model in models)
        self.policies.replace(config, ((name, schema) for name, schema in columns if schema))
        self.config = config
        self.ingestor.reload(self.config)
        self.receiver.auth.replace(allow)
        self.alerting.reload(self.config)
        log.info("configuration reloaded%s", f"; these wait for a restart: {', '.join(waiting)}" if waiting else "")
        return waiting

    @property
    def failed(self) -> bool:
        """The store cannot be written: the process must end with an error, so that somebody looks."""
        return bool(self.store.broken)

    def _turn(self) -> None:
        self._wakeup.wait(TICK)
        self._wakeup.clear()
        now = self._now()
        if self._reloading:
            self._reloading = False
            try:
                self.reload()
            except ConfigurationError as error:
                log.error("the configuration is not valid and nothing is changed: %s", error)
        while self.receiver.requests:  # however much there is to do, and however full it is
            self._take(self.receiver.requests.popleft(), now)
        self._take_joined()
        if self._has_room():
            self._replay()
            for _ in range(TURN):
                received = self.receiver.next_message()
                if received is None:
                    break
                self._take(received, now)
            else:
                self._wakeup.set()  # more is waiting
        self._close_due(now)
        self._commit(now)
        self._deliver(self.engine.completed())
        if self.ingestor.late.used:
            self.restater.turn(now.mono)
        self.live.turn(now.mono, self.admin.health, self.engine.preview)

    def _has_room(self) -> bool:
        """Whether more may be taken in. What is not taken stays with its publishers."""
        for what, is_over in (
            ("metrics", self.engine.backlog > ENGINE_BYTES),
            ("disk", self.store.pending_bytes > STORE_BYTES),
            ("labels", self.compaction.waiting),  # for a moment, so that a checkpoint finds no join under way
            ("journal_bytes", self.store.used_bytes > self.config.limits.journal_bytes),
        ):
            if is_over:
                self.telemetry.count("paused", what)
                return False
        return True

    def _now(self) -> Now:
        return Now(time.time(), time.monotonic())

    def _finish(self) -> None:
        """Settle what was received; close every window if asked to; give the sinks time to write."""
        now = self._now()
        self.live.leave()
        while (received := self.receiver.next_message()) is not None:
            self._take(received, now)
        while self._recovery is not None and not self._recovery.finished and self._flushes and not self.store.broken:
            self._replay()
            self._wakeup.wait(TICK)
            self._wakeup.clear()
            self._take_joined()
            self._deliver(self.engine.completed())
        if self._flushes:
            self.ingestor.end_streams(now, force=True)
            self.ingestor.close_all(now)
        self._commit(now)
        until = time.monotonic() + (self.config.collector.metric_timeout + EXIT_WAIT if self._flushes else 0.0)
        while not (self.engine.idle and self.ingestor.late.idle) and time.monotonic() < until:
            self._wakeup.wait(TICK)
            self._wakeup.clear()
            self._take_joined()
            self._deliver(self.engine.completed())
        if not self.store.broken:
            self.store.wait(EXIT_WAIT)  # so that the last acknowledgements are sent
        if self.ingestor.sessions.connected:  # what a publisher has not looked at libzmq drops when the connection ends
            for _ in range(5):  # not in one go: a machine that stands still costs one part only
                time.sleep(ANSWERS_READ / 5)
        self.receiver.stop()
        self.outbox.end()
        late = self.deliveries.join(EXIT_WAIT)
        if late:
            log.warning("did not wait for %s; reports that go on waiting: %d", ", ".join(late), len(self.outbox))
        self.live.stop()
        self.engine.shutdown()
        if not self.store.close(EXIT_WAIT):
            log.error("the last rows could not be written; their publishers send them again")
        log.info("stopped: %s", ", ".join(f"{name} {count}" for name, count in self.telemetry.snapshot().items()))

    @property
    def _flushes(self) -> bool:
        """Whether open windows are closed at the end; without a journal they would be lost."""
        return self.config.collector.flush_on_exit or not self._durable

    # --- receive and settle ------------------------------------------------------------------------------------------

    def _take(self, received: ReceivedMessage, now: Now) -> None:
        try:
            if received.kind == "data":
                message = decode(received.frames)
                self.receiver.auth.check(received.user, message.topic)
                self.live.batch_tap.record(message, now.wall, now.mono)
                self.ingestor.handle_message(message, now, received.user)
            elif received.kind == "control":
                if len(received.frames) != 1:
                    raise WireError("frames", f"{len(received.frames)} frames on the control socket")
                greeting = decode_greeting(received.frames[0])
                self.receiver.auth.check(received.user, greeting.topic)
                self.ingestor.handle_greeting(greeting, received.peer, now, received.user)
            else:
                self.admin.answer(received.frames, partial(self._reply, received.peer))
        except WireError as error:
            self.telemetry.count("rejected_messages", error.reason)
            log.debug("message rejected: %s", error)
        except Exception:  # whatever one sender's bytes do, the others are served
            if not self.telemetry.get("rejected_messages", "internal"):
                log.exception("a message from %s could not be dealt with; further ones are counted", received.kind)
            self.telemetry.count("rejected_messages", "internal")

    def _reply(self, peer: bytes, answer: dict[str, Any]) -> None:
        self.receiver.reply("admin", peer, pack(answer))
        self.receiver.flush()

    # --- journal -----------------------------------------------------------------------------------------------------

    def _commit(self, now: Now) -> None:
        """Hand over what this turn decided; acknowledge when it is on disk."""
        turn, acks, waiting = self.ingestor.end_turn(now)
        if turn:

            def done(joined: label_join.Joined) -> None:
                if waiting:
                    self._joined.append((waiting, joined))
                    self._wakeup.set()
                self._acknowledge(acks)

            self.store.submit(lambda connection: journal.write(turn, connection), done, turn.nbytes)
        elif acks:
            self.store.submit(None, lambda _: self._acknowledge(acks))
        if self._recovery is None:  # else not all rows of the windows are there yet
            self.compaction.start_due(turn)

    def _take_joined(self) -> None:
        """What the labels of earlier turns have completed, now on disk."""
        while self._joined:
            self.ingestor.handle_joined(*self._joined.popleft())

    def _acknowledge(self, acks: list[PendingAck]) -> None:
        share = max(LEAST_WINDOW, self.config.limits.inflight_bytes // max(1, self.ingestor.sessions.connected))
        for ack in acks:
            self.receiver.reply(
                "control", ack.peer, encode_ack(ack.stream, ack.row, share, need=ack.need, store=self.ingestor.store)
            )
        self.receiver.flush()

    def _replay(self) -> None:
        if self._recovery is not None:
            self._recovery.advance()
            if self._recovery.finished:
                if self._recovery.replayed:
                    log.info("replayed %d rows", self._recovery.replayed)
                self.telemetry.count("replayed", by=self._recovery.replayed)
                self._recovery = None

    # --- close, compute, deliver -------------------------------------------------------------------------------------

    def _close_due(self, now: Now) -> None:
        since = now.mono - self._started
        if since < SETTLE or self._recovery is not None:
            return
        idle = self.config.collector.idle
        self._holding = self._holding and (since < idle or self.ingestor.sessions.is_behind(now, idle))
        if self.receiver.caught_up:  # rows that a goodbye has overtaken may still be waiting
            self.ingestor.end_streams(now)
        self.ingestor.close_due(now, hold=self._holding)
        for model in self.forgetting.forget_silent(now):
            self.engine.references.forget(model)
            self.policies.forget(model[0])

    def _deliver(self, closed: list[ClosedWindow]) -> None:
        """One transaction a window: its report into the outbox, the window forgotten, plugin memory replaced."""
        for each in closed:
            self.telemetry.count("windows")
            self._close(each, self.ingestor.finish_window(each))

    def _close(self, closed: ClosedWindow, tags: Any) -> None:
        write_report, written = self.outbox.prepare(closed, tags) if closed.points else (None, None)

        def write(connection: Any) -> int:
            memory = {key: pack_state(kept) for key, kept in closed.memory.items()}
            journal.write_closed(closed.number, closed.model, memory, connection)
            return write_report(connection) if write_report is not None else 0

        def done(nbytes: int) -> None:
            if written is not None:
                written(nbytes)
            self.store.sweep(closed.number, self.ingestor.turn.number)

        self.store.submit(write, done)
