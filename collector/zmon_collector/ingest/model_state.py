"""Everything that the collector's thread keeps of one (model, version); forgetting a model deletes its ModelState."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from zmon.batch import Schema
from zmon_collector.ingest.admission import Pool
from zmon_collector.ingest.answers import Details
from zmon_collector.windows.manager import WindowManager
from zmon_collector.windows.window import ModelKey, Now, OpenWindow

EarlyOwner = tuple[str, tuple[str, ...], int]  # task, classes, label owner
NOTED_EVERY = 3600.0  # seconds between two notes in the journal of a model's last sign of life


@dataclass(slots=True)
class ModelState:
    """Windows, tags, last sign of life, and label bookkeeping of one (model, version)."""

    key: ModelKey
    windows: WindowManager
    tags: dict[str, Mapping[str, str]] = field(default_factory=dict)  # by agent, those of its newest rows
    changed_tags: set[str] = field(default_factory=set)  # agents whose tags are not journaled yet
    over_limit: bool = False  # limits.agents was exceeded, and that is logged
    last_seen: float = 0.0  # monotonic time of the last greeting, rows or labels
    unnoted: float | None = None  # wall time of the last sign of life, to be journaled with this turn
    owners: dict[tuple[str, tuple[str, ...]], int] = field(default_factory=dict)  # label owners, by (task, classes)
    label_owners: set[int] = field(default_factory=set)  # the same and those of earlier runs: labels may wait for them
    rows_schema: Schema | None = None  # of the newest rows, in the order in which their classes were first seen
    early_owners: set[EarlyOwner] = field(default_factory=set)  # of labels that came before any rows
    variants: dict[ModelKey, ModelState] = field(default_factory=dict)  # of rows with other classes, see variants.py
    main: ModelState | None = None  # the version of which this is a variant
    owner: str = ""  # identity that holds the model's place
    places: Pool = field(default_factory=lambda: Pool(1))  # of agents
    agents: dict[str, str] = field(default_factory=dict)  # identities that hold these places, by agent
    details: Details = field(default_factory=Details)  # why rows were rejected or degraded
    closing: deque[OpenWindow] = field(default_factory=deque)  # closed, and waiting for a join
    _noted: float = float("-inf")

    def touch(self, now: Now) -> None:
        """Note a sign of life: a greeting, rows or labels."""
        self.last_seen = now.mono
        if now.mono - self._noted >= NOTED_EVERY:
            self._noted = now.mono
            self.unnoted = now.wall

    def forget_agent(self, agent: str) -> None:
        """Forget an agent that the windows no longer know."""
        if agent in self.agents:
            self.places.release(self.agents.pop(agent))
        self.tags.pop(agent, None)
        self.changed_tags.discard(agent)

    def restore_agent(self, agent: str, identity: str) -> None:
        """Restore who holds the place of an agent."""
        self.agents[agent] = identity
        self.places.hold(identity)

    def note_tags(self, agent: str, tags: Mapping[str, str]) -> None:
        """Note the tags of an agent's newest rows."""
        if tags and self.tags.get(agent) != tags:
            self.tags[agent] = tags
            self.changed_tags.add(agent)

    def restore(self, wall: float, now: Now) -> None:
        """Restore the last sign of life from the journal; time without a running collector counts as silence."""
        self.last_seen = self._noted = now.mono - max(0.0, now.wall - wall)
