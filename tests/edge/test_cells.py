"""One cell that is wrong costs a cell, a row or a column, never the batch: outputs matter most."""

from __future__ import annotations

import decimal
import enum
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.edge.forms import FRAMES, NAMED, sharp
from tests.edge.harness import OLD, Edge, Outcome
from tests.support.frameworks import require

N = 300
Y = [i % 2 for i in range(N)]
SAID = [y ^ (i % 4 == 3) for i, y in enumerate(Y)]
P = sharp(SAID, 2)
NAMES = ["no", "yes"]
AT = 7  # the place of the bad cell; its row is wrong: 7 % 4 == 3


def without(bad: int) -> float:
    """Return the accuracy of all rows but one."""
    right = np.array(Y) == SAID
    return float(np.delete(right, bad).mean())


def put(values: list[Any], bad: Any, at: int = AT) -> list[Any]:
    return [bad if i == at else value for i, value in enumerate(values)]


# --- labels ----------------------------------------------------------------------------------------------------------

TEXTS = [NAMES[y] for y in Y]
LABELS: dict[str, tuple[Callable[[], Any], str]] = {
    "an unknown name": (lambda: put(TEXTS, "maybe"), "label_unknown"),
    "an unknown name in an array": (lambda: np.array(put(TEXTS, "maybe")), "label_unknown"),
    "an unknown name in a series": (lambda: require("pandas").Series(put(TEXTS, "maybe")), "label_unknown"),
    "an unknown category": (lambda: require("pandas").Series(put(TEXTS, "maybe"), dtype="category"), "label_unknown"),
    "an unknown name in polars": (lambda: require("polars").Series(put(TEXTS, "maybe")), "label_unknown"),
    "an index beyond": (lambda: np.array(put(Y, 2)), "label_index"),
    "a negative index": (lambda: np.array(put(Y, -5)), "label_index"),
    "a fraction": (lambda: np.array(put(Y, 0.5)), ""),
    "an infinity": (lambda: np.array(put(Y, np.inf)), ""),
    "an object": (lambda: put(TEXTS, object()), ""),
    "a list": (lambda: put(TEXTS, ["no"]), ""),
    "a zero one-hot row": (lambda: np.where(np.arange(N)[:, None] == AT, 0, np.eye(2)[Y]), "label_one_hot"),
    "two ones": (lambda: np.where(np.arange(N)[:, None] == AT, 1, np.eye(2)[Y]), "label_one_hot"),
}


@pytest.mark.parametrize("bad", LABELS)
@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
def test_one_label_costs_one_label(edge: Edge, bad: str, first: bool) -> None:
    make, reason = LABELS[bad]
    model = edge.model(classes=NAMES)
    if not first:
        model.publish(P, labels=TEXTS)
    model.publish(P, labels=make(), inputs=np.arange(N, dtype=float)[:, None])
    found = model.end()
    batches = 1 if first else 2
    assert (found.rows, found.rejected) == (N * batches, {})
    assert found.degraded.total() == found.stats[0].degraded[reason or next(iter(found.degraded))] == 1
    right = (0.0 if first else 0.75 * N) + without(AT) * (N - 1)
    assert found["accuracy"] == pytest.approx(right / (N * batches - 1))
    assert found["label_coverage"] == pytest.approx((N * batches - 1) / (N * batches))
    assert found.feature("feat_0") == (N - 1) / 2 if first else True
    assert len(found.log) == 1, found.log


