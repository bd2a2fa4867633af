"""What a turn brings to the join of late labels: rows with ids, labels, and what is due. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

import msgpack

from zmon._wire.frames import pack
from zmon.batch import Array, Names, Schema
from zmon_collector.storage.integrity import packed_checksum

ANYBODY = b""  # the rights of a label that may be of any agent's rows


class LabelSender(NamedTuple):
    """Who sent a label: its agent and stream, and globs of the agents whose rows it may label, packed."""

    agent: str
    stream: bytes = b""
    agents: bytes = ANYBODY

    @property
    def sealed(self) -> tuple[bytes, ...]:
        """What the checksum of a waiting label covers of this; nothing in one of an older release."""
        return (self.agents, self.stream) if self.agents or self.stream else ()

    def may_label(self, agent: str) -> bool:
        """Return whether the label may be of this agent's row."""
        return not self.agents or _may_label(self.agents, agent)


class GivenLabel(NamedTuple):
    """A label of the row with an id; `at` is its time in ns."""

    id: bytes
    label: Any
    at: int
    sender: LabelSender

    @property
    def checksum(self) -> int:
        """The checksum of its row while it waits."""
        return packed_checksum(self.id, self.label, self.at, self.sender.agent, *self.sender.sealed)


@lru_cache(maxsize=4096)
def _may_label(agents: bytes, agent: str) -> bool:
    try:
        globs = msgpack.unpackb(agents)
        return agent in globs or any(fnmatchcase(agent, glob) for glob in globs)
    except (ValueError, TypeError):  # damaged, in a row whose label was moved and has no checksum
        return False


class JoinWindow(NamedTuple):
    """An open window: its number and its start."""

    number: int
    start: int


class Predicted(NamedTuple):
    """Rows with ids of one agent in one window.

    `client` is the name of the sender in the allow-list, empty without one; `sender` is the agent's own name where its
    rows count as another's because of limits.agents.
    """

    owner: int
    window: JoinWindow
    end: int
    agent: str
    kept: float  # the collector's clock, epoch seconds
    ids: list[bytes]
    times: Array  # ns
    predicted: Array | None  # None for a multilabel model, which has probabilities
    probabilities: Array | None
    labels: Array | None
    client: str = ""
    sender: str = ""


class Labelled(NamedTuple):
    """Labels that arrived, and the window that was open then.

    Their predictions are kept under `owner`, or under one of `also`. `agents` are the sender's rights, packed.
    """

    owner: int
    window: JoinWindow
    agent: str  # the sender
    received: float
    ids: list[bytes]
    labels: Array
    times: Array  # ns
    stream: bytes = b""
    agents: bytes = ANYBODY
    also: tuple[int, ...] = ()

    @property
    def sender(self) -> LabelSender:
        """Who sent them."""
        return LabelSender(self.agent, self.stream, self.agents)

    def of(self, rows: Array) -> Labelled:
        """Return the rows that a mask selects."""
        ids = [name for name, selected in zip(self.ids, rows.tolist(), strict=True) if selected]
        return self._replace(ids=ids, labels=self.labels[rows], times=self.times[rows])


class Moved(NamedTuple):
    """Labels that wait under another list of classes than the rows have: `places` is a class's index among the rows'
    classes, negative for those that the rows do not have."""

    owner: int
    to: int
    places: Array


class Sweep(NamedTuple):
    """The ages from which rows are deleted; labels without a prediction count as unknown in the owner's window."""

    kept_before: float
    waiting_before: float
    windows: Mapping[int, JoinWindow]


@dataclass(slots=True)
class JoinWork:
    """The ids and labels that a turn brings to the join."""

    limit: int = 2**62  # bytes of all kept rows
    owners: list[tuple[int, str, str, str, bytes]] = field(default_factory=list)
    predicted: list[Predicted] = field(default_factory=list)
    labelled: list[Labelled] = field(default_factory=list)
    moved: list[Moved] = field(default_factory=list)
    classes: dict[int, tuple[Names, Names]] = field(default_factory=dict)  # by window: as kept, and of the window
    sweep: Sweep | None = None

    def __bool__(self) -> bool:
        return bool(self.predicted or self.labelled or self.moved or self.sweep)

    def move(self, moved: Moved, window: JoinWindow | None) -> None:
        """Let labels wait under the rows' classes: those that are kept, and those of this turn, in another window if
        one is given."""
        self.moved.append(moved)
        blocks, self.labelled = self.labelled, []
        for block in blocks:
            if block.owner != moved.owner:
                self.labelled.append(block)
                continue
            places = moved.places[block.labels]
            fitting = block.of(places >= 0)._replace(owner=moved.to, labels=places[places >= 0])
            self.labelled.append(fitting if window is None else fitting._replace(window=window))
            self.labelled.append(block.of(places < 0))


def owner_of(model: tuple[str, str], schema: Schema) -> int:
    """Return a number for what a label must share with its prediction: model, version, task and classes."""
    named = pack([*model, schema.task, list(schema.classes)])
    return int.from_bytes(blake2b(named, digest_size=8).digest(), "big", signed=True)


def id_bytes(ids: Array) -> list[bytes]:
    """Return ids as they are kept: 7 and "7" are the same."""
    return ids.tolist() if ids.dtype.kind == "S" else [b"%d" % number for number in ids.tolist()]
