"""A stream's tally: cumulative numbers of rows that never arrive, or arrive without a part, by reason. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from zmon.errors import WireError
from zmon.names import OTHER_REASON, reason_word

REASONS = 64  # of one map
KEYS = ("sampled_out", "rejected", "degraded", "lost")
MAX_NUMBER = 2**53  # for row numbers and counts of rows: exact in every format in which points are written
FOLDED = "__other__"  # the rows of a map whose reasons are not counted by name: see `fold`

# fmt: off
# The reasons that this release uses itself. They are always counted by name, whatever reasons others make up.
KNOWN = frozenset({
    OTHER_REASON,
    # values, by the publisher and by the checks that both sides make
    "classes_missing", "classes_order", "codes_dtype", "codes_shape", "decision_function", "hashes_shape",
    "ids_invalid", "inputs_columns", "inputs_dtype", "inputs_kind", "inputs_shape", "internal", "label_ambiguous",
    "label_index", "label_missing", "label_one_hot", "label_unknown", "labels_dtype", "labels_index",
    "labels_shape", "length_mismatch", "lengths_shape", "matrix_invalid", "multi_output", "output_missing",
    "prediction_ambiguous", "prediction_index", "prediction_one_hot", "prediction_unknown", "predictions_dtype",
    "predictions_ignored", "predictions_index", "predictions_missing", "predictions_nan", "predictions_shape",
    "probabilities_dtype", "probabilities_missing", "probabilities_nan", "probabilities_range",
    "probabilities_shape", "probabilities_sum", "probabilities_task", "schema_changes", "segments_invalid",
    "segments_shape", "symbolic", "timestamp_invalid", "timestamp_unit", "training_mode",
    # messages, schemas and limits, by the collector
    "agents", "arrays", "categories", "cells", "dtype", "forbidden", "frames", "labels_need_journal", "length",
    "message_bytes", "models", "schema", "schema_conflict", "schema_limits", "shape", "streams", "tally", "task",
    "timestamp_span",
})
# fmt: on


def reasons(data: Mapping[str, Any], key: str, error: str) -> dict[str, Any]:
    """Return a map of reasons from a message, empty if it has none; WireError `error` if it is no such map.

    A reason that is not a word stays as it is: `check_tally` counts its rows as OTHER_REASON.
    """
    found = data.get(key, {})
    if not isinstance(found, dict) or len(found) > REASONS:
        raise WireError(error, f"{key} is not a map of at most {REASONS} reasons")
    if not all(isinstance(reason, str) and reason for reason in found):
        raise WireError(error, f"a reason of {key} is not a name")
    return found


def check_tally(tally: object) -> dict[str, Any]:
    """Return a stream's cumulative counts; WireError ``tally`` unless they are small non-negative integers.

    The tally may hold ``sampled_out`` and ``lost`` (numbers of rows) and ``rejected`` and ``degraded`` (numbers of rows
    by reason); other keys, from a newer minor, are left out. Reasons that are not words are counted as OTHER_REASON.
    """
    if not isinstance(tally, dict):
        raise WireError("tally", "not a map")
    if not tally:
        return {}
    found = {key: tally[key] for key in ("sampled_out", "lost") if key in tally}
    counts = list(found.values())
    for key in ("rejected", "degraded"):
        if key in tally:
            found[key] = by_reason = reasons(tally, key, "tally")
            counts += by_reason.values()
    if not all(type(count) is int and 0 <= count <= MAX_NUMBER for count in counts):
        raise WireError("tally", "a count is not a number of rows")
    for key in ("rejected", "degraded"):
        if any(reason_word(reason) != reason for reason in found.get(key, ())):
            found[key] = _words(found[key])
    return {key: found[key] for key in KEYS if key in found}


def _words(counts: Mapping[str, int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for reason, rows in counts.items():
        word = reason_word(reason)
        found[word] = min(found.get(word, 0) + rows, MAX_NUMBER)
    return found


def merge_tallies(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return the higher of two cumulative tallies, count by count, so that an older one changes nothing.

    If they hold more reasons than a genuine stream has, those that only `one` has are left out.
    """
    merged: dict[str, Any] = {kind: max(one.get(kind, 0), other.get(kind, 0)) for kind in ("sampled_out", "lost")}
    for kind in ("rejected", "degraded"):
        before, now = one.get(kind, {}), other.get(kind, {})
        kept = before if len(before.keys() | now.keys()) <= REASONS else {}
        merged[kind] = {**kept, **{why: max(rows, before.get(why, 0)) for why, rows in now.items()}}
    return {kind: counts for kind, counts in merged.items() if counts}


def covers(counted: Mapping[str, Any], tally: Mapping[str, Any]) -> bool:
    """Return whether all rows of a tally are in the counted one, under whatever reasons."""

    def rows(counts: Any) -> int:
        return sum(counts.values()) if isinstance(counts, Mapping) else counts

    return all(rows(counted.get(kind, 0)) >= rows(counts) for kind, counts in tally.items())


def fold(
    last: Mapping[str, int], now: Mapping[str, int], place: Callable[[str], str | None], most: int
) -> tuple[dict[str, int], dict[str, int]]:
    """Return two cumulative maps of one stream, an earlier and a later one, with at most `most` reasons by name.

    `place` returns the name under which a reason is kept, or None if there is no place for it. The rows of the others
    are counted together, as FOLDED. Once a stream has such rows, a reason that is new to it is always one of them. So a
    reason never leaves FOLDED for a name, also after a restart, and the difference of the two maps counts no row twice.

    >>> fold({"a": 1}, {"a": 2, "b": 3, "c": 4}, lambda reason: reason, most=2)
    ({'a': 1}, {'a': 2, 'b': 3, '__other__': 4})
    >>> fold({"a": 2, "b": 3, "__other__": 4}, {"a": 2, "b": 3, "c": 5, "d": 1}, lambda reason: reason, most=9)
    ({'a': 2, 'b': 3, '__other__': 4}, {'a': 2, 'b': 3, '__other__': 6})
    """
    names: dict[str, str] = {}
    closed = FOLDED in last
    for reason in (*last, *(() if closed else now)):
        if reason == FOLDED or reason in names:
            continue
        kept = place(reason) if len(names) < most else None
        if kept is not None:
            names[reason] = kept
        elif reason not in last:
            break  # the reasons after it are as new
    return _folded(last, names), _folded(now, names)


def _folded(counts: Mapping[str, int], names: Mapping[str, str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for reason, rows in counts.items():
        name = names.get(reason, FOLDED)
        found[name] = min(found.get(name, 0) + rows, MAX_NUMBER)
    return found
