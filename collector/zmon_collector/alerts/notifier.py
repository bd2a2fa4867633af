"""Notifications: messages in each target's format, a durable queue for each target, and the threads that send them."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from zmon_plugins.http.response import Unreachable, retry_after

from zmon.backoff import Backoff
from zmon.names import printable
from zmon_collector.alerts.rules import AlertEvent
from zmon_collector.clock import system_time
from zmon_collector.config.alerting import SEVERITIES, NotifySection
from zmon_collector.supervision import SupervisedThread
from zmon_collector.telemetry import Telemetry

log = logging.getLogger("zmon.collector")

QUEUED = 1000  # messages queued for one target; beyond it the oldest are dropped
FIRST_WAIT, LONGEST_WAIT = 1.0, 300.0  # seconds between attempts
HOPELESS = frozenset({400, 413, 415, 422})  # statuses after which a retry cannot help
LONGEST_PAUSE = 3600.0  # seconds that a target may ask for
POLL = 0.5
OVERDUE = 5.0  # seconds beyond the timeout after which an exchange is a problem: addresses are looked up without one
LAST_ANSWER = 2.0  # seconds that targets get at the end

Notification = dict[str, Any]


class Answer(NamedTuple):
    """A target's answer: the status, and the seconds that it asks to wait."""

    status: int
    pause: float = 0.0


Post = Callable[[NotifySection, Any], Answer]  # raises without an answer


def message_of(event: AlertEvent, origin: str) -> Notification:
    """Return the message of an event as plain data. Its key is the same however often it is sent."""
    return {"event": event.kind, "key": f"{origin}-{event.alert['id']}-{event.kind}", **event.alert}


def request_body(kind: str, message: Notification, page: str) -> Any:
    """Return the JSON for a target of this kind."""
    link = f"{page.rstrip('/')}/#/model?model={quote(message['model'], safe='')}" if page else ""
    if link and message["version"]:
        link += f"&version={quote(message['version'], safe='')}"
    if kind == "webhook":
        return {**message, "text": printable(message["text"]), "page": link}
    sign = ":white_check_mark:" if message["event"] == "closed" else ":rotating_light:"
    text = f"{sign} *{message['severity']}* {message['event']}: {message['text']}{because(message)}"
    text = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return {"text": f"{text} <{link}|live page>" if link else text}


def because(alert: Mapping[str, Any]) -> str:
    """Return why an alert was closed, in brackets; "" when its values are back within bounds."""
    return f" ({alert['why']})" if alert.get("why") else ""


class QueuedMessage(NamedTuple):
    """A message that waits, by its number among all of this store."""

    number: int
    message: Notification


class MessageChanges(NamedTuple):
    """What has come and gone: (target, number, message), and (target, number)."""

    added: list[tuple[str, int, Notification]]
    removed: list[tuple[str, int]]


class NotificationQueues:
    """A queue for each target, with its own backoff. Pure: the clock is passed in."""

    def __init__(self, targets: Mapping[str, NotifySection]) -> None:
        self.targets = targets
        self.queues: dict[str, deque[QueuedMessage]] = {name: deque() for name in targets}
        self._number = 0
        self._retry_at: dict[str, float] = {}
        self._backoffs: dict[str, Backoff] = {}
        self._added: dict[tuple[str, int], Notification] = {}
        self._removed: list[tuple[str, int]] = []

    def restore(self, target: str, number: int, message: Notification) -> None:
        """Queue a message of an earlier run. If its target is gone, `replace_targets` drops it."""
        self.queues.setdefault(target, deque()).append(QueuedMessage(number, message))
        self._number = max(self._number, number)

    def replace_targets(self, targets: Mapping[str, NotifySection]) -> None:
        """Replace the targets. Messages to those that remain stay queued; one that changed is tried at once."""
        for name, queue in self.queues.items():
            if targets.get(name) != self.targets.get(name):
                self._reset(name)
            if name not in targets:
                self._removed += [(name, each.number) for each in queue]
        self.targets = targets
        self.queues = {name: self.queues.get(name, deque()) for name in targets}

    def enqueue(self, message: Notification) -> list[str]:
        """Queue a message for every target whose `min_severity` it reaches; return those that lost their oldest."""
        full = []
        for name, target in self.targets.items():
            if SEVERITIES.index(message["severity"]) >= SEVERITIES.index(target.min_severity):
                self._number += 1
                self.queues[name].append(QueuedMessage(self._number, message))
                self._added[name, self._number] = message
                if len(self.queues[name]) > QUEUED:
                    self._removed.append((name, self.queues[name].popleft().number))
                    full.append(name)
        return full

    def due(self, wall: float) -> list[tuple[str, Notification]]:
        """Return the oldest message of each target that may be sent now."""
        return [
            (name, queue[0].message)
            for name, queue in self.queues.items()
            if queue and wall >= self._retry_at.get(name, 0.0)
        ]

    def remove(self, name: str, message: Notification) -> None:
        """Remove a message that was delivered or never will be."""
        queue = self.queues.get(name, deque())
        if queue and queue[0].message["key"] == message["key"]:
            self._removed.append((name, queue.popleft().number))
        self._reset(name)

    def postpone(self, name: str, wall: float, pause: float = 0.0) -> None:
        """Double the wait before the next attempt, which is at least the pause that the target asked for."""
        if name in self.queues:  # else it was removed meanwhile
            wait = self._backoffs.setdefault(name, Backoff(FIRST_WAIT, LONGEST_WAIT)).next()
            self._retry_at[name] = wall + max(wait, min(pause, LONGEST_PAUSE))

    def _reset(self, name: str) -> None:
        self._retry_at.pop(name, None)
        self._backoffs.pop(name, None)

    def changes(self, *, everything: bool = False) -> MessageChanges:
        """Return what has changed since `note_saved`, or all there is."""
        added = dict(self._added)
        if everything:
            added |= {(name, each.number): each.message for name, queue in self.queues.items() for each in queue}
        removed = set(self._removed)
        return MessageChanges([(*key, message) for key, message in added.items() if key not in removed], self._removed)

    def note_saved(self) -> None:
        """Note that all changes are with the database."""
        self._added, self._removed = {}, []


