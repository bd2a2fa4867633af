"""Probabilities, predictions and labels: by name wherever there are names, and one bad cell costs one cell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.edge.forms import FRAMES, MATRICES, NAMED, sharp
from tests.edge.harness import Edge
from tests.support.frameworks import require

Y = [i % 3 for i in range(300)]
SAID = [(y + (i % 5 == 0)) % 3 for i, y in enumerate(Y)]  # wrong in a fifth
P = sharp(SAID, 3)
NAMES = ["no", "maybe", "yes"]


# --- 4: names that look like numbers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [
        lambda y: y,
        lambda y: y.tolist(),
        lambda y: y.astype("i1"),
        lambda y: y.astype(float),
        lambda y: y.astype(str),
        lambda y: y.astype(str).astype(object),
        lambda y: require("pandas").Series(y, dtype="Int64"),
        lambda y: require("pandas").Series(y).astype("category"),
        lambda y: require("polars").Series(y),
    ],
    ids=["array", "list", "int8", "float", "text", "object", "nullable", "category", "polars"],
)
@pytest.mark.parametrize("where", ["labels", "predictions"])
def test_names_of_digits_are_names(edge: Edge, form: Any, where: str) -> None:
    y = np.arange(240) % 12
    classes = np.unique(y.astype(str))  # '0', '1', '10', '11', '2', …
    truth = np.array([list(classes).index(str(each)) for each in y])
    model = edge.model(classes=classes)
    if where == "labels":
        model.publish(sharp(truth.tolist(), 12), labels=form(y))
    else:
        model.publish(predictions=form(y), labels=y.astype(str))
    found = model.end()
    assert (found.rows, found["accuracy"], found.rejected, found.degraded) == (240, 1.0, {}, {})


@pytest.mark.parametrize(
    ("classes", "labels"),
    [
        ([0, 1], ["0", "1", "1", "0"]),
        ([0, 1], np.array(["0", "1", "1", "0"])),
        ([False, True], ["False", "True", "True", "False"]),
        ([False, True], [False, True, True, False]),
        ([False, True], np.array([False, True, True, False])),
        ([False, True], [0, 1, 1, 0]),
        (["False", "True"], [False, True, True, False]),
        (["0", "1"], [0.0, 1.0, 1.0, 0.0]),
        ([10, 20], [10, 20, 20, 10]),
        ([10, 20], ["10", "20", "20", "10"]),
        (["10", "20"], [10.0, 20.0, 20.0, 10.0]),
        ([1.5, 2.5], ["1.5", "2.5", "2.5", "1.5"]),
        (["a", "b"], [0, 1, 1, 0]),
        (["a", "b"], [b"a", b"b", b"b", b"a"]),
        (["a", "b"], np.array(["a", "b", "b", "a"], dtype=object)),
        (["1", "0"], [1, 0, 0, 1]),
        ([1, 0], [1, 0, 0, 1]),
        ([1, 0], ["1", "0", "0", "1"]),
    ],
    ids=str,
)
@pytest.mark.parametrize("rows", [4, 1])
def test_labels_are_matched_by_name_first(edge: Edge, classes: Any, labels: Any, rows: int) -> None:
    model = edge.model(classes=classes)
    p = sharp([0, 1, 1, 0], 2)
    for start in range(0, 4, rows):
        model.publish(p[start : start + rows], labels=labels[start : start + rows])
    found = model.end()
    assert (found.rows, found["accuracy"], found.rejected, found.degraded) == (4, 1.0, {}, {})


# --- 5: the names of frames ------------------------------------------------------------------------------------------

ORDERS = [["yes", "no", "maybe"], ["no", "maybe", "yes"], ["maybe", "yes", "no"]]


def framed(form: str, matrix: np.ndarray, order: list[str]) -> Any:
    return FRAMES[form]({name: matrix[:, NAMES.index(name)].tolist() for name in order})


@pytest.mark.parametrize("form", [*NAMED, "columns", "rows"])
@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
@pytest.mark.parametrize("given", [True, False], ids=["classes", "no classes"])
def test_probabilities_are_aligned_by_name(edge: Edge, form: str, order: list[str], given: bool) -> None:
    model = edge.model(classes=NAMES if given else None)
    model.publish(framed(form, P, order), labels=[NAMES[y] for y in Y])
    found = model.end()
    assert (found.rows, found.rejected, found.degraded) == (300, {}, {})
    assert found["accuracy"] == pytest.approx(0.8)
    assert found.confusion()["no", "maybe"] == 20


@pytest.mark.parametrize("form", NAMED)
@pytest.mark.parametrize("rows", [300, 1])
def test_a_further_frame_in_another_order(edge: Edge, form: str, rows: int) -> None:
    """What one batch has settled does not hold for the next one."""
    model = edge.model()
    for order in ORDERS:
        model.publish(framed(form, P[:rows], order), labels=[NAMES[y] for y in Y[:rows]])
    found = model.end()
    assert (found.rows, found.rejected) == (3 * rows, {})
    assert found["accuracy"] == pytest.approx(np.mean(np.array(Y[:rows]) == SAID[:rows]))


@pytest.mark.parametrize("form", NAMED)
@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
@pytest.mark.parametrize("kind", [int, bool, float])
def test_one_hot_labels_are_aligned_by_name(edge: Edge, form: str, order: list[str], kind: type) -> None:
    model = edge.model(classes=NAMES)
    model.publish(P, labels=framed(form, np.eye(3)[Y].astype(kind), order))
    found = model.end()
    assert (found.rows, found.rejected, found.degraded) == (300, {}, {})
    assert found["accuracy"] == pytest.approx(0.8)


@pytest.mark.parametrize("form", NAMED)
def test_names_that_contradict_the_classes_are_refused(edge: Edge, form: str) -> None:
    model = edge.model(classes=NAMES)
    model.publish(P, labels=Y)
    model.publish(FRAMES[form]({"no": [0.5] * 4, "maybe": [0.3] * 4, "other": [0.2] * 4}), labels=[0] * 4)
    found = model.end()
    assert (found.rows, sum(found.rejected.values())) == (300, 4)
    assert found["accuracy"] == pytest.approx(0.8)
    assert any("other" in line for line in found.log), found.log


def test_frames_without_names_go_by_position(edge: Edge) -> None:
    pandas = require("pandas")
    model = edge.model(classes=NAMES)
    model.publish(pandas.DataFrame(P), labels=Y)
    model.publish(pandas.DataFrame(P), labels=pandas.DataFrame(np.eye(3)[Y]))
    found = model.end()
    assert (found.rows, found.rejected) == (600, {})
    assert found["accuracy"] == pytest.approx(0.8)


def test_numbers_as_column_names_are_classes_where_they_are(edge: Edge) -> None:
    """scikit-learn's ``DataFrame(P, columns=model.classes_)``, picked in another order."""
    pandas = require("pandas")
    for classes in ([10, 20, 30], ["10", "20", "30"], [2, 1, 0]):
        model = edge.model(classes=classes)
        frame = pandas.DataFrame(P, columns=classes)[[classes[2], classes[0], classes[1]]]
        model.publish(frame, labels=[str(classes[y]) for y in Y])
        found = model.end()
        assert (found.rows, found.rejected) == (300, {}), classes
        assert found["accuracy"] == pytest.approx(0.8), classes


