"""One thread for each sink, and one for all observers: a slow or broken one delays nobody else."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from zmon.backoff import Backoff
from zmon.bases import attach, resend_of
from zmon.contract import Report, Sink
from zmon.errors import RetryLater
from zmon_collector.delivery.dead_letters import DeadLetters
from zmon_collector.delivery.outbox import Outbox, Redelivery
from zmon_collector.telemetry import Telemetry

log = logging.getLogger("zmon.collector")

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds between tries, whatever a sink asks for
LAST_PIECE = 2.0  # seconds to come to the end of what is being sent and note it down
ATTEMPTS = 5  # for a report on which a sink fails without asking to be called again


class Delivery(ABC):
    """Hands the outbox's reports to one reader, in order, until the outbox ends or `stop` is called."""

    def __init__(self, name: str, outbox: Outbox, telemetry: Telemetry) -> None:
        self.name = name
        self.state = "ok"
        self.error = ""  # while it is failing
        self._told = ""  # the kind of error last logged
        self._outbox = outbox
        self._telemetry = telemetry
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"zmon-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def problem(self) -> str:
        """What an operator should know of it; empty while it is well."""
        return f"sink {self.name} is failing, its reports wait: {self.error}" if self.error else ""

    def join(self, timeout: float) -> bool:
        """Wait for the last report; False when it is not done in time and goes on in the next run."""
        self._thread.join(timeout)
        self._stop.set()
        self._thread.join(LAST_PIECE)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            found = self._outbox.wait(self.name)
            if found is None:
                break
            if isinstance(found, Redelivery):
                self._send_again(found)
                continue
            if not self._deliver(found):
                break  # it stays in the outbox for the next run
            self._outbox.done(self.name, found.sequence)

    def _send_again(self, again: Redelivery) -> None:  # noqa: B027 - a reader may leave it as it is
        """Send once more what was set aside: sinks do; other readers set nothing aside, so there is nothing."""

    @abstractmethod
    def _deliver(self, report: Report) -> bool:
        """Deal with a report for good; False when `stop` came in between."""

    def _pause(self, seconds: float) -> None:
        self._stop.wait(min(seconds, LONGEST_WAIT))


class SinkDelivery(Delivery):
    """A sink's thread: opens it, retries, closes it."""

    def __init__(self, sink: Sink, outbox: Outbox, dead_letters: DeadLetters, telemetry: Telemetry) -> None:
        super().__init__(sink.name, outbox, telemetry)
        self._sink = sink
        self._dead_letters = dead_letters

    @property
    def resends(self) -> bool:
        """Whether it can send again what was set aside."""
        return resend_of(self._sink) is not None

    def _run(self) -> None:
        attach(self._sink, self._dead_letters.ledger(self.name, self._stop.is_set))
        backoff = Backoff(FIRST_WAIT, LONGEST_WAIT)
        while not self._stop.is_set():
            try:
                self._sink.open()
                break
            except Exception as error:  # noqa: BLE001 - a sink may raise anything
                wait = backoff.next()
                self._failed(f"cannot be opened, trying again in {wait:g} s", error)
                self._pause(wait)
        try:
            super()._run()
        finally:
            try:
                self._sink.close()
            except Exception as error:  # noqa: BLE001
                self._failed("failed to close", error)

    def _deliver(self, report: Report) -> bool:
        done = self._until_done(lambda: self._sink.write(report), f"report {report.sequence}")
        if done:
            self._telemetry.count("sink_written", self.name)
        return done is not None

    def _send_again(self, again: Redelivery) -> None:
        resend = resend_of(self._sink)
        if resend is not None:
            self._until_done(
                lambda: self._dead_letters.send_again(again.ids, resend), f"{len(again.ids)} set-aside samples"
            )

    def _until_done(self, call: Callable[[], None], what: str) -> bool | None:
        """Call until it succeeds: True; False when it is given up, None when `stop` came in between."""
        attempt, backoff = 0, Backoff(FIRST_WAIT, LONGEST_WAIT)
        while not self._stop.is_set():
            try:
                call()
            except RetryLater as error:
                self._failed("asks to be called again", error)
                self._pause(error.after)
            except Exception as error:  # noqa: BLE001
                attempt += 1
                if attempt == ATTEMPTS:
                    self._failed(f"gives up {what} after {ATTEMPTS} tries", error)
                    self._telemetry.count("sink_failed", self.name)
                    return False
                self._failed("failed, trying again", error)
                self._pause(backoff.next())
            else:
                self.state, self.error = "ok", ""
                return True
        return None

    def _failed(self, what: str, error: Exception) -> None:
        kind = type(error).__name__
        if self.state == "ok" or kind != self._told:  # a token that is no longer taken must not hide behind an outage
            self._told = kind
            log.warning("sink %r %s: %s: %s", self.name, what, kind, error)
        self.state = "failing"
        self.error = f"{kind}: {error}"
        self._telemetry.count("sink_errors", self.name)


class ObserverDelivery(Delivery):
    """The observers' thread: plugins that implement `window_closed`."""

    def __init__(self, announce: Callable[[Report], None], outbox: Outbox, telemetry: Telemetry) -> None:
        super().__init__("observers", outbox, telemetry)
        self._announce = announce

    def _deliver(self, report: Report) -> bool:
        self._announce(report)
        return True


class Deliveries:
    """All readers of reports together."""

    def __init__(self, deliveries: Sequence[Delivery]) -> None:
        self._deliveries = list(deliveries)
        self.names = [each.name for each in deliveries]

    def start(self) -> None:
        for each in self._deliveries:
            each.start()

    def join(self, timeout: float) -> list[str]:
        """Wait for the last reports; the names of those that are not done in time."""
        until = time.monotonic() + timeout
        return [each.name for each in self._deliveries if not each.join(max(0.0, until - time.monotonic()))]

    def states(self) -> dict[str, str]:
        """``ok`` or ``failing``, by reader."""
        return {each.name: each.state for each in self._deliveries}

    def problems(self) -> list[str]:
        """What is wrong with those that are failing."""
        return [problem for each in self._deliveries if (problem := each.problem())]

    def resending(self) -> set[str]:
        """The sinks that can send again what was set aside."""
        return {each.name for each in self._deliveries if isinstance(each, SinkDelivery) and each.resends}
