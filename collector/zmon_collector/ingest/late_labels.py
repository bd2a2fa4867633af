"""Late labels on the collector's thread: what goes to the join, and which windows wait for its result.

The join runs on the database's thread, in the turn's transaction: it needs the disk, and what it completes is journaled
as rows of the window that was open then, so that a replay joins nothing again. Its result reaches the engine a moment
after the turn, and a window that closed meanwhile would miss it. So such a window is held until the results of all
turns that touched it are back, and later windows of its model queue behind it: windows close in order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import msgpack
import numpy as np
from zmon_plugins.metrics.late_labels import OUTCOMES

from zmon.batch import Array, Schema
from zmon.errors import WireError
from zmon_collector.config import Config
from zmon_collector.ingest import validation
from zmon_collector.ingest.arrival import BatchArrival
from zmon_collector.ingest.model_state import ModelState
from zmon_collector.ingest.validation import WindowSlice
from zmon_collector.ingest.variants import family
from zmon_collector.storage import label_work
from zmon_collector.storage.chunk_codec import ChunkRecord
from zmon_collector.storage.journal_tables import LabelOwner
from zmon_collector.storage.label_join import Joined
from zmon_collector.storage.label_work import JoinWork
from zmon_collector.telemetry import Telemetry
from zmon_collector.windows import fit
from zmon_collector.windows.window import NANO, ModelKey, Now, OpenWindow

SWEEP_EVERY = 10.0  # seconds
EARLY = 16  # sets of classes of a model's labels that wait for its first rows
OWNERS = 64  # sets of classes of a model of which the number is remembered


class LateLabels:
    """Rows with ids, and labels, on their way to the join and back.

    Parameters
    ----------
    models : mapping
        State of every model; shared with the ingestor.
    close : callable
        Hands a window to the engine, ``close(model, window)``.
    journal : bool
        Whether there is a journal; without one there is no join.
    """

    def __init__(
        self, models: Mapping[ModelKey, ModelState], close: Callable[[ModelKey, OpenWindow], None], *, journal: bool
    ) -> None:
        self.used = False  # some model publishes ids, or did
        self.kept_bytes = 0
        self._models = models
        self._close = close
        self._journal = journal
        self._joining: Counter[int] = Counter()  # by window: turns whose join is not back
        # Windows that the current turn's join touches, with the schema under which its pairs are kept.
        self._turn: dict[int, tuple[OpenWindow, Schema | None]] = {}
        self._held: dict[ModelKey, ModelState] = {}  # models of which some closed window waits for a join
        self._swept = 0.0

    # --- settle ------------------------------------------------------------------------------------------------------

    def note_rows(self, work: JoinWork, arrival: BatchArrival, window: OpenWindow) -> None:
        """Note the classes of rows of this window: labels are matched with them by name, in whatever order."""
        model, schema, known = arrival.model, arrival.schema, arrival.model.rows_schema
        if known is schema:
            return
        if known is not None and not fit.conflict(known, schema):
            model.rows_schema = fit.ordered(schema, known)
            return
        others = [state for state in family(model) if state is not model]
        for task, classes in (key for state in others for key in state.owners):
            schema = fit.ordered(schema, Schema(task, classes))
        model.rows_schema = schema
        if schema.task != "classification":
            return
        # Labels that came before any rows, under any list of classes; and those that wait in another version of the
        # family, where rows with these classes were till now.
        own = (schema.task, schema.classes)
        waiting = model.early_owners | {(*own, state.owners[own]) for state in others if own in state.owners}
        for task, classes, owner in waiting:
            if task == schema.task and owner != model.owners.get(own):
                places = fit.places(classes, schema.classes)
                # Labels of this turn are in windows of the main version, which have other classes than a variant.
                target = None if model.main is None else self._target(window, _kept_schema(schema))
                work.move(label_work.Moved(owner, self._owner(work, model, schema), places), target)
                self._note_moved(model, classes, schema)

    def _note_moved(self, model: ModelState, classes: tuple[str, ...], schema: Schema) -> None:
        """Note that this turn's labels of these classes are kept under the rows' classes now, also in other windows."""
        for number, (window, kept) in self._turn.items():
            if kept is not None and kept.classes == classes and model.windows.open.get(window.start) is window:
                self._turn[number] = window, schema

    def keep_predictions(self, work: JoinWork, arrival: BatchArrival, window: OpenWindow, part: WindowSlice) -> None:
        """Keep rows with ids, which may get their labels later."""
        batch, kept = part.batch, _kept_schema(arrival.model.rows_schema or part.batch.schema)
        if batch.ids.dtype.kind == "S":  # an empty id means that the row has none
            batch = batch.take(batch.ids != b"")
            if not batch.rows:
                return
        bare = batch.only({"probabilities", "predictions", "predicted", "labels"})
        columns = dict(bare.raw())
        if batch.schema.task == "classification":  # of `bare`: the engine has the batch, and nothing is added to it
            columns["predictions"] = bare.predicted
        fit.reorder(columns, batch.schema.classes, kept.classes)
        work.predicted.append(
            label_work.Predicted(
                self._owner(work, arrival.model, kept),
                self._target(window, kept),
                window.end,
                arrival.agent,
                arrival.now.wall,
                label_work.id_bytes(batch.ids),
                batch.timestamps,
                columns.get("predictions"),
                columns.get("probabilities"),
                columns.get("labels"),
                arrival.client.name if arrival.client is not None else "",
                own_name if (own_name := arrival.session.topic.agent_id) != arrival.agent else "",
            )
        )

    def settle(self, work: JoinWork, arrival: BatchArrival, skip: int, max_skew: float) -> None:
        """Join labels from the row `skip` on with the windows that are open; refuse those that have no label."""
        message, model, now = arrival.message, arrival.model, arrival.now
        fresh = message.rows - skip
        arrival.telemetry.count("labels", by=fresh)
        try:
            if not self._journal:
                raise WireError("labels_need_journal", "labels are joined in the journal, which is off")
            ids, given = (column[skip:] for column in validation.check_labels(message, arrival.schema))
            times, _ = validation.resolve_times(message, now.wall, max_skew)
            schema = _target_schema(arrival.schema, model.rows_schema)
            if model.rows_schema is None:
                _check_early(model, schema)
        except WireError as error:
            arrival.refuse(fresh, error.reason, error.detail)
            return
        when = np.full(fresh, times) if isinstance(times, int) else times[skip:]
        given = _by_name(arrival, schema, given)
        present = np.isfinite(given) if schema.task == "regression" else given >= 0
        unlabelled = ~present & (given != fit.UNKNOWN)
        if given.ndim == 2:  # a row of a multilabel model is labelled if any of its classes is
            present, unlabelled = np.asarray(present.any(axis=1)), np.asarray(unlabelled.all(axis=1))
        arrival.refuse(int(np.count_nonzero(unlabelled)), "label_missing", "it is None or NaN")
        whole = model.windows.label_windows(model.rows_schema, now)
        windows = [each for each in whole if each.undecided or not fit.conflict(each.schema, schema)] or whole
        targets = np.where(present, _targets(when, [window.start for window in windows]), -1)
        owner, rights, key = self._owner(work, model, schema), _packed_rights(arrival), (schema.task, schema.classes)
        if model.rows_schema is None:
            model.early_owners.add((*key, owner))
        also = tuple(state.owners[key] for state in family(model) if state is not model and key in state.owners)
        for i in np.unique(targets[present]).tolist():
            rows, window = np.flatnonzero(targets == i), windows[i]
            conflict = "" if window.undecided else fit.conflict(window.schema, schema)
            if conflict:
                arrival.refuse(len(rows), "schema_conflict", conflict)
            else:
                names, target = label_work.id_bytes(ids[rows]), self._target(window, schema)
                block = label_work.Labelled(owner, target, arrival.agent, now.wall, names, given[rows], when[rows])
                work.labelled.append(block._replace(stream=message.stream, agents=rights, also=also))

    def _target(self, window: OpenWindow, schema: Schema | None = None) -> label_work.JoinWindow:
        if schema is not None or window.number not in self._turn:
            self._turn[window.number] = window, schema
        return label_work.JoinWindow(window.number, window.start)

    def _owner(self, work: JoinWork, model: ModelState, schema: Schema) -> int:
        key = (schema.task, schema.classes)
        owner = model.owners.get(key)
        if owner is None:
            owner = model.owners[key] = label_work.owner_of(model.key, schema)
            work.owners.append((owner, *model.key, schema.task, msgpack.packb(list(schema.classes))))
            self._note_owner(model, owner)
            if len(model.owners) > OWNERS:  # it is found again by its classes
                early = {(task, classes) for task, classes, _ in model.early_owners}
                del model.owners[next(known for known in model.owners if known not in early)]
        return owner

    def restore_owner(self, model: ModelState, owner: LabelOwner) -> None:
        """Note that labels may wait for predictions of this owner, of an earlier run."""
        schema = Schema(owner.task, tuple(msgpack.unpackb(owner.classes)) if owner.classes else ())
        key = (schema.task, schema.classes)
        model.owners[key] = owner.number
        if owner.newest is not None:
            model.rows_schema = schema  # owners come in the order of their newest predictions
        else:
            model.early_owners.add((*key, owner.number))
        self._note_owner(model, owner.number)

    def _note_owner(self, model: ModelState, owner: int) -> None:
        model.label_owners.add(owner)
        self.used = True

    def end_turn(self, work: JoinWork, config: Config, now: Now) -> frozenset[int]:
        """Complete the turn's work for the join; return the windows that wait for its result."""
        if self.used and now.mono - self._swept >= min(SWEEP_EVERY, config.collector.label_wait / 4):
            self._swept = now.mono
            windows = {
                owner: self._target(model.windows.open[max(model.windows.open)])
                for model in self._models.values()
                if model.label_owners and model.windows.open
                for owner in model.label_owners
            }
            collector = config.collector
            work.sweep = label_work.Sweep(now.wall - collector.label_horizon, now.wall - collector.label_wait, windows)
        work.limit = config.limits.label_bytes
        for window, schema in self._turn.values():
            # As the window is now: rows that came after the labels of this turn may have decided on its classes.
            if schema is not None and schema.classes != window.schema.classes and not window.undecided:
                work.classes[window.number] = schema.classes, window.schema.classes
        waiting, self._turn = frozenset(self._turn), {}
        self._joining.update(waiting)
        return waiting

    # --- the join's result -------------------------------------------------------------------------------------------

    def completed(self, joined: Joined, telemetry: Telemetry) -> Iterator[tuple[int, ChunkRecord]]:
        """Yield the rows that a join has completed, by window, and count their outcomes."""
        self.kept_bytes = joined.kept_bytes
        for table, rows in joined.damaged.items():
            telemetry.count("state_rows_damaged", table, rows)
        if joined.evicted:
            telemetry.count("label_ids_evicted", by=joined.evicted)
        for number, records in joined.records.items():
            for record in records:
                for outcome, rows in enumerate(np.bincount(record.columns["label_outcomes"]).tolist()):
                    if rows:
                        telemetry.count("late_labels", OUTCOMES[outcome], rows)
                yield number, record

    def release(self, windows: frozenset[int]) -> None:
        """Close what waited for a turn's join, once the engine has its rows."""
        self._joining -= Counter(windows)
        for model in list(self._held.values()):
            while model.closing and not self.is_joining(model.closing[0].number):
                self._close(model.key, model.closing.popleft())
            if not model.closing:
                del self._held[model.key]

    def is_joining(self, window: int) -> bool:
        """Return whether completed rows may still come for a window."""
        return self._joining[window] > 0 or window in self._turn

    def close(self, model: ModelState, window: OpenWindow) -> None:
        """Close a window once no join is under way for it, after earlier windows of its model."""
        if model.closing or self.is_joining(window.number):
            model.closing.append(window)
            self._held[model.key] = model
        else:
            self._close(model.key, window)

    @property
    def idle(self) -> bool:
        """Whether no window waits for a join."""
        return not self._held