@pytest.mark.parametrize(
    "labels",
    [
        lambda: put(TEXTS, None),
        lambda: put(TEXTS, float("nan")),
        lambda: put(Y, None),
        lambda: np.array(put(Y, np.nan)),
        lambda: np.ma.masked_array(Y, mask=np.arange(N) == AT),
        lambda: require("pandas").Series(put(Y, None), dtype="Int64"),
        lambda: require("pandas").Series(put(TEXTS, None), dtype="string[pyarrow]"),
        lambda: require("pandas").Series(put(TEXTS, require("pandas").NA)),
        lambda: require("pandas").Series(put(TEXTS, require("pandas").NaT)),
        lambda: require("polars").Series(put(TEXTS, None)),
        lambda: require("pyarrow").array(put(TEXTS, None)),
        lambda: np.where(np.arange(N)[:, None] == AT, np.nan, np.eye(2)[Y]),
    ],
)
def test_a_missing_label_is_unlabelled_and_nothing_else(edge: Edge, labels: Any) -> None:
    model = edge.model(classes=NAMES)
    model.publish(P, labels=labels())
    found = model.end()
    assert (found.rows, found.rejected, found.degraded, found.log) == (N, {}, {}, [])
    assert found["accuracy"] == pytest.approx(without(AT))


@pytest.mark.parametrize("form", ["list", "array"])
def test_one_infinite_target_costs_itself(edge: Edge, form: str) -> None:
    truth = np.where(np.arange(N) == AT, np.inf, np.arange(N))
    model = edge.model(task="regression")
    model.publish(predictions=np.arange(N) + 1.0, labels=truth if form == "array" else truth.tolist())
    found = model.end()
    assert (found.rows, found.rejected, found.degraded) == (N, {}, {"labels_dtype": 1})
    assert (found["mae"], found.get("target_value", stat="max")) == (1.0, N - 1)


def test_one_bad_set_of_classes_costs_itself(edge: Edge) -> None:
    sets: list[Any] = [[NAMES[y]] for y in Y]
    plain, broken = edge.model(classes=NAMES, task="multilabel"), edge.model(classes=NAMES, task="multilabel")
    plain.publish(P, labels=put(sets, None))
    broken.publish(P, labels=put(sets, "no"))
    found = broken.end()
    assert (found.rows, found.rejected, found.degraded) == (N, {}, {"label_unknown": 1})
    assert found.points == plain.end().points


def test_labels_of_another_length_cost_the_labels(edge: Edge) -> None:
    model = edge.model(classes=NAMES)
    model.publish(P, labels=Y[:-1], inputs=np.ones((N, 1)))
    model.publish(P, labels=np.ones((N, 3)))
    model.publish(P, labels=Y)
    found = model.end()
    assert found.rows + found.rejected.total() == 3 * N
    assert found.degraded.total() + found.rejected.total() == 2 * N
    assert found["accuracy"] == 0.75


