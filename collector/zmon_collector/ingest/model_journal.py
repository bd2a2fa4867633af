"""What has changed of models in a turn, as rows for the journal."""

from __future__ import annotations

from collections import Counter

from zmon._wire.frames import encode_schema, pack
from zmon.batch import Schema
from zmon_collector.compute.engine import Engine
from zmon_collector.ingest.model_state import ModelState
from zmon_collector.ingest.row_placement import UnreportedWindow
from zmon_collector.storage.journal import Turn
from zmon_collector.storage.journal_tables import WindowRow
from zmon_collector.windows.manager import WindowManager
from zmon_collector.windows.window import NO_WINDOW, Changes, Now


class ModelJournal:
    """Adds the changes of models to turns, and knows which contracts the journal holds for unreported windows.

    Parameters
    ----------
    engine : Engine
        Fixes the contracts of windows.
    unreported : dict
        Windows whose reports are not written yet, by number; shared with the ingestor.
    journal : bool
        Whether rows and open windows are journaled.
    """

    def __init__(self, engine: Engine, unreported: dict[int, UnreportedWindow], *, journal: bool) -> None:
        self._engine = engine
        self._unreported = unreported
        self._journal = journal
        self._held: dict[int, tuple[bytes | None, bytes]] = {}  # digests of contracts, by window
        self._uses: Counter[bytes | None] = Counter()  # of each by windows

    def add(self, turn: Turn, model: ModelState, now: Now) -> None:
        """Add what has changed of a model since its last turn."""
        changes, windows = model.windows.drain_changes(), model.windows
        contracts = {window.number: self._engine.open(model.key, window) for window in changes.opened}
        if changes.spans:
            turn.spans += [(*model.key, *span) for span in changes.spans]
        if changes.periods:
            turn.periods.append((*model.key, pack(windows.periods.plain())))
        if changes.main and windows.columns is not None:
            main = Schema(windows.columns.task, windows.columns.classes)
            turn.mains.append((*model.key, encode_schema(main), None if model.main is None else model.main.key[1]))
        if model.unnoted is not None:
            turn.heard.append((*model.key, model.unnoted, model.owner))
            model.unnoted = None
        if not self._journal:
            return
        for window in changes.opened:
            unreported = self._unreported.setdefault(window.number, UnreportedWindow(model.key, window))
            unreported.contract = contracts[window.number]
            self._add_contract(turn, window.number, unreported)
            body = b"" if window.undecided else encode_schema(window.schema)
            row = WindowRow(window.number, *model.key, window.start, window.end, body)
            policy, reference = unreported.contract.digests
            turn.windows.append(row._replace(policy=policy, reference=reference))
            changes.counts |= {(window.number, agent) for agent in window.tallies}
        for number, agent in changes.counts:
            turn.counts.append((number, *model.key, agent, self._packed_tally(windows, number, agent)))
        for agent in changes.agents:
            clock = windows.clock(agent, now)
            if clock is not None:
                turn.agents.append((*model.key, agent, *clock, model.agents.get(agent, "")))
        if changes.tags or model.changed_tags:
            self._add_tags(turn, model, changes)

    def release(self, number: int) -> None:
        """Forget the contract of a window that is reported: the journal drops it when no window has it any more."""
        for digest in self._held.pop(number, ()):
            self._uses[digest] -= 1
            if not self._uses[digest]:
                del self._uses[digest]

    def _add_contract(self, turn: Turn, number: int, unreported: UnreportedWindow) -> None:
        """Add the parts of a window's contract that no other unreported window has."""
        self.release(number)
        for digest, pack_part in unreported.contract.parts():
            if digest not in self._uses:
                turn.contracts.append((digest, pack_part()))
        self._held[number] = digests = unreported.contract.digests
        self._uses.update(digests)

    def _add_tags(self, turn: Turn, model: ModelState, changes: Changes) -> None:
        found = [
            (number, agent, unreported.window.tags.get(agent))
            for number, agent in changes.tags
            if (unreported := self._unreported.get(number)) is not None
        ]
        found += [(NO_WINDOW, agent, model.tags[agent]) for agent in model.changed_tags]
        turn.tags += [(number, *model.key, agent, pack(dict(tags))) for number, agent, tags in found if tags]
        model.changed_tags.clear()

    def _packed_tally(self, windows: WindowManager, number: int, agent: str) -> bytes | None:
        unreported = self._unreported.get(number)  # None: finished since, and its counts are in its report
        tallies = windows.unplaced if number == NO_WINDOW else unreported.window.tallies if unreported else {}
        tally = tallies.get(agent)
        return None if tally is None else pack(tally.plain())
