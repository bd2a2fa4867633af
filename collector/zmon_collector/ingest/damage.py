"""After a start: what damaged rows of the journal have cost is made good where other rows tell it, and counted else.

- A stream whose position is lost begins after the rows that were acknowledged to it, as one does that another store has
  acknowledged: `positions.load` gives the store another name. Rows that were journaled, and not acknowledged before
  the collector ended, are known from the journaled chunks (lost_positions.py).
- Rows of a window that is lost count as lost: its row counts are rows of their own.
- Closed stretches of time that are lost might open again, and be reported twice. So all that lies before the open
  windows of their model counts as closed.
"""

from __future__ import annotations

import logging

from zmon_collector.ingest.ingestor import Ingestor
from zmon_collector.storage.journal_state import JournalState
from zmon_collector.storage.sealed import LOGGED
from zmon_collector.windows.window import NO_WINDOW, Now

log = logging.getLogger("zmon.collector")


def settle_damage(state: JournalState, ingestor: Ingestor, now: Now) -> None:
    """Count what damaged rows have cost. Called when all the others are restored."""
    for table, rows in state.damaged.items():
        if rows:  # none if a part of a damaged file could not be read: nobody knows how many
            ingestor.telemetry.count("state_rows_damaged", table, len(rows))
    for window, model, version, agent, _ in state.damaged.get("tallies", ())[:LOGGED]:
        log.error("counts of agent %r of model %r, version %r, in window %r are damaged: its received rows are counted "
                  "again, its late, lost, rejected and sampled-out rows so far are in no point", agent, model, version,
                  window)  # fmt: skip
    ingestor.settled_rows, ingestor.restored = dict(state.positions.settled_rows), state.positions.restored
    _count_rows_of_lost_windows(state, ingestor, now)
    if "spans" in state.damaged:
        lost = {tuple(row[:2]) for row in state.damaged["spans"]}
        known = lost and lost <= ingestor.models.keys()
        for key, model in ingestor.models.items():
            if key in lost or not known:  # a damaged name may be that of any model
                model.windows.close_past()


def _count_rows_of_lost_windows(state: JournalState, ingestor: Ingestor, now: Now) -> None:
    windows = {NO_WINDOW, *(row.number for row in state.windows)}
    for number, model, version, agent, tally in state.counts:
        if number in windows:
            continue
        ingestor.telemetry.count("lost", "damaged", tally.received)
        tally.add("lost", tally.received)
        tally.received = 0
        key = (model, version)
        windows_of_model = (ingestor.models.get(key) or ingestor.add_model(key)).windows
        windows_of_model.restore_counts(agent, tally, now)
        windows_of_model.changes.counts.add((NO_WINDOW, agent))
        ingestor.turn.counts.append((number, model, version, agent, None))
