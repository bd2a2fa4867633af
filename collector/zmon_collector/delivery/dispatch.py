"""One thread for each reader of reports: a slow or failing one does not delay the others."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

from zmon.backoff import Backoff
from zmon.bases import attach, resend_of
from zmon.contract import Report, Sink
from zmon.errors import RetryLater
from zmon_collector.delivery.dead_letters import DeadLetters
from zmon_collector.delivery.outbox import Outbox, Redelivery
from zmon_collector.supervision import SupervisedThread
from zmon_collector.telemetry import Telemetry

log = logging.getLogger("zmon.collector")

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds between tries, whatever a sink requests
LAST_PIECE = 2.0  # seconds that a sink gets to finish the request in progress and record it
# Seconds without an error before a reader's state is ok again: the reports of other models succeed meanwhile.
FAILING = 600.0
ATTEMPTS = 5  # for a report on which a sink fails without RetryLater


class Delivery(ABC):
    """The thread that hands the outbox's reports to one reader, in order, until the outbox ends or `join` times out."""

    def __init__(self, name: str, outbox: Outbox, telemetry: Telemetry) -> None:
        self.name = name
        self.state = "ok"
        self.error = ""  # while it is failing
        self._last_kind = ""  # the kind of error last logged
        self._outbox = outbox
        self._telemetry = telemetry
        self._stop = threading.Event()
        self.thread = SupervisedThread(f"zmon-{name}", self._run, telemetry, self._stop)

    def start(self) -> None:
        self.thread.start()

    def threads(self) -> list[SupervisedThread]:
        """Return its threads, which are watched."""
        return [self.thread]

    def problem(self) -> str:
        """Return what an operator should know; empty while all is well."""
        return f"sink {self.name} is failing, its reports remain queued: {self.error}" if self.error else ""

    def join(self, timeout: float) -> bool:
        """Wait for the last report; return False when it takes longer and is left to the next run."""
        self.thread.join(timeout)
        self._stop.set()
        return self.thread.join(LAST_PIECE)

    def _run(self) -> None:
        while not self._stop.is_set():
            with self.thread.waiting():
                item = self._outbox.wait_for_next(self.name)
            if item is None:
                break
            if isinstance(item, Redelivery):
                self._redeliver(item)
                continue
            if not self._deliver(item):
                break  # it stays in the outbox for the next run
            self._outbox.mark_done(self.name, item.sequence)

    def _redeliver(self, redelivery: Redelivery) -> None:  # noqa: B027 - only sinks have dead letters
        """Send dead letters again."""

    @abstractmethod
    def _deliver(self, report: Report) -> bool:
        """Handle a report, successfully or not; return False when it was interrupted by `stop` and must come again."""

    def _pause(self, seconds: float) -> None:
        with self.thread.waiting():
            self._stop.wait(min(seconds, LONGEST_WAIT))


class SinkDelivery(Delivery):
    """A sink's thread: opens the sink, retries what fails, closes it."""

    def __init__(self, sink: Sink, outbox: Outbox, dead_letters: DeadLetters, telemetry: Telemetry) -> None:
        super().__init__(sink.name, outbox, telemetry)
        self._sink = sink
        self._dead_letters = dead_letters

    @property
    def resends(self) -> bool:
        """Whether the sink can send dead letters again."""
        return resend_of(self._sink) is not None

    def _run(self) -> None:
        backoff = Backoff(FIRST_WAIT, LONGEST_WAIT)
        while not self._stop.is_set():
            try:
                attach(self._sink, self._dead_letters.ledger(self.name, self._is_stopped))
                self._sink.open()
                break
            except BaseException as error:  # noqa: BLE001 - a sink may raise anything, SystemExit included
                wait = backoff.next()
                self._fail(f"cannot be opened, trying again in {wait:g} s", error)
                self._pause(wait)
        try:
            super()._run()
        finally:
            try:
                self._sink.close()
            except BaseException as error:  # noqa: BLE001
                self._fail("failed to close", error)

    def _is_stopped(self) -> bool:
        """Return whether to stop; sinks ask between the pieces of a report, which may take long at a quota."""
        self.thread.beat()
        return self._stop.is_set()

    def _deliver(self, report: Report) -> bool:
        written = self._retry(lambda: self._sink.write(report), f"report {report.sequence}")
        if written:
            self._telemetry.count("sink_written", self.name)
        return written is not None

    def _redeliver(self, redelivery: Redelivery) -> None:
        resend = resend_of(self._sink)
        if resend is not None:
            ids = redelivery.ids
            self._retry(lambda: self._dead_letters.resend(ids, resend), f"{len(ids)} set-aside samples")

    def _retry(self, call: Callable[[], None], what: str) -> bool | None:
        """Call until it succeeds: return True, False after the last attempt, None when interrupted by `stop`.

        RetryLater says that the report is fine and the target is not: that is tried without end, and the outbox is
        bounded. Any other exception may be the report's fault, so the reports behind it must not wait forever.
        """
        attempt, backoff = 0, Backoff(FIRST_WAIT, LONGEST_WAIT)
        while not self._stop.is_set():
            try:
                call()
            except RetryLater as error:
                self._fail("will be tried again", error)
                self._pause(error.after)
            except BaseException as error:  # noqa: BLE001
                attempt += 1
                if attempt == ATTEMPTS:
                    self._fail(f"gives up {what} after {ATTEMPTS} attempts", error)
                    self._telemetry.count("sink_failed", self.name)
                    return False
                self._fail("failed, trying again", error)
                self._pause(backoff.next())
            else:
                self.state, self.error = "ok", ""
                return True
        return None

    def _fail(self, what: str, error: BaseException) -> None:
        kind = type(error).__name__
        if self.state == "ok" or kind != self._last_kind:  # a token that expired must not hide behind an outage
            self._last_kind = kind
            log.warning("sink %r %s: %s: %s", self.name, what, kind, error)
        self.state = "failing"
        self.error = f"{kind}: {error}"
        self._telemetry.count("sink_errors", self.name)


