"""What a collector takes at most, item by item, by its configuration: for ``zmon validate`` and for tests.

Each bound is a constant of the module that keeps it, or a key of [limits]; here they are added up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from zmon_plugins.sinks.anodot_file import KEEP_BYTES

from zmon_collector.config import Config
from zmon_collector.dashboard.history import REMEMBERED_BYTES
from zmon_collector.dashboard.web.connections import UNREAD_BYTES
from zmon_collector.dashboard.web.sse import KEPT_BYTES, VIEWED_BYTES
from zmon_collector.ingest.connections import UNFINISHED
from zmon_collector.ingest.receiver import GREETING_BYTES
from zmon_collector.loading import sink_is_on
from zmon_collector.pauses import DATABASE_BYTES, ENGINE_BYTES
from zmon_collector.service import TURN_BYTES

PYTHON_BYTES = 300 * 2**20  # the interpreter, libraries, accumulators of metrics
ANSWER_BYTES = 3 * 64 * 2**20  # answers with points that are made at a time
FILE_SINK = "anodot_file"


class Item(NamedTuple):
    """A part of what a collector takes, in bytes at most, and the keys that bound it."""

    what: str
    nbytes: int
    keys: str = ""


def memory(config: Config) -> Sequence[Item]:
    """Return what takes memory."""
    limits = config.limits
    inbox = 2 * limits.inflight_bytes + limits.message_bytes + 2 * GREETING_BYTES
    items = [
        Item("messages that wait", inbox, "inflight_bytes, message_bytes"),
        Item("messages that are not whole yet", UNFINISHED),
        Item("rows that wait for metrics and the disk", ENGINE_BYTES + DATABASE_BYTES + 2 * TURN_BYTES),
        Item("samples of rows", limits.sample_bytes, "sample_bytes"),
        Item("schemas", limits.schema_bytes, "schema_bytes"),
    ]
    if config.web.enabled:
        page = UNREAD_BYTES + KEPT_BYTES + VIEWED_BYTES + REMEMBERED_BYTES + ANSWER_BYTES
        items.append(Item("the page and its viewers", page))
    return [*items, Item("Python and accumulators", PYTHON_BYTES)]


def disk(config: Config) -> Sequence[Item]:
    """Return what takes disk."""
    limits = config.limits
    items = [
        Item("rows of open windows", limits.journal_bytes, "journal_bytes"),
        Item("rows and labels that wait", limits.label_bytes, "label_bytes"),
        Item("reports that wait for sinks", limits.outbox_bytes, "outbox_bytes"),
    ]
    if config.web.enabled:
        items.append(Item("history", config.web.history_bytes, "history_bytes"))
    if sink_is_on(config, FILE_SINK):
        keep = config.sinks.get(FILE_SINK, {}).get("keep_bytes", KEEP_BYTES)
        items.append(Item("files of points", int(keep), "keep_bytes"))
    return items


def total(items: Sequence[Item]) -> int:
    """Return the bytes of all items."""
    return sum(item.nbytes for item in items)
