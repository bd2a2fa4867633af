"""Answers on the control socket that are due after a turn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from zmon._wire.control import Greeting, encode_ack, encode_decline, encode_hold_off

LEAST_INFLIGHT = 64 * 2**10  # bytes that any publisher may send ahead of acknowledgements


class PendingAck(NamedTuple):
    """An acknowledgement that is due: its peer and stream, the last settled row, the schema that is missing, what was
    refused or degraded, and the counts that are settled; without those, the stream is declined, or has to wait if a
    reason says so."""

    peer: bytes
    stream: bytes
    row: int
    need: bytes
    refused: Mapping[str, tuple[int, str]]
    degraded: Mapping[str, tuple[int, str]]
    tally: Mapping[str, Any] | None
    store: bytes | None = None  # that has acknowledged it, if that is not the collector's own

    def encode(self, window: int, store: bytes, message_bytes: int) -> bytes:
        """Return its frame; `window` bytes may be under way, `store` names the collector's store, and a message has at
        most `message_bytes`."""
        if self.tally is None:
            return encode_hold_off(self.stream, self.refused) if self.refused else encode_decline(self.stream)
        return encode_ack(
            *(self.stream, self.row, window),
            need=self.need,
            store=store if self.store is None else self.store,
            refused=self.refused,
            degraded=self.degraded,
            tally=self.tally,
            message_bytes=message_bytes,
        )


def acknowledge_as_it_says(greeting: Greeting, peer: bytes) -> PendingAck:
    """Return an answer to a hello that acknowledges what its publisher knows to be acknowledged, and nothing else."""
    return PendingAck(
        *(peer, greeting.stream, greeting.acked, b"", {}, {}), dict(greeting.counted or {}), greeting.store
    )


def fair_share(inflight_bytes: int, publishers: int) -> int:
    """Return the bytes that each of so many publishers may send ahead of acknowledgements."""
    return max(LEAST_INFLIGHT, inflight_bytes // max(1, publishers))