class OwnReader(Delivery):
    """A reader of the collector's own: an error costs it the report, so that those behind do not wait.

    Parameters
    ----------
    name : str
    trouble : str
        What to say to an operator while it fails.
    """

    def __init__(self, name: str, trouble: str, outbox: Outbox, telemetry: Telemetry) -> None:
        super().__init__(name, outbox, telemetry)
        self._trouble = trouble
        self._logged: set[str] = set()  # kinds of errors, each logged once
        self._failed_at = 0.0

    def problem(self) -> str:
        return f"{self._trouble}: {self.error}" if self.error else ""

    def _deliver(self, report: Report) -> bool:
        self._guarded(lambda: self._read(report))
        return True

    @abstractmethod
    def _read(self, report: Report) -> None:
        """Handle a report; an exception costs it."""

    def _guarded(self, call: Callable[[], object]) -> None:
        """Run a call; an error is counted and said in health."""
        try:
            call()
        except BaseException as error:  # SystemExit of a plugin, too: it would end the thread only
            kind = type(error).__name__
            if kind not in self._logged:
                self._logged.add(kind)
                log.exception("%s; further errors of this kind are only counted", self._trouble)
            self._count(kind)
            self.state, self.error = "failing", f"{kind}: {error}"
            self._failed_at = time.monotonic()
        else:
            if self.error and time.monotonic() - self._failed_at >= FAILING:
                self.state, self.error = "ok", ""

    def _count(self, kind: str) -> None:
        self._telemetry.count(f"{self.name}_failed", kind)


class ObserverDelivery(OwnReader):
    """The observers' thread: plugins that implement `window_closed`."""

    def __init__(self, announce: Callable[[Report], None], outbox: Outbox, telemetry: Telemetry) -> None:
        super().__init__("observers", "observers fail on reports, which they miss", outbox, telemetry)
        self._announce = announce

    def _read(self, report: Report) -> None:
        self._announce(report)


class Deliveries:
    """The threads of all readers."""

    def __init__(self, *deliveries: Delivery) -> None:
        self._deliveries = deliveries
        self.names = [delivery.name for delivery in deliveries]

    def start(self) -> None:
        for delivery in self._deliveries:
            delivery.start()

    def join(self, timeout: float) -> list[str]:
        """Wait for the last reports; return the names of the readers that take longer."""
        until = time.monotonic() + timeout
        return [one.name for one in self._deliveries if not one.join(max(0.0, until - time.monotonic()))]

    def threads(self) -> list[SupervisedThread]:
        """Return the threads of all readers."""
        return [thread for delivery in self._deliveries for thread in delivery.threads()]

    def states(self) -> dict[str, str]:
        """Return ``ok`` or ``failing`` by reader."""
        return {delivery.name: delivery.state for delivery in self._deliveries}

    def problems(self) -> list[str]:
        """Return the problems of the readers that are failing."""
        return [problem for delivery in self._deliveries if (problem := delivery.problem())]

    def resending_sinks(self) -> set[str]:
        """Return the sinks that can send dead letters again."""
        return {sink.name for sink in self._deliveries if isinstance(sink, SinkDelivery) and sink.resends}