def _packed_rights(arrival: BatchArrival) -> bytes:
    """Return globs of the agents whose rows the sender may label."""
    agents = arrival.client.labelled_agents(arrival.model.key[0]) if arrival.client is not None else ()
    return msgpack.packb(agents) if agents else label_work.ANYBODY


def _check_early(model: ModelState, schema: Schema) -> None:
    """Raise WireError if the labels that came before any rows of a model have too many sets of classes with these."""
    early = {(task, classes) for task, classes, _ in model.early_owners} | {(schema.task, schema.classes)}
    if len(early) > EARLY:
        raise WireError("schema_limits", f"labels of more than {EARLY} sets of classes before any rows of the model; "
                        "publish rows first")  # fmt: skip


def _target_schema(own: Schema, rows: Schema | None) -> Schema:
    """Return the schema under which labels are joined, that of the model's rows; WireError if its task is another."""
    if rows is not None and rows.task != own.task:
        raise WireError("schema_conflict", f"the task is {own.task!r}, and that of the model's rows is {rows.task!r}")
    if rows is not None and own.task == "multilabel" and (conflict := fit.conflict(rows, own)):
        raise WireError("schema_conflict", conflict)
    return _kept_schema(own if rows is None else rows)


def _kept_schema(rows: Schema) -> Schema:
    """Return the schema under which rows of this one and their labels are kept until they meet.

    The classes of a multilabel model are kept in the order of their names, so that labels which come before any rows
    are the same in whatever order their publisher lists them.
    """
    return replace(rows, classes=tuple(sorted(rows.classes))) if rows.task == "multilabel" else rows


def _by_name(arrival: BatchArrival, schema: Schema, given: Array) -> Array:
    """Return labels as indices of the schema's classes, by name; those that it lacks are UNKNOWN, and refused."""
    own = arrival.schema.classes
    if own == schema.classes:
        return given
    if given.ndim == 2:
        return given[:, fit.places(schema.classes, own)]
    place = np.append(fit.places(own, schema.classes), -1)
    found = place[given]
    lacking = given[found == fit.UNKNOWN]
    if len(lacking):
        names = ", ".join(repr(own[i]) for i in np.unique(lacking)[:5].tolist())
        classes = ", ".join(map(repr, schema.classes[:5]))
        arrival.refuse(len(lacking), "label_unknown", f"class {names}; the model's rows have {classes}"
                       + (", …" if len(schema.classes) > 5 else ""))  # fmt: skip
    return found


def _targets(times: Array | int, starts: list[int]) -> Array:
    """Return, for each label's time, the index of the newest window that begins by then, else of the oldest."""
    seconds = np.atleast_1d(np.asarray(times)) // NANO
    where = np.searchsorted(np.array(starts), seconds, side="right") - 1
    return np.maximum(where, 0)
