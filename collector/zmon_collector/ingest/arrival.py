"""A message and its context: the session, the model and the agent under which its rows are counted."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from zmon._wire.checks import short_detail
from zmon._wire.frames import Message
from zmon.batch import Schema
from zmon_collector.ingest.answers import Detail
from zmon_collector.ingest.auth import AllowedClient
from zmon_collector.ingest.model_state import ModelState
from zmon_collector.ingest.session import Session
from zmon_collector.telemetry import Telemetry
from zmon_collector.windows.window import Now

log = logging.getLogger("zmon.collector")


@dataclass(slots=True)
class Arrival:
    """Context of anything that a stream sent. `agent` is the name to count under, see `ModelAdmission.admit`.

    Of a model without a place rows are counted for the collector and in the answer to their publisher.
    """

    session: Session
    model: ModelState | None
    agent: str
    now: Now
    telemetry: Telemetry

    def count(self, kind: str, rows: int, reason: str = "") -> None:
        """Count rows that are late, lost, rejected, degraded or sampled out."""
        if rows:
            if self.model is not None:
                self.model.windows.count(self.agent, kind, rows, self.now, reason)
            self.telemetry.count(kind, reason, rows)

    def refuse(self, rows: int, reason: str, detail: str) -> None:
        """Count rows that the collector rejects, and answer their publisher."""
        self._answer("rejected", rows, reason, detail)

    def degrade(self, rows: int, reason: str, detail: str) -> None:
        """Count rows that the collector takes without a part of them, and answer their publisher."""
        self._answer("degraded", rows, reason, detail)

    def _answer(self, kind: str, rows: int, reason: str, detail: str) -> None:
        if not rows:
            return
        self.count(kind, rows, reason)
        self.session.answers.add(kind, rows, reason, detail)
        if self.explain(kind, reason, detail) and self.telemetry.may_log(self.now.mono):
            log.warning("model %r, agent %r: %d rows %s (%s): %s; further ones are counted, and shown on the page",
                        self.session.topic.model, self.agent, rows, kind, reason, short_detail(detail))  # fmt: skip

    def explain(self, kind: str, reason: str, detail: str) -> bool:
        """Keep a detail for the page; return whether it is the first of this agent, kind and reason."""
        if self.model is None:
            return False
        return self.model.details.note(Detail(kind, reason, self.agent, detail, self.now.wall))


@dataclass(slots=True)
class BatchArrival(Arrival):
    """A batch of rows or labels with the schema that it names; `body` is the schema as bytes."""

    model: ModelState
    message: Message
    schema: Schema
    body: bytes
    client: AllowedClient | None = None  # the sender in the allow-list; without CURVE nobody
    apart: str = ""  # of rows in a variant of their version: why
