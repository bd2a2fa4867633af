"""Containers other than arrays and frames: copied in order, read by name, or refused with the remedy."""

from __future__ import annotations

import array
import types
from collections import OrderedDict, UserDict, UserList, deque, namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.edge.forms import sharp
from tests.edge.harness import OLD, Edge
from tests.support.frameworks import require

N = 60
Y = [i % 2 for i in range(N)]
P = sharp(Y, 2)
NAMES = ["no", "yes"]
NUMBERS = [float(i) for i in range(N)]
MEAN = sum(NUMBERS) / N
IDS = [f"k{i * 7 % N}" for i in range(N)]  # not in the order of strings

# --- collections in the order of their rows --------------------------------------------------------------------------

ORDERED: dict[str, Callable[[list[Any]], Any]] = {
    "keys": lambda values: dict.fromkeys(values).keys(),
    "keys of an ordered dict": lambda values: OrderedDict.fromkeys(values).keys(),
    "keys of a proxy": lambda values: types.MappingProxyType(dict.fromkeys(values)).keys(),
    "values": lambda values: dict(enumerate(values)).values(),
    "deque": deque,
    "UserList": UserList,
    "tuple": tuple,
    "index": lambda values: require("pandas").Index(values),
    "frame": lambda values: require("polars").DataFrame({"id": values}),
}


@pytest.mark.parametrize("form", ORDERED)
def test_ids_keep_their_order(edge: Edge, form: str) -> None:
    model = edge.model(classes=NAMES)
    model.publish(sharp([1 - y if i < 20 else y for i, y in enumerate(Y)], 2), ids=ORDERED[form](IDS))
    model.flush()
    model.publish_labels(IDS, Y)
    found = model.end()
    assert (found.rows, found.rejected, found.degraded) == (N, {}, {})
    assert found["accuracy"] == pytest.approx(40 / 60)


MUTABLE: dict[str, Callable[[], Any]] = {
    "deque": lambda: deque(NUMBERS),
    "UserList": lambda: UserList(NUMBERS),
    "array": lambda: array.array("d", NUMBERS),
    "memoryview": lambda: memoryview(array.array("d", NUMBERS)),
}


@pytest.mark.parametrize("form", MUTABLE)
@pytest.mark.parametrize("column", [True, False], ids=["column", "inputs"])
def test_a_sequence_is_copied(edge: Edge, form: str, column: bool) -> None:
    given = MUTABLE[form]()
    model = edge.model(classes=NAMES)
    model.publish(P, {"feat_0": given} if column else given, Y)
    for i in range(N):
        given[i] = 7.0
    found = model.end()
    assert (found.rows, found.rejected, found.degraded, found.feature("feat_0")) == (N, {}, {}, MEAN)


def test_views_and_ranges_are_columns(edge: Edge) -> None:
    model = edge.model(classes=NAMES)
    given = dict(enumerate(NUMBERS))
    model.publish(P, {"a": given.values(), "b": range(N), "c": given.keys()}, dict(enumerate(Y)).values())
    given.clear()
    found = model.end()
    assert (found.rows, found.rejected, found.degraded, found["accuracy"]) == (N, {}, {}, 1.0)
    assert [found.feature(name) for name in "abc"] == [MEAN] * 3


# --- sparse matrices -------------------------------------------------------------------------------------------------

SPARSE = [
    f"{form}_{kind}" for form in ("csr", "csc", "coo", "lil", "dok", "bsr", "dia") for kind in ("matrix", "array")
]


@pytest.mark.parametrize("form", SPARSE)
def test_every_sparse_format(edge: Edge, form: str) -> None:
    make = getattr(require("scipy.sparse"), form)
    dense = np.zeros((N, 3))
    dense[:, 1] = NUMBERS
    model = edge.model(classes=NAMES)
    model.publish(P, make(dense), make(np.eye(2)[Y]))
    model.publish(make(P), make(dense), Y)
    model.publish(predictions=make(np.eye(2)[Y]), inputs=make(dense), labels=Y)
    found = model.end()
    assert (found.rows, found.rejected, found.degraded, found["accuracy"]) == (3 * N, {}, {}, 1.0)
    assert [found.feature(f"feat_{i}") for i in range(3)] == [0.0, MEAN, 0.0]


def test_a_sparse_vector_and_sparse_sets_of_classes(edge: Edge) -> None:
    sparse = require("scipy.sparse")
    model = edge.model(classes=NAMES)
    model.publish(P, sparse.coo_array(np.array(NUMBERS)), Y)
    found = model.end()
    assert (found.rows, found.rejected, found.degraded, found.feature("feat_0")) == (N, {}, {}, MEAN)
    dense, made = edge.model(classes=NAMES, task="multilabel"), edge.model(classes=NAMES, task="multilabel")
    dense.publish(P, labels=np.eye(2, dtype=int)[Y])
    made.publish(sparse.csr_matrix(P), labels=sparse.csr_matrix(np.eye(2, dtype=int)[Y]))
    assert made.end().points == dense.end().points


