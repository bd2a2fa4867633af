"""What metrics keep and give, as checked bytes of bounded size. Pure.

All of it is packed on the executors, under the guard of its metric: what cannot be written, read back or held costs the
metric its values. So the database and the outbox receive bytes only, and no transaction meets a plugin's objects.
"""

from __future__ import annotations

import msgpack

from zmon.contract import Point
from zmon.state import pack_state, unpack_state

MIB = 2**20
METRIC_BYTES = 64 * MIB  # of one metric and window: accumulators in a checkpoint, or memory and details
CHECKPOINT_BYTES = 256 * MIB  # of one window, with its samples
REPORT_BYTES = 256 * MIB  # of one window's values


def pack_memory(memory: object) -> bytes:
    """Pack what a metric keeps between windows; raise when it could not be read back after a restart."""
    data = pack_state(memory)
    unpack_state(data)  # maps with lists as keys can be packed and not unpacked
    return data


def unpack_memory(data: bytes | None) -> dict[str, object]:
    """Return a copy of what a metric keeps that is its own to change; empty where there is nothing to read."""
    if data is None:
        return {}
    try:
        memory = unpack_state(data)
    except (ValueError, TypeError):  # written by a release that did not check it
        return {}
    return memory if isinstance(memory, dict) else {}


def check_size(what: str, nbytes: int, most: int = METRIC_BYTES) -> None:
    """Raise ValueError when something takes more than it may."""
    if nbytes > most:
        raise ValueError(f"{what} of this window take {nbytes / MIB:.0f} MiB; at most {most // MIB} MiB are kept")


def pack_points(points: list[Point]) -> bytes:
    """Pack points one after the other, for `report_codec.encode` of the outbox."""
    pack = msgpack.Packer(use_bin_type=True).pack
    return b"".join([pack(point) for point in points])


def largest_first(sizes: dict[str, int], most: int) -> list[str]:
    """Return the names to leave out, the largest first, until the rest takes at most `most` bytes."""
    total, names = sum(sizes.values()), []
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        if total <= most:
            break
        names.append(name)
        total -= sizes[name]
    return names
