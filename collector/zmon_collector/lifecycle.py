"""The beginning and the end of a collector's parts: what an earlier run left is restored, what is left is finished."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial

from zmon_collector import garbage
from zmon_collector.build import Parts
from zmon_collector.dashboard.history import newest_sequence, windows_after
from zmon_collector.dashboard.live import HISTORY
from zmon_collector.delivery.outbox import next_sequence
from zmon_collector.ingest.early_answers import EarlyAnswers
from zmon_collector.ingest.recovery import Recovery
from zmon_collector.storage import journal_state, label_join, positions
from zmon_collector.storage.positions import Positions
from zmon_collector.watchdog import Vital
from zmon_collector.windows.window import Now

log = logging.getLogger("zmon.collector")

TURN_LIMIT = 15.0  # seconds without a turn, or without a look at the sockets, after which nothing works
STORE_LIMIT = 60.0  # seconds of one commit
DELIVERY_LIMIT = 300.0  # seconds that a sink, an observer or a notification takes for one piece
STEP_LIMIT = 30.0  # seconds of a step of metrics, beyond their timeout
EXIT_WAIT = 10.0  # seconds that the disk, the history and the sinks each get at the end
ACKS_READ = 0.5  # seconds that publishers get at the end to read acknowledgements: they look every 0.2


def restore(parts: Parts, now: Now, wake: Callable[[], None]) -> Recovery:
    """Restore all that an earlier run left but its rows; the recovery that is returned replays those."""
    with garbage.put_off():  # hundreds of thousands of objects are made
        return _restore(parts, now, wake)


def _restore(parts: Parts, now: Now, wake: Callable[[], None]) -> Recovery:
    early = EarlyAnswers(parts.receiver, parts.ingestor)
    known = _positions(parts, early)
    # These may take a while to import or to open, and nothing that follows waits for them.
    parts.live.start()
    parts.site.start()
    state = parts.database.call(partial(journal_state.load, known=known), early.answer)
    parts.clock.restore(state.newest)
    now = now._replace(wall=max(now.wall, parts.clock.wall()))
    if parts.config.collector.journal == "on":
        parts.ingestor.store_id = state.store_id
    else:
        parts.database.call(positions.clear_positions)
    file_bytes = parts.database.used_bytes
    parts.ingestor.late.kept_bytes = parts.database.call(partial(label_join.restore_kept_bytes, file_bytes))
    recovery = Recovery(state, parts.ingestor, parts.database, wake)
    recovery.restore(now, early.answer)
    for load in (parts.outbox.load_reports, parts.dead_letters.trim, parts.alert_worker.load):
        parts.database.call(load, early.answer)
    early.answer()
    return recovery


def _positions(parts: Parts, early: EarlyAnswers) -> Positions:
    """Read where streams go on, and answer hellos from then on; it is what a start reads first."""
    folder = parts.config.collector.data_dir
    parts.outbox.begin_at(max(next_sequence(folder), 1 + newest_sequence(folder / HISTORY)))
    parts.database.call(lambda connection: parts.outbox.load_cursors(connection, parts.deliveries.names))
    incomplete = parts.database.incomplete
    load = partial(positions.load, reported=_reported_since(parts), incomplete=incomplete)
    known: Positions = parts.database.call(load)
    if parts.config.collector.journal == "on":
        early.know(known)
    else:  # the positions of an earlier run mean nothing
        early.know(Positions(parts.ingestor.store_id, heard=known.heard))
    early.answer()
    return known


def watch(parts: Parts, turns: Callable[[], int | None], ident: Callable[[], int | None]) -> None:
    """Have the watchdog look at every thread from now on.

    Parameters
    ----------
    parts : Parts
    turns : callable
        Returns the turns of the collector's own thread; None while it is in none.
    ident : callable
        Returns the identifier of that thread.
    """
    watchdog, database = parts.watchdog, parts.database
    watchdog.watch(Vital("collector", lambda: True, turns, TURN_LIMIT, essential=True, ident=ident))
    watchdog.watch(Vital("zmon-store", database.is_alive, lambda: database.beat, STORE_LIMIT, essential=True))
    watchdog.watch_supervised(parts.receiver.thread, TURN_LIMIT, essential=True)
    for thread in parts.deliveries.threads():
        watchdog.watch_supervised(thread, DELIVERY_LIMIT)
    for executor in parts.engine.executors:
        limit = parts.config.collector.metric_timeout + STEP_LIMIT
        watchdog.watch(Vital(f"zmon-metrics-{executor.name or 'built-in'}", lambda: True, executor.sign, limit))
    for server in parts.site.servers:
        watchdog.watch_supervised(server.thread, TURN_LIMIT)
    watchdog.watch(Vital("zmon-history-file", lambda: True, parts.live.history.sign, DELIVERY_LIMIT))
    watchdog.start()


def _reported_since(parts: Parts) -> list[tuple[str, str, int, int]] | None:
    """If state.sqlite is an older copy, return the windows reported since it was made; else None."""
    known, config = parts.outbox.restored_from, parts.config.collector
    if known is None:
        return None
    reported = windows_after(config.data_dir / HISTORY, known)
    parts.telemetry.count("state_restored")
    log.error("%s is older than the files next to it: it ends with report %d. %d windows have been reported since, and "
              "are not reported again; rows acknowledged since are in these, or lost",
              parts.database.path, known, len(reported))  # fmt: skip
    return reported


def finish(parts: Parts) -> None:
    """Send the last acknowledgements, let the sinks finish, and stop every part.

    The order matters: acknowledgements before the sockets close, reports before the sinks end, and the database last,
    since all others write to it.
    """
    database = parts.database
    if not database.broken:
        database.wait(EXIT_WAIT)  # acknowledgements are sent when rows are on disk
    if parts.ingestor.sessions.connected:
        # libzmq drops what a publisher has not read when the connection ends, and the publisher would send those rows
        # again. In parts: while a machine stands still, only one of them is lost.
        for _ in range(10):
            time.sleep(ACKS_READ / 10)
    parts.receiver.stop()
    parts.outbox.end()
    late = parts.deliveries.join(EXIT_WAIT)
    if late:
        log.warning("timed out waiting for %s; %d reports remain queued", ", ".join(late), len(parts.outbox))
    if not parts.live.stop(EXIT_WAIT):
        log.error("the page's history could not be closed: its disk does not answer")
    parts.engine.shutdown()
    if not database.close(EXIT_WAIT):
        log.error("the last rows could not be written; their publishers will send them again")
    log.info("stopped: %s", ", ".join(f"{name} {count}" for name, count in parts.telemetry.snapshot().items()))