# --- arrays of a single value ----------------------------------------------------------------------------------------

SINGLE: dict[str, Callable[[Any], Any]] = {
    "array": np.array,
    "tensor": lambda value: require("torch").tensor(value),
    "arrow": lambda value: require("pyarrow").scalar(value),
    "numpy": lambda value: np.array([value])[0],
}


@pytest.mark.parametrize("form", SINGLE)
def test_lists_of_single_values(edge: Edge, form: str) -> None:
    make = SINGLE[form]
    model = edge.model(classes=NAMES)
    labels = [None if i == 3 else make(y) for i, y in enumerate(Y)]
    rows = [{"a": make(value), "b": "x"} for value in NUMBERS]
    segments = {"s": [make(y) for y in Y]}
    model.publish(P, rows, labels, ids=[make(i) for i in range(N)], segments=segments)
    model.publish(predictions=[make(y) for y in Y], timestamps=[make(OLD) for _ in Y], labels=Y)
    model.flush()
    model.publish_labels([3], [make(Y[3])])
    found = model.end()
    assert (found.rows, found.rejected, found.degraded, found["accuracy"]) == (2 * N, {}, {}, 1.0)
    assert (found.feature("a"), found["label_coverage"]) == (MEAN, 1.0)
    assert found.get("buffer_count", segment_name="s", segment_value="1") == N / 2


@pytest.mark.parametrize("form", SINGLE)
@pytest.mark.parametrize("rows", [1, N], ids=["one", "many"])
def test_single_values_of_one_row(edge: Edge, form: str, rows: int) -> None:
    make = SINGLE[form]
    model = edge.model(classes=NAMES)
    for i in range(rows):
        model.publish(P[i : i + 1], {"a": make(2.0)}, make(Y[i]), ids=make(i), segments={"s": make("x")} if i % 2 and
                      form != "tensor" else None, timestamps=make(OLD))  # fmt: skip
        model.publish(predictions=make(Y[i]), labels=make(Y[i]))
    found = model.end()
    assert (found.rows, found.rejected, found.degraded, found["accuracy"]) == (2 * rows, {}, {}, 1.0)
    assert found.feature("a") == 2.0


def test_columns_of_one_value_a_row(edge: Edge) -> None:
    """Models of Keras take dicts of such columns."""
    model = edge.model(classes=NAMES)
    column = np.array(NUMBERS)[:, None]
    model.publish(P, {"a": column, "b": require("torch").tensor(column), "c": np.array(["x"] * N)[:, None]}, Y)
    found = model.end()
    assert (found.rows, found.rejected, found.degraded) == (N, {}, {})
    assert (found.feature("a"), found.feature("b"), found.categories("c")) == (MEAN, MEAN, {"x": N})


# --- rows and columns with names -------------------------------------------------------------------------------------

Row = namedtuple("Row", "yes no")

RECORDS: dict[str, Callable[[list[dict[str, Any]]], Any]] = {
    "namedtuples": lambda rows: [Row(**row) for row in rows],
    "itertuples": lambda rows: list(require("pandas").DataFrame(rows).itertuples(index=False)),
    "iterrows": lambda rows: [row for _, row in require("pandas").DataFrame(rows).iterrows()],
    "UserDicts": lambda rows: [UserDict(row) for row in rows],
    "proxies": lambda rows: [types.MappingProxyType(row) for row in rows],
    "structured": lambda rows: np.array([tuple(row.values()) for row in rows], [("yes", "f8"), ("no", "f8")]),
    "records": lambda rows: np.rec.fromarrays([[row["yes"] for row in rows], [row["no"] for row in rows]],
                                              names="yes,no"),
    "narwhals": lambda rows: require("narwhals").from_native(require("polars").DataFrame(rows)),
    "narwhals pandas": lambda rows: require("narwhals").from_native(require("pandas").DataFrame(rows)),
}  # fmt: skip


@pytest.mark.parametrize("form", RECORDS)
def test_named_rows_are_read_by_name(edge: Edge, form: str) -> None:
    """Their columns stand in another order than the classes."""
    rows = [{"yes": float(yes), "no": float(no)} for no, yes in P]
    model = edge.model(classes=NAMES)
    model.publish(RECORDS[form](rows), RECORDS[form](rows), Y)
    found = model.end()
    assert (found.rows, found.rejected, found.degraded, found["accuracy"]) == (N, {}, {}, 1.0)
    assert found.features() == {"yes", "no"}


@pytest.mark.parametrize("form", ["namedtuple", "series"])
def test_one_named_row(edge: Edge, form: str) -> None:
    given = Row(3.0, 4.0) if form == "namedtuple" else require("pandas").Series({"yes": 3.0, "no": 4.0})
    model = edge.model(classes=NAMES)
    for _ in range(3):
        model.publish(P[:1], given, Y[:1])
    found = model.end()
    assert (found.rows, found.rejected, found.degraded, found.feature("yes")) == (3, {}, {}, 3.0)


