"""The admin socket: what a running collector answers, and how other tools ask. They never open its files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zmq

from zmon.errors import ConfigurationError
from zmon.wire import pack, unpack

if TYPE_CHECKING:
    from zmon_collector.service import Service

ANSWER_LIMIT = 16 * 2**20


class Admin:
    """Answers questions about a collector, on its own thread."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._questions = {"health": self.health, "plugins": self._plugins, "reload": self._reload}

    def answer(self, frames: list[bytes]) -> dict[str, Any]:
        """The answer to ``{"ask": question}``."""
        ask = unpack(frames[-1], "admin").get("ask")
        question = self._questions.get(ask) if isinstance(ask, str) else None
        return self._service.live.answer(ask) if question is None else question()

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
            "streams": len(service.desk.streams),
            "models": sorted(f"{model} {version}".strip() for model, version in service.desk.books),
            "open_windows": sum(len(book.open) for book in service.desk.books.values()),
            "inbox_bytes": service.receiver.inbox_bytes,
            "backlog_bytes": service.engine.backlog,
            "uncommitted_bytes": service.store.pending_bytes,
            "journal_bytes": service.store.used_bytes,
            "label_bytes": service.desk.late.kept_bytes,
            "outbox": len(service.outbox),
            "outbox_bytes": service.outbox.nbytes,
            "behind": service.outbox.behind(),
            "sinks": service.sink_states(),
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
        for name, state in service.sink_states().items():
            if state != "ok":
                found.append(f"sink {name} is failing; its reports wait")
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
            ("chunks_damaged", "damaged rows were found in the journal and count as lost"),
        ):
            if counters.get(counter):
                found.append(text)
        return found


def ask(data_dir: Path, question: str, timeout: float = 1.0) -> dict[str, Any] | None:
    """The answer of the collector that runs on `data_dir`; None when none answers within `timeout` seconds."""
    path = data_dir.absolute() / "admin.sock"
    if not path.exists():
        return None
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(f"ipc://{path}")
        socket.send(pack({"ask": question}))
        if not socket.poll(int(timeout * 1000)):
            return None
        return unpack(socket.recv(), "admin", ANSWER_LIMIT)
