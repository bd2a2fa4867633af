"""The admin socket: what a running collector answers, and how other tools ask. They never open its files."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zmq

from zmon._wire.frames import pack, unpack
from zmon.errors import ConfigurationError

if TYPE_CHECKING:
    from zmon_collector.service import Service

ANSWER_LIMIT = 16 * 2**20
MOST_IDS = 1000  # of one question
AdminRequest = Mapping[str, Any]


class Admin:
    """Answers questions about a collector, on its own thread."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._questions: dict[str, Callable[[AdminRequest], dict[str, Any]]] = {
            "health": lambda question: self.health(),
            "plugins": lambda question: self._plugins(),
            "reload": lambda question: self._reload(),
        }
        self._stored: dict[str, Callable[[sqlite3.Connection, AdminRequest], dict[str, Any]]] = {
            "outbox": self._outbox,
            "outbox-show": self._show,
            "outbox-retry": self._retry,
            "outbox-drop": self._drop,
        }

    def answer(self, frames: list[bytes], reply: Callable[[dict[str, Any]], None]) -> None:
        """Answer ``{"ask": question, …}``: now, or from the store's thread for what must be looked up there."""
        question = unpack(frames[-1], "admin")
        ask = question.get("ask")
        if isinstance(ask, str) and ask in self._questions:
            reply(self._questions[ask](question))
        elif isinstance(ask, str) and ask in self._stored:
            look = self._stored[ask]
            self._service.store.submit(lambda connection: _understood(lambda: look(connection, question)), reply)
        else:
            reply(_understood(lambda: self._service.live.answer(ask)))

    # --- what was set aside ------------------------------------------------------------------------------------------

    def _outbox(self, connection: sqlite3.Connection, question: AdminRequest) -> dict[str, Any]:
        rows = self._service.aside.listed(connection, _sink(question), int(question.get("after", 0)))
        return {"rows": rows, "behind": self._service.outbox.behind(), "aside": self._service.aside.counts}

    def _show(self, connection: sqlite3.Connection, question: AdminRequest) -> dict[str, Any]:
        return {"rows": self._service.aside.shown(connection, _ids(question) or [])}

    def _retry(self, connection: sqlite3.Connection, question: AdminRequest) -> dict[str, Any]:
        found = self._service.aside.ids(connection, _ids(question), _sink(question))
        able = self._service.deliveries.resending()
        for sink in found.keys() & able:
            self._service.outbox.ask_again(sink, found[sink])
        return {
            "asked": {sink: len(found[sink]) for sink in sorted(found.keys() & able)},
            "unable": sorted(found.keys() - able),
        }

    def _drop(self, connection: sqlite3.Connection, question: AdminRequest) -> dict[str, Any]:
        return {"dropped": self._service.aside.drop(connection, _ids(question), _sink(question))}

    # --- the collector -----------------------------------------------------------------------------------------------

    def _plugins(self) -> dict[str, Any]:
        return {"plugins": self._service.registry.table()}

    def _reload(self) -> dict[str, Any]:
        try:
            return {"waiting": self._service.reload()}
        except ConfigurationError as error:
            return {"error": str(error)}

    def health(self) -> dict[str, Any]:
        """How the collector fares: what is wrong, endpoints, counters, sinks, and what limits its samples."""
        service = self._service
        problems = self._problems()
        return {
            "status": "degraded" if problems else "ok",
            "problems": problems,
            "pid": os.getpid(),
            "data": service.receiver.data,
            "control": service.receiver.control,
            "web": service.live.url,
            "streams": len(service.ingestor.sessions),
            "connected": service.ingestor.sessions.connected,
            "models": sorted(f"{model} {version}".strip() for model, version in list(service.ingestor.models)),
            "open_windows": sum(len(model.windows.open) for model in list(service.ingestor.models.values())),
            "inbox_bytes": service.receiver.inbox_bytes,
            "backlog_bytes": service.engine.backlog,
            "uncommitted_bytes": service.store.pending_bytes,
            "journal_bytes": service.store.used_bytes,
            "label_bytes": service.ingestor.late.kept_bytes,
            "outbox": len(service.outbox),
            "outbox_bytes": service.outbox.nbytes,
            "behind": service.outbox.behind(),
            "aside": dict(service.aside.counts),
            "sinks": service.deliveries.states(),
            "sample_rows_lowered_to": service.engine.smallest_sample,
            "counters": dict(service.telemetry.snapshot()),
        }

    def _problems(self) -> list[str]:
        """What an operator should look at, a sentence each."""
        service = self._service
        found = []
        if service.store.full:
            found.append("the disk is full: nothing is acknowledged, publishers keep their rows")
        if service.store.used_bytes > service.config.limits.journal_bytes:
            found.append("the journal is at limits.journal_bytes: nothing is taken until windows close")
        found += [f"a damaged file was set aside as {name}" for name in service.store.set_aside]
        found += service.deliveries.problems()
        for name, count in service.aside.counts.items():
            found.append(f"{count} samples were refused by the target of sink {name} and set aside: zmon outbox ls")
        for metric in service.registry.metrics.values():
            if metric.state != "ok":
                found.append(f"metric {metric.metric.name} is {metric.state}: {metric.error}")
        for plugin in service.registry.plugins.values():
            if plugin.state != "ok":
                found.append(f"plugin {plugin.name} is {plugin.state}: {plugin.error}")
        counters = service.telemetry
        for counter, text in (
            ("agents_over_limit", "more agents than limits.agents: the newer ones count for the rollup only"),
            ("outbox_dropped", "reports were dropped before every sink had them"),
            ("refused_dropped", "samples that were set aside went: limits.refused_rows or refused_age"),
            ("chunks_damaged", "damaged rows were found in the journal and count as lost"),
        ):
            if counters.get(counter):
                found.append(text)
        return found


def _understood(answer: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The answer; an error in its place where the question holds what is no number, or one too large."""
    try:
        return answer()
    except (ValueError, TypeError, OverflowError) as error:
        return {"error": f"the question cannot be understood: {error}"}


def _ids(question: AdminRequest) -> list[int] | None:
    ids = question.get("ids")
    return None if ids is None else [int(each) for each in ids][:MOST_IDS]


def _sink(question: AdminRequest) -> str | None:
    sink = question.get("sink")
    return None if sink is None else str(sink)


def ask(data_dir: Path, question: str, timeout: float = 1.0, **more: Any) -> dict[str, Any] | None:
    """The answer of the collector that runs on `data_dir`; None when none answers within `timeout` seconds."""
    path = data_dir.absolute() / "admin.sock"
    if not path.exists():
        return None
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(f"ipc://{path}")
        socket.send(pack({"ask": question, **more}))
        if not socket.poll(int(timeout * 1000)):
            return None
        return unpack(socket.recv(), "admin", ANSWER_LIMIT)
