"""A message and its context: the session, the model and the agent under which its rows are counted."""

from __future__ import annotations

from dataclasses import dataclass

from zmon._wire.frames import Message
from zmon.batch import Schema
from zmon_collector.ingest.model_state import ModelState
from zmon_collector.ingest.sessions import Session
from zmon_collector.telemetry import Telemetry
from zmon_collector.windows.window import Now


@dataclass(slots=True)
class Arrival:
    """Context of anything that a stream sent. `agent` is the name to count under, see `WindowManager.admit`."""

    session: Session
    model: ModelState
    agent: str
    now: Now
    telemetry: Telemetry

    def count(self, kind: str, rows: int, reason: str = "") -> None:
        """Count rows that are in no window: late, lost, rejected or sampled out."""
        if rows:
            self.model.windows.count(self.agent, kind, rows, self.now, reason)
            self.telemetry.count(kind, reason, rows)


@dataclass(slots=True)
class BatchArrival(Arrival):
    """A batch of rows or labels with the schema that it names; `body` is the schema as it was sent."""

    message: Message
    schema: Schema
    body: bytes
