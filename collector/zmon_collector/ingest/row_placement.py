"""Rows of a batch on their way into windows: checked, split, placed, fitted, handed to the engine, and journaled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from zmon.errors import WireError
from zmon_collector.compute.accumulate import AgentRows
from zmon_collector.compute.engine import Engine
from zmon_collector.compute.window_contract import Contract
from zmon_collector.ingest import validation
from zmon_collector.ingest.arrival import BatchArrival
from zmon_collector.ingest.late_labels import LateLabels
from zmon_collector.ingest.validation import WindowSlice
from zmon_collector.ingest.variants import Variants
from zmon_collector.storage.chunk_codec import ChunkRecord
from zmon_collector.storage.journal import Turn
from zmon_collector.windows.fit import SEGMENTS, Fit
from zmon_collector.windows.window import ModelKey, OpenWindow

INTERNAL = "the collector cannot handle these rows; its log says why"


@dataclass(slots=True)
class UnreportedWindow:
    """A window whose report is not written yet."""

    model: ModelKey
    window: OpenWindow
    schemas: set[bytes] = field(default_factory=set)  # journaled with it
    nbytes: int = 0  # of rows since the last checkpoint
    checkpoint_bytes: int = 0  # of the last checkpoint
    worth: int = 1  # bytes of rows from which the next one is worth its cost, as far as is known
    contract: Contract = Contract()  # what holds for the window, once it is journaled

    @property
    def held_bytes(self) -> int:
        """Bytes on disk that go when the window's report is written."""
        return self.nbytes + self.checkpoint_bytes

    def keep_rows(self, covered: int, worth: int) -> None:
        """Enter that a checkpoint was not written, so that the rows which it covered stay on disk."""
        self.nbytes += covered
        self.worth = worth


class RowPlacement:
    """The step that puts the rows of batches into windows, or counts them as late or rejected.

    Parameters
    ----------
    engine : Engine
        Receives the rows, by window.
    late : LateLabels
        Keeps rows with ids, which may get their labels later.
    variants : Variants
        Says where rows belong that have no place in their version.
    unreported : dict
        Windows whose reports are not written yet, by number; shared with the ingestor.
    journal : bool
        Whether rows are to be journaled.
    """

    def __init__(
        self,
        engine: Engine,
        late: LateLabels,
        variants: Variants,
        unreported: dict[int, UnreportedWindow],
        *,
        journal: bool,
    ) -> None:
        self._engine = engine
        self._late = late
        self._variants = variants
        self._unreported = unreported
        self._journal = journal

    def settle(self, turn: Turn, arrival: BatchArrival, skip: int, max_skew: float) -> None:
        """Settle the rows of a batch from the row `skip` on; the earlier ones are settled already.

        Rows whose time is further ahead than `max_skew` seconds count as rows of now.
        """
        message, windows, telemetry = arrival.message, arrival.model.windows, arrival.telemetry
        fresh = message.rows - skip
        telemetry.count("rows", by=fresh)
        try:
            times, skewed = validation.resolve_times(message, arrival.now.wall, max_skew)
            batch = validation.check_batch(message, arrival.schema, times)
            starts = windows.periods.starts(times)
            validation.check_span(starts, windows.rules.open_windows)
        except WireError as error:
            arrival.refuse(fresh, error.reason, error.detail)
            return
        if skewed:
            telemetry.count("skewed", by=skewed)
        settled = 0
        try:
            for rows in self._settle_parts(turn, arrival, validation.split_rows(batch, message.first, skip, starts)):
                settled += rows
        except Exception:  # the position has moved, so nobody sends these rows again
            arrival.refuse(fresh - settled, "internal", INTERNAL)
            raise

    def _settle_parts(self, turn: Turn, arrival: BatchArrival, parts: Iterable[WindowSlice]) -> Iterator[int]:
        """Settle rows window by window, each in its version or in a variant; yield how many are settled."""
        windows = arrival.model.windows
        for part in parts:
            misfit = windows.misfit(arrival.schema, part.start, arrival.now)
            if not misfit:
                self._settle_part(turn, arrival, part)
                yield part.batch.rows
                continue
            try:
                apart = self._variants.of_rows(arrival, misfit)
            except WireError as error:
                arrival.refuse(part.batch.rows, "schema_conflict", f"{misfit}; no version of its own: {error.detail}")
                yield part.batch.rows
            else:
                yield from self._settle_parts(turn, apart, validation.split_again(part, apart.model.windows.periods))

    def _settle_part(self, turn: Turn, arrival: BatchArrival, part: WindowSlice) -> None:
        """Settle rows of one window: in the window, or late."""
        windows, rows = arrival.model.windows, part.batch.rows
        windows.advance_clock(arrival.agent, arrival.message.stream, part.newest, arrival.now)
        arrival.model.note_tags(arrival.agent, arrival.schema.tags)
        window = windows.place_rows(arrival.agent, arrival.schema, part.start, rows, arrival.now)
        if window is None:
            arrival.telemetry.count("late_or_conflicting", by=rows)
            return
        self._late.note_rows(turn.join_work, arrival, window)
        fit = window.fit(arrival.schema)
        try:
            batch, left_out = fit.apply(part.batch)
            agent_rows = AgentRows(arrival.agent, batch, arrival.session.seed, part.numbers)
            self._engine.add_rows(arrival.model.key, window, agent_rows)
        except Exception:
            window.tally(arrival.agent).received -= rows  # they are counted as rejected instead
            raise
        if arrival.apart or left_out:
            arrival.degrade(rows, "schema_conflict", "; ".join(filter(None, (arrival.apart, left_out))))
        without_room = windows.without_room(arrival.schema)
        if without_room:
            most = f"limits.features = {windows.rules.features} of all publishers of a model together"
            what = f"{without_room} columns are left out; the collector takes {most}, and {SEGMENTS} segments"
            arrival.degrade(rows, "schema_limits", what)
        if self._journal:
            part = part._replace(batch=batch)
            self._write(turn, arrival, window, (part, fit))
            if "ids" in batch.raw():
                self._late.keep_predictions(turn.join_work, arrival, window, part)

    def _write(self, turn: Turn, arrival: BatchArrival, window: OpenWindow, placed: tuple[WindowSlice, Fit]) -> None:
        """Journal rows of a window with this turn, as they were fitted into it."""
        part, fit = placed
        stream, name, rows = arrival.session.key, fit.name or arrival.message.schema, part.batch.rows
        columns, dictionaries = dict(part.batch.raw()), dict(part.batch.dictionaries)
        record = ChunkRecord(arrival.agent, stream, name, part.numbers, rows, columns, dictionaries)
        unreported = self._unreported.get(window.number)
        if unreported is None:
            unreported = self._unreported[window.number] = UnreportedWindow(arrival.model.key, window)
        if name not in unreported.schemas:
            unreported.schemas.add(name)
            turn.schemas.append((window.number, name, fit.body or arrival.body))
        turn.chunks.setdefault(window.number, []).append(record)
        nbytes = part.batch.nbytes
        turn.nbytes += nbytes
        unreported.nbytes += nbytes
