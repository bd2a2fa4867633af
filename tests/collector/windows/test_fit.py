"""How rows fit into a window of another schema: classes by name, 0 and 1 for booleans, other columns left out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from zmon_collector.windows.fit import Fit, combined, conflict, opening

from zmon.batch import Batch, Schema

ABC = Schema(classes=("a", "b", "c"))
P = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])


def columns(names: str, kinds: str, classes: str = "ab") -> Schema:
    full = {"n": "numeric", "b": "boolean", "c": "categorical", "t": "text", "v": "vector"}
    return Schema(classes=tuple(classes), features=tuple(names), kinds=tuple(full[kind] for kind in kinds))


@given(st.permutations("abc"), st.permutations("abc"))
def test_classes_are_matched_by_name(window: list[str], own: list[str]) -> None:
    target, source = Schema(classes=tuple(window)), Schema(classes=tuple(own))
    labels, predictions = np.array([0, -1], np.int8), np.array([2, 1])
    batch = Batch(source, {"probabilities": P, "labels": labels, "predictions": predictions})
    fitted, left_out = Fit(target, source).apply(batch)
    assert left_out == ""
    assert fitted.schema.classes == target.classes
    for name in "abc":
        np.testing.assert_array_equal(fitted.probabilities[:, window.index(name)], P[:, own.index(name)])
    assert [window[i] for i in fitted.predictions] == [own[i] for i in predictions]
    assert [window[i] for i in fitted.predicted] == [own[i] for i in predictions]
    assert window[fitted.labels[0]] == own[0]
    assert fitted.labels[1] == -1
    assert fitted.labels.dtype == labels.dtype


def test_a_threshold_is_that_of_the_rows_own_second_class() -> None:
    own = Schema(classes=("yes", "no"), threshold=0.8)
    batch = Batch(own, {"probabilities": np.array([[0.3, 0.7], [0.1, 0.9], [0.6, 0.4]])})
    assert batch.predicted.tolist() == [0, 1, 0]
    fitted, _ = Fit(Schema(classes=("no", "yes"), threshold=0.2), own).apply(
        Batch(own, {"probabilities": batch.probabilities})
    )
    assert [("no", "yes")[i] for i in fitted.predicted] == ["yes", "no", "yes"]
    assert fitted.aligned(Schema(classes=("no", "yes"), threshold=0.2)).predicted.tolist() == [1, 0, 1]


def test_multilabel_labels_are_matched_by_name() -> None:
    own, window = Schema("multilabel", ("a", "b", "c")), Schema("multilabel", ("c", "a", "b"))
    labels = np.array([[1, 0, -1], [0, 1, 1]], np.int8)
    fitted, _ = Fit(window, own).apply(Batch(own, {"probabilities": P, "labels": labels}))
    assert fitted.labels.tolist() == [[-1, 1, 0], [1, 0, 1]]
    assert fitted.probabilities.tolist() == P[:, [2, 0, 1]].tolist()


@pytest.mark.parametrize(
    ("own", "what"),
    [
        (Schema("regression"), "the task is 'regression', and the window's is 'classification'"),
        (Schema(classes=("a", "b", "d")), "no class 'd'; the window's rows also have the class 'c'"),
        (Schema(classes=("a", "b")), "also have the class 'c'"),
    ],
)
def test_rows_of_other_classes_do_not_fit(own: Schema, what: str) -> None:
    assert what in conflict(ABC, own)
    assert conflict(ABC, ABC) == ""


def test_a_long_list_of_classes_is_cut() -> None:
    many = Schema(classes=tuple(f"class {i}" for i in range(1000)))
    assert len(conflict(ABC, many)) < 200


def test_what_fits_is_not_copied() -> None:
    batch = Batch(ABC, {"probabilities": P})
    for window in (ABC, Schema(classes=ABC.classes, features=("x",), kinds=("numeric",))):
        fit = Fit(window, ABC)
        assert fit.apply(batch)[0] is batch
        assert (fit.schema, fit.body) == (ABC, b"")


def test_booleans_become_numbers() -> None:
    own, window = columns("xyz", "nbn"), columns("yx", "nn")
    batch = Batch(
        own,
        {"inputs": np.array([[1.0, 5.0], [2.0, 6.0], [3.0, 7.0]]), "codes": np.array([[1], [-1], [0]], np.int8)},
        dictionaries={"codes": (("True", "False"),)},
    )
    fitted, left_out = Fit(window, own).apply(batch)
    assert left_out == ""
    assert fitted.schema.features == ("x", "y", "z")
    np.testing.assert_array_equal(fitted.inputs, [[1, 0, 5], [2, np.nan, 6], [3, 1, 7]])
    assert "codes" not in fitted.columns


def test_numbers_of_0_and_1_become_booleans() -> None:
    own, window = columns("xy", "nn"), columns("xy", "bn")
    batch = Batch(own, {"inputs": np.array([[0.0, 5.0], [1.0, 6.0], [np.nan, 7.0]])})
    fitted, left_out = Fit(window, own).apply(batch)
    assert left_out == ""
    assert [fitted.dictionaries["codes"][0][code] if code >= 0 else None for code in fitted.raw()["codes"][:, 0]] == [
        "False",
        "True",
        None,
    ]
    assert fitted.inputs.tolist() == [[5.0], [6.0], [7.0]]
    other = Batch(own, {"inputs": np.array([[0.0, 5.0], [2.0, 6.0]])})
    fitted, left_out = Fit(window, own).apply(other)
    assert "'x' is boolean, and not all values are 0 or 1" in left_out
    assert fitted.raw()["codes"].tolist() == [[-1], [-1]]
    assert fitted.inputs.tolist() == [[5.0], [6.0]]


@pytest.mark.parametrize(("window", "own"), [("n", "c"), ("c", "n"), ("b", "c"), ("c", "b"), ("n", "t"), ("v", "n")])
def test_a_column_of_another_kind_is_left_out(window: str, own: str) -> None:
    source, target = columns("zw", own + "n"), columns("zw", window + "n")
    raw, dictionaries = {"inputs": np.array([[5.0], [6.0]])}, {}
    if own in "bc":
        raw["codes"], dictionaries["codes"] = np.array([[0], [0]], np.int8), (("u",),)
    elif own == "n":
        raw["inputs"] = np.array([[1.0, 5.0], [2.0, 6.0]])
    batch = Batch(source, {"probabilities": P[:, :2], **raw}, dictionaries=dictionaries)
    fit = Fit(target, source)
    fitted, left_out = fit.apply(batch)
    assert left_out == f"feature 'z' is {source.kinds[0]}, not {target.kinds[0]}"
    assert fitted.schema.features == ("w",)
    assert fitted.inputs.tolist() == [[5.0], [6.0]]
    assert fitted.probabilities is batch.probabilities
    assert set(fitted.aligned(target).columns) >= {"probabilities", "predicted"}
    outputs = Batch(source, {"probabilities": P[:, :2]})
    assert fit.apply(outputs)[1] == "", "rows without inputs lose nothing"


def test_the_schema_of_the_next_window() -> None:
    assert opening(ABC, None) is ABC
    first, seen = columns("xy", "nc", "ba"), columns("yxw", "nbn", "ab")
    whole = opening(first, seen)
    assert whole.classes == ("a", "b")
    assert dict(zip(whole.features, whole.kinds, strict=True)) == {"x": "numeric", "y": "categorical", "w": "numeric"}
    assert dict(zip(*_kinds(opening(columns("x", "b"), columns("x", "n"))), strict=True)) == {"x": "numeric"}
    assert opening(first, Schema(classes=("q", "r"))) is first
    assert combined(first, first) is first


def _kinds(schema: Schema) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return schema.features, schema.kinds