def post(target: NotifySection, content: Any) -> Answer:
    """Send JSON; return the answer. Its body is not read: the status says all there is."""
    from zmon_plugins.http.client import HttpClient  # here: imported only where notifications are sent

    http = HttpClient(target.timeout, target.timeout)
    parts = urlsplit(target.url)
    http.keep_secret("the address", target.url)
    http.keep_secret("the path", f"{parts.path}?{parts.query}".removesuffix("?").lstrip("/"))
    try:
        response = http.exchange("POST", target.url, json.dumps(content).encode())
    finally:
        http.close()
    return Answer(response.status, retry_after(response.headers.get("Retry-After"), time.time()))


class _Exchange(NamedTuple):
    """A message that is under way to its target."""

    target: NotifySection
    thread: threading.Thread
    begun: float  # monotonic


class Notifier:
    """The thread that looks for messages to send, and one more for each target that is being sent one.

    Parameters
    ----------
    notifications : NotificationQueues
    lock : threading.Lock
        Held around every use of `notifications`.
    save : callable
        Stores the queues once a message was delivered or given up.

    Attributes
    ----------
    page_url : str
        The live page that messages link to; known once the page is bound, empty without one.
    """

    def __init__(
        self,
        notifications: NotificationQueues,
        lock: threading.Lock,
        save: Callable[[], None],
        telemetry: Telemetry,
        send: Post = post,
        *,
        wall: Callable[[], float] = system_time,
    ) -> None:
        self.page_url = ""
        self._notifications, self._lock, self._save = notifications, lock, save
        self._telemetry = telemetry
        self._post = send
        self._wall = wall
        self._stop = threading.Event()
        self._ended = False  # nothing is noted any more: the database closes
        self._exchanges: dict[str, _Exchange] = {}  # by target, at most one each
        self._failing: dict[str, str] = {}  # why, by target
        self.thread = SupervisedThread("zmon-notify", self._run, telemetry, self._stop)

    def start(self) -> None:
        self.thread.start()

    def problems(self) -> list[str]:
        """Return which targets take no messages. Called by any thread, without the lock."""
        queues, now = self._notifications.queues, time.monotonic()
        overdue = {
            name: f"no answer for {now - exchange.begun:.0f} s"
            for name, exchange in self._exchanges.copy().items()
            if now - exchange.begun > exchange.target.timeout + OVERDUE
        }
        return [
            f"[notify.{name}] takes no alerts ({why}), {len(queues[name])} are queued"
            for name, why in {**self._failing.copy(), **overdue}.items()
            if queues.get(name)
        ]

    def stop(self, timeout: float) -> None:
        """End the threads. Queued messages are sent by the next run."""
        self._stop.set()
        self.thread.join(timeout)
        until = time.monotonic() + min(timeout, LAST_ANSWER)
        for exchange in list(self._exchanges.values()):
            exchange.thread.join(max(0.0, until - time.monotonic()))
        with self._lock:
            self._ended = True

    def _run(self) -> None:
        while not self._stop.wait(POLL):
            self.thread.beat()
            self.turn(self._wall())

    def turn(self, wall: float) -> list[threading.Thread]:
        """Send every message that is due; return the threads that do, one for each target."""
        with self._lock:
            targets = self._notifications.targets
            due = [(name, targets[name], message) for name, message in self._notifications.due(wall) if name in targets]
        begun = []
        for name, target, message in due:
            under_way = self._exchanges.get(name)
            if under_way is not None and under_way.target == target:  # one that has changed is tried at once
                continue
            thread = threading.Thread(
                target=self._send, args=(name, target, message, wall), name=f"zmon-notify-{name}", daemon=True
            )
            self._exchanges[name] = _Exchange(target, thread, time.monotonic())
            try:
                thread.start()
            except RuntimeError:  # no more threads
                del self._exchanges[name]
                raise
            begun.append(thread)
        return begun

    def _send(self, name: str, target: NotifySection, message: Notification, wall: float) -> None:
        try:
            answer = self._post(target, request_body(target.kind, message, target.page or self.page_url))
            why = f"status {answer.status}"
        except Unreachable as error:
            answer, why = Answer(0), str(error)
        except Exception as error:  # noqa: BLE001 - its text may contain the address, which is a secret
            answer, why = Answer(0), type(error).__name__
        delivered = 200 <= answer.status < 300
        finished = delivered or answer.status in HOPELESS
        with self._lock:
            under_way = self._exchanges.get(name)
            if under_way is not None and under_way.thread is threading.current_thread():
                del self._exchanges[name]
            if self._ended:
                return
            if finished:
                self._notifications.remove(name, message)
            elif self._notifications.targets.get(name) == target:
                self._notifications.postpone(name, wall, answer.pause)
        self._telemetry.count("alerts_sent" if delivered else "alert_errors", name)
        if finished:
            self._save()
        self._note(name, why, delivered=delivered, finished=finished)

    def _note(self, name: str, why: str, *, delivered: bool, finished: bool) -> None:
        """Remember what a target does, and log when it begins to fail."""
        if delivered:
            self._failing.pop(name, None)
            return
        if name not in self._failing:
            outcome = "it is discarded" if finished else "it stays queued and is sent again"
            log.warning("[notify.%s] refused an alert (%s); %s", name, why, outcome)
        self._failing[name] = why