# --- 8: within a millionth -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("odd", "kind"),
    [
        ((-1e-9, 1.0, 0.0), "f8"),
        ((1.0000001, 0.0, 0.0), "f4"),
        ((1 + 5e-7, 0.0, 0.0), "f8"),
        ((-5e-7, 0.5, 0.5), "f4"),
        ((1.0001, 0.0, 0.0), "f2"),
        ((-0.0, 1.0, 0.0), "f8"),
    ],
    ids=str,
)
@pytest.mark.parametrize("rows", [300, 1])
def test_probabilities_within_a_millionth_are_clipped(edge: Edge, odd: Any, kind: str, rows: int) -> None:
    p = P[:rows].astype(kind)
    p[0] = np.array(odd, dtype=kind)
    model = edge.model(classes=NAMES)
    model.publish(p, labels=Y[:rows])
    found = model.end()
    assert (found.rows, found.rejected, found.degraded) == (rows, {}, {})
    assert found.points[(("stat", "max"), ("what", "max_prediction_proba"))] <= 1.0
    for name in NAMES:
        assert (found.get("class_proba", class_name=name, stat="mean") or 0.0) >= 0.0


@pytest.mark.parametrize("odd", [(1.00001, 0.0, 0.0), (-1e-5, 0.5, 0.5), (3.2, -1.0, 0.4)], ids=str)
@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
def test_what_is_no_probability_is_refused_by_the_publisher(edge: Edge, odd: Any, first: bool) -> None:
    """Logits, for instance; one such row says that the others are none either, or that it alone is broken."""
    bad = P.copy()
    bad[7] = odd
    model = edge.model(classes=NAMES)
    if not first:
        model.publish(P, labels=Y)
    model.publish(bad, labels=Y)
    if first:
        model.publish(P, labels=Y)
    found = model.end()
    assert found.rejected.keys() == {"probabilities_range"}
    assert found.rejected == found.stats[0].rejected, "found at the publisher"
    assert found.rows + found.rejected.total() == 600
    assert found.points[(("stat", "max"), ("what", "max_prediction_proba"))] <= 0.9


