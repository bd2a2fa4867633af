"""The result of converting snapshots: pieces for the ring, and the rows that are not, or not wholly, in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from zmon._transport.intake import Snapshot
from zmon._transport.ring import RingLayout, RingPiece


class Loss(NamedTuple):
    """Rows that lost something, by a stable word for the reason, and a detail for whoever mends it."""

    reason: str
    rows: int
    detail: str


class Conversion(NamedTuple):
    """Every row of the snapshots is in a piece, sampled out, or rejected.

    `degraded` rows are in the pieces without the part that was bad: a label, an id, the inputs, a column.
    """

    pieces: Sequence[tuple[RingLayout, RingPiece, int]]  # each with the bytes of its buffers
    sampled_out: int = 0
    rejected: Sequence[Loss] = ()
    degraded: Sequence[Loss] = ()


class Converter(Protocol):
    """Turns snapshots into pieces. Runs in the engine's thread only."""

    @property
    def schemas(self) -> Mapping[bytes, bytes]:
        """Bodies of the schemas that pieces refer to, by hash."""
        ...

    def convert(self, snapshots: Sequence[Snapshot]) -> Conversion: ...

    def renew(self) -> None:
        """Start afresh in a forked child."""
        ...
