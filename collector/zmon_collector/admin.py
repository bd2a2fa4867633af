"""The admin socket: requests to a running collector and its answers. Other tools never open its files."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import zmq

from zmon._wire.frames import pack, unpack
from zmon.errors import ConfigurationError
from zmon_collector.dashboard.live import Live
from zmon_collector.delivery.dead_letters import DeadLetters
from zmon_collector.delivery.dispatch import Deliveries
from zmon_collector.delivery.outbox import Outbox
from zmon_collector.storage.database import Database

ANSWER_LIMIT = 16 * 2**20  # bytes
LONGEST_PATH = 107  # bytes of a unix socket's
IDS_LIMIT = 1000  # ids in one question
Answer = dict[str, Any]
AdminRequest = Mapping[str, Any]


class OutboxAnswers:
    """Answers the questions of `zmon outbox` about dead letters, in the database's thread."""

    def __init__(self, outbox: Outbox, dead_letters: DeadLetters, deliveries: Deliveries) -> None:
        self._outbox = outbox
        self._dead_letters = dead_letters
        self._deliveries = deliveries
        self.handlers: dict[str, Callable[[sqlite3.Connection, AdminRequest], Answer]] = {
            "outbox": self._list,
            "outbox-show": self._show,
            "outbox-retry": self._retry,
            "outbox-drop": self._drop,
        }

    def _list(self, connection: sqlite3.Connection, request: AdminRequest) -> Answer:
        rows = self._dead_letters.page(connection, _sink(request), int(request.get("after", 0)))
        return {"rows": rows, "behind": self._outbox.behind(), "aside": self._dead_letters.counts}

    def _show(self, connection: sqlite3.Connection, request: AdminRequest) -> Answer:
        return {"rows": self._dead_letters.read(connection, _ids(request) or [])}

    def _retry(self, connection: sqlite3.Connection, request: AdminRequest) -> Answer:
        ids = self._dead_letters.ids_by_sink(connection, _ids(request), _sink(request))
        able = self._deliveries.resending_sinks()
        for sink in ids.keys() & able:
            self._outbox.redeliver(sink, ids[sink])
        asked = {sink: len(ids[sink]) for sink in sorted(ids.keys() & able)}
        return {"asked": asked, "unable": sorted(ids.keys() - able)}

    def _drop(self, connection: sqlite3.Connection, request: AdminRequest) -> Answer:
        return {"dropped": self._dead_letters.drop(connection, _ids(request), _sink(request))}


class Admin:
    """Answers questions about a collector, on the collector's thread.

    Parameters
    ----------
    live : Live
        Has the latest health, and what `zmon top` and `zmon tap` show.
    database : Database
        Runs the questions about dead letters in its thread.
    outbox : OutboxAnswers
    reload : callable
        Reloads the configuration; returns the changed keys that need a restart.
    """

    def __init__(self, live: Live, database: Database, outbox: OutboxAnswers, reload: Callable[[], list[str]]) -> None:
        self._live = live
        self._database = database
        self._outbox = outbox
        self._reload = reload

    def answer(self, frames: list[bytes], reply: Callable[[Answer], None]) -> None:
        """Answer ``{"ask": question, …}``: at once, or from the database's thread if it has to look there."""
        request = unpack(frames[-1], "admin")
        question = request.get("ask")
        handler = self._outbox.handlers.get(question) if isinstance(question, str) else None
        if handler is None:
            reply(self._answer(question))
        else:
            self._database.submit(
                lambda connection: _understood(lambda: handler(connection, request)),
                reply,
                failed=lambda error: reply({"error": f"the database cannot answer: {error}"}),
            )

    def _answer(self, question: object) -> Answer:
        if question == "health":
            return self._live.health.as_dict()
        if question == "plugins":
            return {"plugins": self._live.health.plugins}
        if question == "reload":
            try:
                return {"waiting": self._reload()}
            except ConfigurationError as error:
                return {"error": str(error)}
        return _understood(lambda: self._live.answer(question))


def _understood(answer: Callable[[], Answer]) -> Answer:
    """Return the answer, or an error if a value in the request is not a number, or too large."""
    try:
        return answer()
    except (ValueError, TypeError, OverflowError) as error:
        return {"error": f"the question cannot be understood: {error}"}


def _ids(request: AdminRequest) -> list[int] | None:
    ids = request.get("ids")
    return None if ids is None else [int(number) for number in ids][:IDS_LIMIT]


def _sink(request: AdminRequest) -> str | None:
    sink = request.get("sink")
    return None if sink is None else str(sink)


def ask(data_dir: Path, question: str, timeout: float = 1.0, **more: Any) -> Answer | None:
    """Send a request to the collector of `data_dir`; return its answer, or None after `timeout` seconds."""
    path = data_dir.absolute() / "admin.sock"
    try:
        reachable = path.exists() and len(str(path).encode()) <= LONGEST_PATH
    except (OSError, UnicodeEncodeError):  # not this user's to enter, or no path at all
        reachable = False
    if not reachable:
        return None
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(f"ipc://{path}")
        socket.send(pack({"ask": question, **more}))
        if not socket.poll(int(timeout * 1000)):
            return None
        return unpack(socket.recv(), "admin", ANSWER_LIMIT)
