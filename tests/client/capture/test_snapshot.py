"""Snapshots hold what was given at the call, whatever the caller does to its objects afterwards."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from collections.abc import Callable
from sys import getsizeof
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp

from tests.edge.breaks import Raising
from zmon._capture.selection import Selection
from zmon._capture.snapshot import Unusable, count_rows, own, take
from zmon._transport.buffer_pool import LARGE

ALL = Selection(None, None)


class Colour(enum.Enum):
    RED = 1


def set_item(value: Any) -> None:
    value[0] = 9


def set_deep(value: Any) -> None:
    value[0][0] = 9


# how a value is made, how the caller changes it afterwards
CHANGED: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "array": (lambda: np.ones((3, 2)), lambda v: v.fill(9)),
    "large array": (lambda: np.ones(LARGE), lambda v: v.fill(9)),
    "fortran array": (lambda: np.asfortranarray(np.ones((3, 2))), lambda v: v.fill(9)),
    "strings": (lambda: np.array(["a", "b"]), lambda v: v.fill("z")),
    "objects": (lambda: np.array(["a", None], dtype=object), set_item),
    "objects that hold lists": (lambda: np.array([[1], None], dtype=object), lambda v: v[0].append(2)),
    "masked": (lambda: np.ma.masked_array([1.0, 2.0], [True, False]), lambda v: v.mask.fill(True)),
    "structured": (lambda: np.array([(1, 2.0)], dtype=[("a", "i8"), ("b", "f8")]), lambda v: v["a"].fill(9)),
    "list": (lambda: [1, 2.5, "a", None], set_item),
    "list of rows": (lambda: [[1, 2], [3, 4]], set_deep),
    "list of arrays": (lambda: [np.ones(2)], set_deep),
    "list of dicts": (lambda: [{"a": 1}], lambda v: v[0].update(a=2)),
    "tuple of lists": (lambda: ([1, 2],), set_deep),
    "dict": (lambda: {"a": 1, "b": "x"}, lambda v: v.update(a=2)),
    "dict of columns": (lambda: {"a": [1, 2]}, lambda v: v["a"].append(3)),
    "dict of arrays": (lambda: {"a": np.ones(2)}, lambda v: v["a"].fill(9)),
    "pandas": (lambda: pd.DataFrame({"a": [1.0], "b": ["x"]}), lambda v: v.__setitem__("a", 9.0)),
    "pandas in place": (lambda: pd.DataFrame({"a": [1.0, 2.0]}), lambda v: v.iloc.__setitem__((0, 0), 9.0)),
    "series": (lambda: pd.Series([1, 2]), lambda v: v.__setitem__(0, 9)),
    "polars": (lambda: pl.DataFrame({"a": [1, 2]}), lambda v: v.insert_column(0, pl.Series("b", [1, 2]))),
    "polars cell": (lambda: pl.DataFrame({"a": [1, 2]}), lambda v: v.__setitem__((0, "a"), 9)),
    "sparse": (lambda: sp.csr_matrix(np.eye(2)), lambda v: v.data.fill(9)),
    "set": (lambda: {"a", "b"}, lambda v: v.clear()),
}


@pytest.mark.parametrize(("make", "change"), CHANGED.values(), ids=CHANGED.keys())
@pytest.mark.parametrize("place", range(7))
def test_the_caller_cannot_change_a_snapshot(make: Any, change: Any, place: int) -> None:
    value = make()
    arguments: list[Any] = [None] * 7
    arguments[place] = value
    copy = take("batch", 1, arguments, ALL, ()).arguments[place]
    before = show(copy)
    change(value)
    assert show(copy) == before
    assert show(make()) == before or isinstance(value, set)


def show(value: Any) -> str:
    if isinstance(value, np.ma.MaskedArray):
        return repr((value.tolist(), value.dtype))
    if hasattr(value, "toarray"):
        return repr(value.toarray().tolist())
    if isinstance(value, np.ndarray):
        return repr((value.tolist(), value.dtype))
    if isinstance(value, list | tuple):
        return repr([show(each) for each in value])
    return repr({key: show(each) for key, each in value.items()}) if isinstance(value, dict) else repr(value)


@pytest.mark.parametrize(
    "value",
    [
        3,
        2.5,
        "text",
        b"bytes",
        None,
        True,
        uuid.UUID(int=7),
        Colour.RED,
        dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
        np.float32(1),
        pd.NA,
    ],
    ids=repr,
)
def test_what_cannot_change_is_not_copied(value: Any) -> None:
    assert own(value)[0] is value
    assert own([value])[0][0] is value


def test_arrow_tables_are_taken_by_reference() -> None:
    table = pa.table({"a": [1, 2]})
    assert own(table)[0] is table


def test_tensors_come_to_host_memory() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.ones(2, 2, requires_grad=True)
    copy, _ = own(tensor)
    with torch.no_grad():
        tensor.mul_(9)
    assert copy.tolist() == [[1, 1], [1, 1]]
    assert own(torch.ones(1, dtype=torch.bfloat16))[0].dtype == np.float32
    assert own([torch.ones(1), torch.zeros(1)])[0][1].tolist() == [0]


def test_the_estimate_is_never_below_what_is_held() -> None:
    texts = ["x" * 5000, "é" * 3000, "𝄞" * 2000]
    assert own(texts)[1] >= sum(map(getsizeof, texts))
    row = dict(zip("abc", texts, strict=True))
    assert own(row)[1] >= sum(map(getsizeof, texts)) + getsizeof(row)
    numbers = [float(i) for i in range(1000)]
    assert own(numbers)[1] >= getsizeof(numbers) + sum(map(getsizeof, numbers))
    array = np.ones((100, 50))
    assert own(array)[1] >= array.nbytes
    frame = pl.DataFrame({"a": ["x" * 5000] * 10})
    assert own(frame)[1] >= 50_000


def test_columns_that_are_left_out_are_not_copied() -> None:
    frame = pd.DataFrame({f"c{i}": [1.0, 2.0] for i in range(100)} | {"text": ["a", "b"]})
    inputs = take("batch", 1, (None, frame, *[None] * 5), Selection(["c1", "c2*"], ["c29"]), ()).arguments.inputs
    assert list(inputs.columns) == ["c1", "c2", *(f"c2{i}" for i in range(9))]


def test_cells_of_vector_columns_are_copied() -> None:
    frame = pd.DataFrame({"embedding": [np.ones(3), np.ones(3)], "a": [1, 2]})
    inputs = take("batch", 1, (None, frame, *[None] * 5), ALL, ["embedding"]).arguments.inputs
    frame["embedding"][0].fill(9)
    assert inputs["embedding"][0].tolist() == [1, 1, 1]


ROWS = [
    (np.ones((3, 2)), 3),
    (0.5, 1),
    ([0.1, 0.2], 2),
    ([[0.1, 0.9]], 1),
    ({"no": 0.1, "yes": 0.9}, 1),
    ({"no": [0.1, 0.2], "yes": [0.9, 0.8]}, 2),
    (pd.DataFrame({"a": [1, 2, 3]}), 3),
    (pl.DataFrame({"a": [1, 2, 3]}), 3),
    (pa.table({"a": [1, 2, 3]}), 3),
    (sp.csr_matrix(np.eye(4)), 4),
    ([], 0),
    (Unusable("dtype", ""), 1),
    (object(), 1),
]


@pytest.mark.parametrize(("value", "rows"), ROWS, ids=[type(value).__name__ for value, _ in ROWS])
def test_rows_are_counted_by_form(value: Any, rows: int) -> None:
    assert count_rows(value) == rows


def test_rows_of_what_cannot_be_copied_are_counted_by_its_length() -> None:
    given = [Raising(3), None, None, None, None, 1_700_000_000.0, None]
    assert take("batch", 1, given, ALL, []).rows == 3
    given[4] = ["a", "b"]  # what can be copied says it better
    assert take("batch", 1, given, ALL, []).rows == 2
    assert take("batch", 1, [{"a", "b"}, *[None] * 6], ALL, []).rows == 2