# --- 14: no distribution ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("total", [0.5, 1.9])
@pytest.mark.parametrize("form", MATRICES)
def test_rows_that_do_not_sum_to_one_are_counted_and_said(edge: Edge, total: float, form: str) -> None:
    model = edge.model(classes=NAMES)
    for _ in range(3):
        model.publish(MATRICES[form](np.full((100, 3), total / 3)), labels=Y[:100])
    found = model.end()
    assert found.rows + found.rejected.total() == 300
    assert found.degraded.total() + found.rejected.total() == 300
    said = [line for line in found.log if "multilabel" in line and "logits" in line]
    assert len(said) == 1, found.log


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
def test_what_rounding_leaves_of_a_sum_is_not_remarked(edge: Edge, kind: str) -> None:
    random = np.random.default_rng(0)
    for classes, digits in ((1000, 4), (10, 3), (3, 2), (2, 2)):
        model = edge.model(classes=classes)
        model.publish(random.dirichlet(np.ones(classes), 50).astype(kind))
        model.publish(np.round(random.dirichlet(np.ones(classes), 50), digits).astype(kind))
        found = model.end()
        assert (found.rows, found.rejected, found.degraded, found.log) == (100, {}, {}, []), classes


# --- 17: forms -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", MATRICES)
@pytest.mark.parametrize("rows", [300, 1])
def test_probabilities_in_every_form(edge: Edge, form: str, rows: int) -> None:
    model = edge.model(classes=NAMES)
    model.publish(MATRICES[form](P[:rows]), labels=Y[:rows])
    found = model.end()
    assert (found.rows, found.rejected, found.degraded, found.log) == (rows, {}, {}, [])
    assert found["accuracy"] == pytest.approx(np.mean(np.array(Y[:rows]) == SAID[:rows]))
    mean = found.get("max_prediction_proba", stat="mean")
    assert mean == pytest.approx(0.9, rel=1e-6)


@pytest.mark.parametrize("form", ["torch", "ml_dtypes", "torch-grad"])
def test_bfloat16(edge: Edge, form: str) -> None:
    if form == "ml_dtypes":
        p: Any = P.astype(require("ml_dtypes").bfloat16)
    else:
        torch = require("torch")
        p = torch.tensor(P, dtype=torch.bfloat16, requires_grad=form == "torch-grad")
    model = edge.model(classes=NAMES)
    model.publish(p, labels=Y)
    model.publish(p, inputs=p, labels=Y)
    found = model.end()
    assert (found.rows, found.rejected, found.degraded) == (600, {}, {})
    assert found["accuracy"] == pytest.approx(0.8)
    assert found.get("max_prediction_proba", stat="mean") == pytest.approx(0.9, rel=4e-3)


@pytest.mark.parametrize("rows", [3, 1])
def test_dicts_of_classes(edge: Edge, rows: int) -> None:
    model = edge.model(classes=["no", "yes"])
    p = [{"yes": 0.9, "no": 0.1}, {"no": 0.2, "yes": 0.8}, {"yes": 0.3, "no": 0.7}]
    for start in range(0, 3, rows):
        model.publish(p[start : start + rows], labels=["yes", "yes", "no"][start : start + rows])
    model.publish({"yes": 0.9, "no": 0.1}, labels="yes")
    model.publish({"yes": [0.9, 0.2], "no": [0.1, 0.8]}, labels=["yes", "no"])
    found = model.end()
    assert (found.rows, found["accuracy"], found.rejected) == (6, 1.0, {})


@pytest.mark.parametrize(
    "refused",
    [
        lambda: "text",
        lambda: np.full((5, 3), np.nan),
        lambda: np.full((5, 4), 0.25),
        lambda: np.array([["a", "b", "c"]] * 5),
        lambda: [["a", "b", "c"]] * 5,
        lambda: [[0.5, 0.5], [1.0], [0.2], [0.1], [0.1]],
        lambda: np.full((5, 3), 1j),
        lambda: require("pandas").DataFrame({"no": ["x"] * 5, "maybe": ["y"] * 5, "yes": ["z"] * 5}),
        lambda: require("polars").DataFrame({"no": [0.5] * 5, "maybe": [0.5] * 5}),
        lambda: np.zeros((5, 3, 2)),
    ],
)
@pytest.mark.parametrize("inputs", [None, np.ones((5, 2))], ids=["no inputs", "inputs"])
def test_refused_batches_are_counted_with_their_rows(edge: Edge, refused: Any, inputs: Any) -> None:
    model = edge.model(classes=NAMES)
    given = refused()
    model.publish(P, labels=Y)
    model.publish(given, inputs=inputs)
    model.publish(P, labels=Y)
    found = model.end()
    assert (found.rows, found.rejected.total()) == (600, 1 if isinstance(given, str) else 5)
    assert "internal" not in found.rejected
    assert len(found.log) == 1, found.log
