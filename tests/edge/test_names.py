"""Names of columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.edge.forms import FRAMES, sharp
from tests.edge.harness import Edge
from tests.support.frameworks import require

N = 60
Y = [i % 2 for i in range(N)]
P = sharp(Y, 2)
NAMES = ["no", "yes"]
NUMBERS = [float(i) for i in range(N)]

ODD = ["", " ", "\0", "x" * 2000, "caf\ud800", "a/b.c = d", "<b>"]
# Frames refuse a lone surrogate themselves.
ODD_NAMES = [(form, odd) for form in FRAMES for odd in ODD if form in ("columns", "rows") or "\ud800" not in odd]


@pytest.mark.parametrize(("form", "odd"), ODD_NAMES, ids=ascii)
@pytest.mark.parametrize("rows", [N, 1])
def test_any_name_of_a_column(edge: Edge, form: str, odd: str, rows: int) -> None:
    """A CSV that was written with its index has a nameless column."""
    model = edge.model(classes=NAMES)
    model.publish(P[:rows], FRAMES[form]({odd: NUMBERS[:rows], "age": [2.0] * rows}), Y[:rows])
    model.publish(P, FRAMES[form]({odd: NUMBERS, "age": [2.0] * N}), Y)
    model.publish(P, labels=Y)
    found = model.end()
    assert (found.rows, found.rejected, found["accuracy"]) == (2 * N + rows, {}, 1.0)
    assert found.feature("age") == 2.0
    assert len(found.features()) == 2, "the column has a stand-in name"
    (other,) = found.features() - {"age"}
    assert found.feature(other) == pytest.approx((sum(NUMBERS) + sum(NUMBERS[:rows])) / (N + rows))


@pytest.mark.parametrize("names", [[None, "age"], [("a", 1), "age"], [0, "age"], [1.5, "age"], [True, "age"]], ids=str)
def test_names_that_are_no_text(edge: Edge, names: list[Any]) -> None:
    model = edge.model(classes=NAMES)
    frame = require("pandas").DataFrame(np.column_stack([NUMBERS, [2.0] * N]))
    frame.columns = require("pandas").Index(names, dtype=object)
    model.publish(P, frame, Y)
    model.publish(P, [{names[0]: value, "age": 2.0} for value in NUMBERS], Y)
    found = model.end()
    assert (found.rows, found.rejected) == (2 * N, {})
    assert found.feature("age") == 2.0
    (other,) = found.features() - {"age"}
    assert found.feature(other) == pytest.approx((N - 1) / 2)


def test_two_columns_of_one_name(edge: Edge) -> None:
    model = edge.model(classes=NAMES)
    frame = require("pandas").DataFrame(np.column_stack([NUMBERS, NUMBERS, [2.0] * N]), columns=["a", "a", "age"])
    model.publish(P, frame, Y)
    model.publish(P, FRAMES["pandas"]({"age": [2.0] * N}), Y)
    found = model.end()
    assert found.rows == 2 * N, "the outputs matter most"
    assert found["accuracy"] == 1.0


def test_long_names_that_begin_alike(edge: Edge) -> None:
    """Cut, they would be equal, and with a number too long for a collector."""
    long = "n" * 2000
    model = edge.model(classes=NAMES)
    for order in ([0, 1, 2], [1, 0, 2], [2, 1, 0]):
        columns = [(f"{long} a", 1.0), (f"{long} b", 2.0), ("n" * 1024, 3.0)]
        model.publish(P, {columns[i][0]: [columns[i][1]] * N for i in order}, Y)
    found = model.end()
    assert (found.rows, found.rejected, found.degraded) == (3 * N, {}, {})
    assert {found.feature(name) for name in found.features()} == {1.0, 2.0, 3.0}


@pytest.mark.parametrize("name", ["n" * 1024, "n" * 1021, "a"])
def test_long_names_that_are_repeated(edge: Edge, name: str) -> None:
    frame = require("pandas").DataFrame(np.column_stack([NUMBERS, NUMBERS, NUMBERS]), columns=[name] * 3)
    model = edge.model(classes=NAMES)
    model.publish(P, frame, Y)
    found = model.end()
    assert (found.rows, found.rejected, found.degraded, len(found.features())) == (N, {}, {}, 3)


@pytest.mark.parametrize("odd", [1, 1.0, b"1", True], ids=repr)
def test_names_that_are_equal_as_strings(edge: Edge, odd: Any) -> None:
    text = {True: "True"}.get(odd if isinstance(odd, bool) else None, "1")
    model = edge.model(classes=NAMES)
    model.publish(P, [{odd: 5.0, text: 7.0}] * N, Y)
    model.publish(P, [{text: 7.0, odd: 5.0}] * N, Y)
    found = model.end()
    assert (found.rows, found.rejected, found.degraded) == (2 * N, {}, {})
    assert (found.feature(text), found.feature(f"{text}_2")) == (7.0, 5.0)


def test_names_that_cannot_be_compared(edge: Edge) -> None:
    pandas = require("pandas")
    model = edge.model(classes=NAMES)
    for names in ([pandas.NA, "a"], ["b", "a"], [pandas.NA, "a"], [pandas.NaT, "a"], [float("nan"), "a"]):
        frame = pandas.DataFrame([[1.0, 2.0]])
        frame.columns = pandas.Index(names, dtype=object)
        model.publish(P[:1], frame, Y[:1])
        model.publish(P[:1], [dict(zip(names, [1.0, 2.0], strict=True))], Y[:1])
    found = model.end()
    assert (found.rows, found.rejected, found.degraded, found.feature("a")) == (10, {}, {}, 2.0)


@pytest.mark.parametrize(
    ("names", "included", "kept"),
    [
        (["", "b"], "unnamed", 0),
        (["a", "a"], "a_2", 1),
        ([1.0, 2.5], "1", 0),
        ([None, "b"], "unnamed", 0),
        ([b"a", "b"], "a", 0),
        (["a", "b"], "b", 1),
    ],
    ids=str,
)
def test_include_knows_the_names_that_features_have(edge: Edge, names: list[Any], included: str, kept: int) -> None:
    values = [[1.0, 2.0]] * N
    frame = require("pandas").DataFrame(values)
    frame.columns = require("pandas").Index(names, dtype=object)
    model = edge.model(classes=NAMES, include=[included])
    model.publish(P, frame, Y)
    if len(set(names)) == 2:  # as a dict has
        model.publish(P, [dict(zip(names, row, strict=True)) for row in values], Y)
    found = model.end()
    assert (found.rejected, found.degraded, found.log) == ({}, {}, [])
    assert (found.features(), found.feature(included)) == ({included}, [1.0, 2.0][kept])
