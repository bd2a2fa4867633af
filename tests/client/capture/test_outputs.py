"""Probabilities, predictions and labels by name and by position: the classes they mean, or a refusal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support.capture import capture, columns, convert, degraded, proba, read_back, rejected
from tests.support.frameworks import require

NAN = float("nan")
BINARY = ["no", "yes"]
P = proba(4, 2)

# --- names that look like numbers ------------------------------------------------------------------------------------


def test_names_that_look_like_numbers_are_matched_by_name() -> None:
    y = np.arange(11)
    one = capture(np.unique(y.astype(str)))  # '0', '1', '10', '2', …
    expected = [one.classes.index(str(label)) for label in y]
    forms: list[Any] = [y, y.astype(float), y.tolist(), y.astype(str), y.astype(np.uint8), y.astype(object)]
    for labels in forms:
        assert columns(one, proba(11, 11), labels=labels)[0]["labels"].tolist() == expected
        assert columns(one, predictions=labels)[0]["predictions"].tolist() == expected
    assert columns(one, proba(2, 11), labels=[10, NAN])[0]["labels"].tolist() == [2, -1]


MATCHES: dict[str, tuple[list[Any], Any, list[int]]] = {
    "strings for integers": ([0, 1], ["0", "1", "1"], [0, 1, 1]),
    "strings for booleans": ([False, True], ["True", "False"], [1, 0]),
    "integers for booleans": ([False, True], [1, 0], [1, 0]),
    "booleans for integers": ([0, 1], [True, False], [1, 0]),
    "booleans for names": (BINARY, [True, False], [1, 0]),
    "numpy scalars": (["1", "2"], [np.int64(2), np.float32(1)], [1, 0]),
    "a float for a whole name": (["1", "2"], [1.0, 2.0], [0, 1]),
    "an integer for a float's name": ([0.0, 1.0], [1, 0], [1, 0]),
    "bytes": (BINARY, [b"yes", b"no"], [1, 0]),
    "an array of bytes": (BINARY, np.array([b"yes", b"no"]), [1, 0]),
    "indices": (BINARY, [1, 0], [1, 0]),
    "negative names": ([-1, 1], [1, -1], [1, 0]),
    "numbers in another order": ([7, 3], [3, 7], [1, 0]),
}


@pytest.mark.parametrize(("classes", "labels", "expected"), MATCHES.values(), ids=MATCHES.keys())
def test_labels_are_matched_by_name_first(classes: Any, labels: Any, expected: list[int]) -> None:
    one = capture(classes)
    p = proba(len(expected), len(classes))
    assert degraded(one, p, labels=labels) == {}
    assert columns(one, p, labels=labels)[0]["labels"].tolist() == expected


AMBIGUOUS: dict[str, tuple[list[Any], Any]] = {
    "one is no name, all are indices": (["1", "2", "3"], [0, 1, 2]),
    "the same with numbers as classes": ([1, 2, 3], [0, 1, 2]),
    "numbers for strings of booleans": (["True", "False"], [1, 0]),
}


@pytest.mark.parametrize(("classes", "labels"), AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_two_readings_are_refused_and_not_guessed(classes: Any, labels: Any) -> None:
    one, n = capture(classes), len(labels)
    assert degraded(one, proba(n, len(classes)), labels=labels) == {"label_ambiguous": n}
    assert "labels" not in columns(one, proba(n, len(classes)), labels=labels)[0]
    assert rejected(one, predictions=labels) == {"prediction_ambiguous": n}
    detail = convert(one, proba(n, len(classes)), labels=labels).degraded[0].detail
    assert "as strings" in detail


def test_a_reading_is_kept() -> None:
    one = capture(["1", "2", "3"])
    assert degraded(one, proba(1), labels=[0]) == {}, "an index: no class is called 0"
    assert degraded(one, proba(2), labels=[1, 2]) == {"label_ambiguous": 2}, "names now, indices before"
    assert degraded(one, proba(2), labels=["1", "2"]) == {}


# --- names of columns -------------------------------------------------------------------------------------------------


def frames(names: list[Any], values: np.ndarray) -> dict[str, Any]:
    pandas, polars, pyarrow = require("pandas"), require("polars"), require("pyarrow")
    data = {str(name): values[:, i] for i, name in enumerate(names)}
    plain = pandas.DataFrame(values, columns=names)
    return {
        "pandas": plain,
        "pandas nullable": plain.convert_dtypes(),
        "pandas arrow": plain.convert_dtypes(dtype_backend="pyarrow"),
        "polars": polars.DataFrame(data),
        "arrow": pyarrow.table(data),
        "dict of columns": {name: column.tolist() for name, column in data.items()},
        "dict of arrays": data,
        "dicts": [dict(zip(data, row, strict=True)) for row in values.tolist()],
    }


@pytest.mark.parametrize("form", frames(BINARY, P))
def test_frames_of_probabilities_are_aligned_by_name(form: str) -> None:
    turned = frames(["yes", "no"], P[:, ::-1])[form]
    np.testing.assert_array_equal(columns(capture(BINARY), turned)[0]["probabilities"], P)
    found, schema, _ = columns(capture(None), turned)
    assert schema.classes == ("yes", "no"), "without classes the names are the classes"
    np.testing.assert_array_equal(found["probabilities"], P[:, ::-1])
    if form != "dicts":
        assert rejected(capture(["ham", "spam"]), turned) == {"classes_order": 4}


def test_a_probability_that_is_missing_costs_its_row() -> None:
    pandas = require("pandas")
    p = pandas.DataFrame(P, columns=BINARY).convert_dtypes()
    p.iloc[1, 0] = pandas.NA
    made = convert(capture(BINARY), p)
    assert {loss.reason: loss.rows for loss in made.rejected} == {"probabilities_nan": 1}


@pytest.mark.parametrize("form", [form for form in frames(BINARY, P) if form != "dicts"])
def test_frames_of_one_hot_labels_are_aligned_by_name(form: str) -> None:
    hot = np.eye(2)[[1, 0, 0, 1]]
    labels = frames(["yes", "no"], hot[:, ::-1])[form]
    one = capture(BINARY)
    assert columns(one, P, labels=labels)[0]["labels"].tolist() == [1, 0, 0, 1]
    assert degraded(one, P, labels=frames(["a", "b"], hot)[form]) == {"classes_order": 4}
    assert columns(one, P, predictions=labels)[0]["predictions"].tolist() == [1, 0, 0, 1]


def test_columns_that_are_only_numbered_have_no_names() -> None:
    pandas, polars = require("pandas"), require("polars")
    for frame in (pandas.DataFrame(P), polars.DataFrame(P)):
        np.testing.assert_array_equal(columns(capture(BINARY), frame)[0]["probabilities"], P)
        assert columns(capture(None), frame)[1].classes == ("class_0", "class_1")
    assert rejected(capture([1, 0]), pandas.DataFrame(P)) == {"classes_order": 4}, "by position or by name"
    one = pandas.DataFrame({"score": P[:, 1]})
    np.testing.assert_array_equal(columns(capture(BINARY), one)[0]["probabilities"], P[:, 1])
    assert columns(capture(BINARY), P, labels=pandas.DataFrame({"y": ["yes"] * 4}))[0]["labels"].tolist() == [1] * 4


def test_one_column_that_is_named_after_a_class() -> None:
    pandas = require("pandas")
    for name, expected in (("yes", P[:, 1]), ("no", 1 - P[:, 1]), ("score", P[:, 1])):
        frame = pandas.DataFrame({name: P[:, 1]})
        np.testing.assert_array_equal(columns(capture(BINARY), frame)[0]["probabilities"], expected)
    assert columns(capture(BINARY), {"no": 0.25})[0]["probabilities"].tolist() == [0.75]


def test_a_dict_of_series_has_the_rows_of_its_series() -> None:
    pandas = require("pandas")
    given = {"yes": pandas.Series(P[:, 1]), "no": pandas.Series(P[:, 0])}
    np.testing.assert_array_equal(columns(capture(BINARY), given)[0]["probabilities"], P)


def test_counted_classes_keep_the_order_of_the_first_frame() -> None:
    pandas = require("pandas")
    one, frame = capture(2), pandas.DataFrame(P, columns=BINARY)
    np.testing.assert_array_equal(columns(one, frame)[0]["probabilities"], P)
    np.testing.assert_array_equal(columns(one, frame[["yes", "no"]])[0]["probabilities"], P)
    assert rejected(one, frame.rename(columns={"no": "other"})) == {"classes_order": 4}


def test_probabilities_of_one_row_by_class() -> None:
    found, schema, _ = columns(capture(BINARY), {"yes": 0.75, "no": 0.25}, inputs={"a": 1.0, "b": "x"})
    assert found["probabilities"].tolist() == [[0.25, 0.75]]
    assert found["inputs"].tolist() == [[1.0]]
    assert found["codes"] == {"b": ["x"]}
    assert schema.kinds == ("numeric", "categorical")


def test_forms_of_tensors_and_shapes() -> None:
    one = capture(BINARY)
    assert columns(one, [0.1, 0.9])[0]["probabilities"].shape == (2,)
    assert columns(one, [[0.1], [0.9]])[0]["probabilities"].shape == (2,)
    assert rejected(capture(None), 0.5) == {"probabilities_shape": 1}
    bfloat = require("ml_dtypes").bfloat16
    found = columns(one, np.array([[0.25, 0.75]]).astype(bfloat))[0]["probabilities"]
    assert found.tolist() == [[0.25, 0.75]]


def test_a_lazy_frame_is_refused_with_the_remedy() -> None:
    polars = require("polars")
    lazy = polars.DataFrame(P, schema=BINARY).lazy()
    assert ".collect()" in convert(capture(BINARY), lazy).rejected[0].detail
    made = convert(capture(BINARY), P, inputs=lazy, labels=lazy)
    assert {loss.reason: loss.rows for loss in made.degraded} == {"inputs_dtype": 4, "labels_dtype": 4}
    assert all(".collect()" in loss.detail for loss in made.degraded)


# --- several classes at a time ----------------------------------------------------------------------------------------

TAGS = ["a", "b", "c"]
SETS: dict[str, Any] = {
    "flags": [[1, 0, 1], [0, 0, 0]],
    "an array": np.array([[True, False, True], [False] * 3]),
    "floats": np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]),
    "lists of names": [["c", "a"], []],
    "sets of names": [{"a", "c"}, set()],
}


@pytest.mark.parametrize("form", SETS)
def test_multilabel(form: str) -> None:
    one, p = capture(TAGS, task="multilabel"), np.array([[0.9, 0.9, 0.9], [0.1, 0.2, 0.3]])
    found, schema, _ = columns(one, p, labels=SETS[form])
    assert schema.task == "multilabel"
    assert found["labels"].dtype == np.int8
    assert found["labels"].tolist() == [[1, 0, 1], [0, 0, 0]]
    assert columns(one, predictions=SETS[form])[0]["probabilities"].tolist() == [[1, 0, 1], [0, 0, 0]]


def test_multilabel_predictions_beside_probabilities_are_left_out_and_counted() -> None:
    one, p = capture(TAGS, task="multilabel"), proba(2)
    for predictions in ([["a"], []], np.ones((2, 3)), ["nonsense", None]):
        made = convert(one, p, predictions=predictions)
        assert [(loss.reason, loss.rows) for loss in made.degraded] == [("predictions_ignored", 2)]
        assert "threshold" in made.degraded[0].detail
        np.testing.assert_allclose(read_back(one, made)[0]["probabilities"], p)
    assert degraded(one, predictions=[["a"], []]) == {}
    assert degraded(one, p) == {}


def test_multilabel_frames_and_gaps() -> None:
    pandas = require("pandas")
    one, p = capture(TAGS, task="multilabel"), proba(3)
    frame = pandas.DataFrame([[1, 0, 0], [0, 1, 1], [0, 0, 0]], columns=["c", "a", "b"])
    assert columns(one, p, labels=frame)[0]["labels"].tolist() == [[0, 0, 1], [1, 1, 0], [0, 0, 0]]
    labels = [["a"], None, ["b", "zz"]]
    assert degraded(one, p, labels=labels) == {"label_unknown": 1}
    assert columns(one, p, labels=labels)[0]["labels"].tolist() == [[1, 0, 0], [-1] * 3, [-1] * 3]
    gaps = np.array([[1, NAN, 0], [NAN] * 3, [0, 2, 1]])
    assert degraded(one, p, labels=gaps) == {"label_unknown": 1}
    assert columns(one, p, labels=gaps)[0]["labels"].tolist() == [[1, -1, 0], [-1] * 3, [0, -1, 1]]
    assert rejected(one, p[:, 0]) == {"probabilities_shape": 3}
    assert columns(capture(["only"], task="multilabel"), [[0.5]], labels=[[1]])[0]["labels"].tolist() == [[1]]


def test_regression_takes_numbers_only() -> None:
    one = capture(None, task="regression")
    made = convert(one, predictions=[1.5, NAN, "x", 2])
    assert {loss.reason: loss.rows for loss in made.rejected} == {"predictions_nan": 2}
    assert rejected(one, P) == {"probabilities_task": 4}
    assert degraded(one, predictions=[1.0, 2.0], labels=["x", 2.5]) == {"labels_dtype": 1}