# --- outputs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("form", ["array", "list", *FRAMES])
def test_one_bad_probability_costs_its_row(edge: Edge, bad: float, form: str) -> None:
    p = P.copy()
    p[AT, 1] = bad
    given: Any = {"array": p, "list": p.tolist()}.get(form)
    if given is None:
        given = FRAMES[form]({"no": p[:, 0].tolist(), "yes": p[:, 1].tolist()})
    model = edge.model(classes=NAMES)
    model.publish(
        given,
        np.arange(N, dtype=float)[:, None],
        TEXTS,
        ids=[f"id-{i}" for i in range(N)],
        segments={"half": ["a", "b"] * (N // 2)},
        timestamps=[OLD + i for i in range(N)],
    )
    model.publish_labels([f"id-{AT}", "id-3"], ["no", "no"])
    found = model.end()
    assert (found.rows, found.rejected, found.degraded) == (N - 1, {"probabilities_nan": 1}, {})
    assert found["accuracy"] == pytest.approx(without(AT))
    assert found.feature("feat_0") == pytest.approx((sum(range(N)) - AT) / (N - 1))
    rows = [found.get("buffer_count", segment_name="half", segment_value=value) for value in "ab"]
    assert rows == [N / 2, N / 2 - 1]


@pytest.mark.parametrize(
    "bad", [None, float("nan"), "maybe", 2, object()], ids=["None", "NaN", "unknown", "index", "object"]
)
@pytest.mark.parametrize("texts", [True, False], ids=["names", "indices"])
def test_one_bad_prediction_costs_its_row(edge: Edge, bad: Any, texts: bool) -> None:
    said = [NAMES[each] for each in SAID] if texts else [int(each) for each in SAID]
    model = edge.model(classes=NAMES)
    model.publish(predictions=put(said, bad), labels=Y)
    found = model.end()
    assert (found.rows, found.rejected.total(), found.degraded) == (N - 1, 1, {})
    assert found["accuracy"] == pytest.approx(without(AT))


def test_one_bad_value_of_a_regression_costs_its_row(edge: Edge) -> None:
    model = edge.model(task="regression")
    truth = np.arange(N, dtype=float)
    model.publish(predictions=np.where(np.arange(N) == AT, np.nan, truth + 1), labels=truth)
    model.publish(predictions=truth + 1, labels=put(truth.tolist(), None))
    found = model.end()
    assert (found.rows, found.rejected) == (2 * N - 1, {"predictions_nan": 1})
    assert found["mae"] == 1.0


def test_a_batch_without_a_sound_row_is_counted_whole(edge: Edge) -> None:
    model = edge.model(classes=NAMES)
    model.publish(np.full((N, 2), np.nan), labels=Y)
    model.publish(P, labels=Y)
    found = model.end()
    assert (found.rows, found.rejected, found["accuracy"]) == (N, {"probabilities_nan": N}, 0.75)


# --- ids, times, segments --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ids",
    [
        lambda: put([f"id-{i}" for i in range(N)], None),
        lambda: put([f"id-{i}" for i in range(N)], float("nan")),
        lambda: put(list(range(N)), None),
        lambda: require("pandas").Series(put(list(range(N)), None), dtype="Int64"),
        lambda: np.array(put([f"id-{i}" for i in range(N)], None), dtype=object),
        lambda: put([f"id-{i}" for i in range(N)], object()),
        lambda: put([f"id-{i}" for i in range(N)], "x" * 1000),
        lambda: put([f"id-{i}" for i in range(N)], "a\0b"),
        lambda: require("polars").Series(put([f"id-{i}" for i in range(N)], None)),
    ],
)
def test_one_bad_id_costs_its_id(edge: Edge, ids: Any) -> None:
    given = ids()
    model = edge.model(classes=NAMES)
    model.publish(P, ids=given)
    model.flush()
    known = [given[i] for i in range(N) if i != AT]
    model.publish_labels(known, [TEXTS[i] for i in range(N) if i != AT])
    model.publish_labels(["nan", "None", "<NA>", "NaT"], ["no"] * 4)
    found = model.end()
    assert (found.rows, found.rejected) == (N, {})
    assert found["accuracy"] == pytest.approx(without(AT))
    assert found.get("late_label_count", reason="joined") == N - 1
    assert found.degraded.total() <= 1


def test_uuids_are_ids(edge: Edge) -> None:
    ids = [uuid.UUID(int=i) for i in range(N)]
    model = edge.model(classes=NAMES)
    model.publish(P[:200], ids=ids[:200])
    model.publish(P[200:], ids=np.array(ids[200:], dtype=object))
    model.flush()
    model.publish_labels([str(each) for each in ids], TEXTS)
    found = model.end()
    assert (found.rows, found.rejected, found.degraded, found["accuracy"]) == (N, {}, {}, 0.75)


@pytest.mark.parametrize("bad", [None, "NaT", "2600-01-01", "1900-01-01"], ids=str)
@pytest.mark.parametrize("form", ["array", "list", "series"])
def test_one_bad_time_costs_at_most_its_row(edge: Edge, bad: Any, form: str) -> None:
    times = np.full(N, int(OLD), dtype="M8[s]")
    times[AT] = np.datetime64(bad or "NaT")
    given: Any = times
    if form == "list":
        given = [None if i == AT and bad is None else each for i, each in enumerate(times)]
    elif form == "series":
        given = require("pandas").Series(times)
    model = edge.model(classes=NAMES)
    model.publish(P, labels=Y, timestamps=given)
    found = model.end()
    assert found["buffer_count"] == N - 1, "the others lie in their window"
    assert found["accuracy"] == pytest.approx(without(AT))
    assert found.rows + found.rejected["timestamp_invalid"] == N
    assert found.degraded["timestamp_invalid"] + found.rejected["timestamp_invalid"] == 1


@pytest.mark.parametrize(
    "values",
    [
        lambda: put(["DE", "FR"] * (N // 2), None),
        lambda: put(["DE", "FR"] * (N // 2), float("nan")),
        lambda: np.array(put(["DE", "FR"] * (N // 2), np.nan), dtype=object),
        lambda: np.ma.masked_array(["DE", "FR"] * (N // 2), mask=np.arange(N) == AT),
        lambda: require("pandas").Series(put(["DE", "FR"] * (N // 2), None)),
        lambda: require("pandas").Series(put(["DE", "FR"] * (N // 2), None), dtype="category"),
        lambda: require("polars").Series(put(["DE", "FR"] * (N // 2), None)),
    ],
)
def test_a_missing_segment_is_in_no_segment(edge: Edge, values: Any) -> None:
    model = edge.model(classes=NAMES)
    model.publish(P, labels=Y, segments={"country": values()})
    found = model.end()
    assert (found.rows, found.rejected, found.degraded) == (N, {}, {})
    assert segments(found, "country") == {"DE": N / 2, "FR": N / 2 - 1}


@pytest.mark.parametrize("form", ["list", "object"])
@pytest.mark.parametrize("first", [True, 1], ids=str)
def test_true_and_one_are_two_segments(edge: Edge, form: str, first: Any) -> None:
    """Python holds them equal: which name they had would depend on the first row."""
    values: Any = [first, *[True, 1, "1", "True"][::-1] * (N // 4)][:N]
    expected = {name: float(sum(str(value) == name for value in values)) for name in ("1", "True")}
    model = edge.model(classes=NAMES)
    model.publish(P, labels=Y, segments={"s": values if form == "list" else np.array(values, dtype=object)})
    assert segments(model.end(), "s") == expected


@pytest.mark.parametrize("rows", [N, 1])
def test_a_segment_that_is_none_is_missing(edge: Edge, rows: int) -> None:
    model = edge.model(classes=NAMES)
    model.publish(P[:rows], labels=Y[:rows], segments={"s": None, "t": ["x"] * rows, "u": float("nan")})
    found = model.end()
    assert (found.rows, found.rejected, found.degraded) == (rows, {}, {})
    assert (segments(found, "s"), segments(found, "t"), segments(found, "u")) == ({}, {"x": rows}, {})


def segments(found: Outcome, name: str) -> dict[str, float]:
    return {
        names["segment_value"]: value
        for names, value in ((dict(each), value) for each, value in found.points.items())
        if names.get("segment_name") == name and names["what"] == "buffer_count"
    }


@pytest.mark.parametrize("bad", [{"country": ["DE"]}, {"country": np.ones((N, 2))}, "DE", ["DE"] * N, {1: ["DE"] * N}])
def test_bad_segments_cost_the_segments(edge: Edge, bad: Any) -> None:
    model = edge.model(classes=NAMES)
    model.publish(P, labels=Y, segments=bad)
    model.publish(P, labels=Y, segments={"country": ["DE"] * N})
    found = model.end()
    assert found.rows + found.rejected.total() == 2 * N
    assert not found.rejected or found.rejected == {"segments_invalid": N}
    assert found["accuracy"] == 0.75


# --- columns ---------------------------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = 1
    BLUE = "blue"


def interval() -> Any:
    return require("pandas").Series(require("pandas").interval_range(0, N, N))


def period() -> Any:
    return require("pandas").Series(require("pandas").period_range("2020-01", periods=N, freq="M"))


COLUMNS: dict[str, Callable[[], Any]] = {
    "interval": interval,
    "period": period,
    "uuid": lambda: [uuid.UUID(int=i) for i in range(N)],
    "enum": lambda: [Colour.RED, Colour.BLUE] * (N // 2),
    "signalling": lambda: put([decimal.Decimal(i) for i in range(N)], decimal.Decimal("sNaN")),
    "objects": lambda: [object() for _ in range(N)],
    "complex": lambda: [1j] * N,
    "texts": lambda: ["a", "b"] * (N // 2),
    "sets": lambda: [{1}] * N,
    "classes": lambda: [int] * N,
}


@pytest.mark.parametrize("kind", COLUMNS)
@pytest.mark.parametrize("form", ["pandas", "columns", "rows"])
@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
def test_one_bad_column_costs_itself(edge: Edge, kind: str, form: str, first: bool) -> None:
    bad = COLUMNS[kind]()
    given = list(bad) if form == "rows" else bad
    model = edge.model(classes=NAMES)
    if not first:
        model.publish(P, FRAMES[form]({"bad": [1.5] * N, "good": list(range(N))}), Y)
    model.publish(P, FRAMES[form]({"bad": given, "good": list(range(N))}), Y)
    found = model.end()
    batches = 1 if first else 2
    assert (found.rows, found.rejected, found["accuracy"]) == (N * batches, {}, 0.75)
    assert found.feature("good") == (N - 1) / 2
    assert found.get("feature_missing_freq", feat_name="good") == 0.0
    if not first:
        assert found.feature("bad") == pytest.approx(1.5) or kind == "signalling"
        assert found.degraded.total() == N or kind == "signalling"
        assert any("bad" in line for line in found.log) or kind == "signalling"


@pytest.mark.parametrize("form", NAMED)
def test_inputs_of_another_length_cost_the_inputs(edge: Edge, form: str) -> None:
    model = edge.model(classes=NAMES)
    model.publish(P, FRAMES[form]({"a": [3.0] * N}), Y)
    model.publish(P, FRAMES[form]({"a": [1.0] * (N - 1)}), Y)
    found = model.end()
    assert found.rows + found.rejected.total() == 2 * N
    assert found.degraded.total() + found.rejected.total() == N
    assert (found["accuracy"], found.feature("a")) == (0.75, 3.0)


@pytest.mark.parametrize("form", ["pandas", "columns", "rows"])
def test_one_cell_of_another_kind_costs_itself(edge: Edge, form: str) -> None:
    model = edge.model(classes=NAMES)
    model.publish(P, FRAMES[form]({"a": [1.0] * N, "b": ["x"] * N, "c": [True] * N}), Y)
    mixed = {"a": put([1.0] * N, "text"), "b": put(["x"] * N, 5.5), "c": put([True] * N, "perhaps")}
    model.publish(P, FRAMES[form](mixed), Y)
    found = model.end()
    assert (found.rows, found.rejected, found.degraded) == (2 * N, {}, {"inputs_kind": 1})
    assert (found.feature("a"), found.categories("b"), found.categories("c")) == (1.0, {"x": 599}, {"True": 599})
    assert found.get("feature_missing_freq", feat_name="a") == pytest.approx(1 / (2 * N))


# --- late labels -----------------------------------------------------------------------------------------------------


def test_one_unknown_late_label_is_lost_alone(edge: Edge) -> None:
    model = edge.model(classes=NAMES)
    model.publish(P, ids=list(range(N)))
    model.flush()
    model.publish_labels(list(range(N)), put(TEXTS, "maybe"))
    found = model.end()
    assert (found.rows, found["accuracy"]) == (N, pytest.approx(without(AT)))
    assert found.get("late_label_count", reason="joined") == N - 1
    assert found.rejected.total() + found.degraded.total() == 1