def test_a_row_that_is_none_is_missing(edge: Edge) -> None:
    model = edge.model(classes=NAMES)
    model.publish(P, [None if i % 10 == 3 else {"a": 2.0} for i in range(N)], Y)
    model.publish([None if i == 3 else row for i, row in enumerate(P.tolist())], labels=Y)
    model.publish([None if i == 3 else {"yes": b, "no": a} for i, (a, b) in enumerate(P.tolist())], labels=Y)
    found = model.end()
    assert (found.rows, found.rejected, found.degraded) == (3 * N - 2, {"probabilities_nan": 2}, {})
    assert (found.feature("a"), found["accuracy"]) == (2.0, 1.0)
    assert found.get("feature_missing_freq", feat_name="a") == pytest.approx(0.1)


CELLS: dict[str, Callable[[list[Any]], Any]] = {
    "series of lists": lambda rows: require("pandas").Series(rows),
    "series of arrays": lambda rows: require("pandas").Series([np.array(row) for row in rows]),
    "array of arrays": lambda rows: np.array([*map(np.array, rows), None], dtype=object)[:-1],
    "polars lists": lambda rows: require("polars").Series(rows),
    "arrow lists": lambda rows: require("pyarrow").array(rows),
    "arrow lists of two": lambda rows: require("pyarrow").array(
        rows, require("pyarrow").list_(require("pyarrow").float64(), 2)
    ),
}


@pytest.mark.parametrize("form", CELLS)
def test_a_column_of_distributions(edge: Edge, form: str) -> None:
    model = edge.model(classes=NAMES)
    model.publish(CELLS[form](P.tolist()), labels=Y)
    found = model.end()
    assert (found.rows, found.rejected, found.degraded, found["accuracy"]) == (N, {}, {}, 1.0)


MISSING = [
    (form, missing)
    for form in ("list", "object", "series", "rows")
    for missing in ("None", "NA", "NaT", "masked")
    if (form, missing) != ("rows", "masked")  # NumPy warns of it
]


@pytest.mark.parametrize(("form", "missing"), MISSING)
def test_a_missing_probability_of_any_kind_costs_its_row(edge: Edge, missing: str, form: str) -> None:
    pandas = require("pandas")
    nothing = {"None": None, "NA": pandas.NA, "NaT": pandas.NaT, "masked": np.ma.masked}[missing]
    values: list[Any] = [nothing if i == 3 else p for i, p in enumerate(P[:, 1].tolist())]
    given: Any = values
    if form == "rows":
        given = [[nothing, nothing] if i == 3 else row for i, row in enumerate(P.tolist())]
    elif form in ("object", "series"):
        given = np.empty(N, dtype=object)
        given[:] = values
        given = pandas.Series(given, dtype=object) if form == "series" else given
    model = edge.model(classes=NAMES)
    model.publish(given, labels=Y)
    found = model.end()
    assert (found.rows, found.rejected, found.degraded) == (N - 1, {"probabilities_nan": 1}, {})
    assert found["accuracy"] == 1.0


# --- refused, with the remedy ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("argument", ["probabilities", "inputs", "labels", "ids", "segments"])
def test_a_generator_is_refused_with_the_remedy(edge: Edge, argument: str) -> None:
    given: dict[str, Any] = {"probabilities": P, "labels": Y, "inputs": np.ones((N, 1))}
    values = (value for value in NUMBERS)
    given[argument] = {"s": values} if argument == "segments" else values
    model = edge.model(classes=NAMES)
    model.publish(**given)
    found = model.end()
    assert found.rejected.total() + found.degraded.total() == N, "of the other arguments"
    assert found.rows == (0 if argument == "probabilities" else N)
    assert len(found.log) == 1 and "generator" in found.log[0] and "pass a list" in found.log[0], found.log
    assert next(values) == 0.0, "it is the model's"


@pytest.mark.parametrize("argument", ["probabilities", "inputs", "labels", "ids", "timestamps"])
def test_raw_memory_is_no_number(edge: Edge, argument: str) -> None:
    given: dict[str, Any] = {"probabilities": P, "labels": Y}
    given[argument] = np.zeros((N, 2) if argument in ("probabilities", "inputs") else N, "V8")
    model = edge.model(classes=NAMES)
    model.publish(**given)
    found = model.end()
    assert found.rejected.total() + found.degraded.total() == N
    assert "internal" not in found.rejected + found.degraded


def test_a_series_of_classes_is_not_taken_for_rows(edge: Edge) -> None:
    pandas = require("pandas")
    model = edge.model(classes=NAMES)
    model.publish(pandas.Series({"yes": 0.9, "no": 0.1}))
    model.publish(pandas.Series([0.9, 0.1], index=["customer 1", "customer 2"]), labels=[1, 0])
    found = model.end()
    assert (found.rows, found.rejected, found["accuracy"]) == (2, {"classes_order": 2}, 1.0)
    assert any("iloc" in line for line in found.log), found.log
