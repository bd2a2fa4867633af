"""What snapshots hold is counted, whatever their form: long strings above all, which a frame's shape does not show."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from sys import getsizeof
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from zmon._capture.selection import Selection
from zmon._capture.sizes import ALL as EXACT
from zmon._capture.snapshot import own, take
from zmon._transport.intake import Intake

ALL = Selection(None, None)
LONG = 100_000
LIMIT = 2**20
OBJECTS, ARROW = pd.StringDtype("python"), pd.ArrowDtype(pa.string())
STRUCT = np.dtype([("age", "<f8"), ("text", object)])


def text() -> str:
    return "".join(["x" * (LONG - 1), "y"])  # a new one each time


FORMS: dict[str, Callable[[], Any]] = {
    "list of rows": lambda: [[text(), 1]],
    "list of dicts": lambda: [{"a": text(), "b": 1}],
    "dict": lambda: {"a": text(), "b": 1},
    "dict of columns": lambda: {"a": [text()], "b": [1]},
    "list in a dict": lambda: {"a": [text(), text()]},
    "bytes": lambda: [{"a": text().encode()}],
    "array of objects": lambda: np.array([[text(), 1.0]], dtype=object),
    "array of words": lambda: np.array([[text()]]),
    "array of strings": lambda: np.array([[text()]], dtype=np.dtypes.StringDType()),
    "structured array": lambda: np.array([(1.0, text())], dtype=STRUCT),
    "masked array": lambda: np.ma.array([[text()]], mask=[[False]], dtype=object),
    "pandas": lambda: pd.DataFrame({"a": [text()], "b": [1.0]}),
    "pandas objects": lambda: pd.DataFrame({"a": [text()], "b": [1.0]}, dtype=object),
    "pandas strings as objects": lambda: pd.DataFrame({"a": pd.array([text()], OBJECTS)}),
    "pandas arrow": lambda: pd.DataFrame({"a": pd.array([text()], ARROW)}),
    "pandas, strings and objects": lambda: pd.DataFrame({"a": [text()], "b": pd.Series([text()], dtype=object)}),
    "pandas, many columns": lambda: pd.DataFrame({f"c{i}": ["word"] for i in range(40)} | {"a": [text()]}),
    "pandas series": lambda: pd.Series([text()]),
    "pandas series of objects": lambda: pd.Series([text()], dtype=object),
    "pandas index": lambda: pd.Index([text()], dtype=object),
    "polars": lambda: pl.DataFrame({"a": [text()], "b": [1.0]}),
    "polars, wide": lambda: pl.DataFrame({"a": [text()]} | {f"c{i}": [1.0] for i in range(100)}),
    "polars series": lambda: pl.Series([text()]),
    "arrow": lambda: pa.table({"a": [text()], "b": [1.0]}),
    "arrow batch": lambda: pa.RecordBatch.from_pydict({"a": [text()]}),
    "arrow array": lambda: pa.array([text()]),
    "arrow array in chunks": lambda: pa.chunked_array([[text()], [text()]]),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_queue_of_long_strings_stays_within_its_limit(form: str) -> None:
    intake = Intake(LIMIT)
    make = FORMS[form]
    for _ in range(30):
        intake.put(take("batch", 1, (None, make(), *[None] * 5), ALL, ()))
    held = len(intake.waiting())
    assert 0 < held * LONG <= LIMIT, "each snapshot holds a string of its own"
    assert intake.overflowed


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", [0, 1, 2, 6])
def test_it_is_so_for_every_argument(form: str, place: int) -> None:
    arguments: list[Any] = [None] * 7
    arguments[place] = FORMS[form]()
    assert take("batch", 1, arguments, ALL, ()).nbytes >= LONG


def frame(cells: list[str], dtype: Any) -> Any:
    return pd.DataFrame({"a": pd.array(cells, dtype) if dtype is not object else np.array(cells, dtype=object)})


MANY: dict[str, Callable[[list[str]], Any]] = {
    "pandas": partial(frame, dtype="str"),
    "pandas objects": partial(frame, dtype=object),
    "pandas strings as objects": partial(frame, dtype=OBJECTS),
    "pandas arrow": partial(frame, dtype=ARROW),
    "array of objects": lambda cells: np.array(cells, dtype=object),
    "polars": lambda cells: pl.DataFrame({"a": cells}),
    "arrow": lambda cells: pa.table({"a": cells}),
    "list": lambda cells: cells,
}


@pytest.mark.parametrize("rows", [EXACT, EXACT + 1, 1000])
@pytest.mark.parametrize("form", MANY)
def test_many_strings(form: str, rows: int) -> None:
    """Their lengths vary: those that are looked at stand for the others."""
    random = np.random.default_rng(1)
    cells = ["x" * int(size) for size in random.integers(500, 1500, rows)]
    size = own(MANY[form](cells))[1]
    exact = sum(map(len, cells))
    assert 0.9 * exact <= size <= 5 * exact + 1000, "four bytes a character in a list, where none is looked at"


@pytest.mark.parametrize("place", range(0, EXACT, 7))
def test_a_long_text_anywhere_in_a_wide_row(place: int) -> None:
    row = [text() if column == place else "word" for column in range(EXACT)]
    for inputs in (pd.DataFrame([row], dtype=object), pd.DataFrame([row]), np.array([row], dtype=object)):
        assert LONG <= own(inputs)[1] < 2 * LONG


def test_strings_and_objects_of_one_frame_are_added() -> None:
    assert own(FORMS["pandas, strings and objects"]())[1] >= 2 * LONG


@pytest.mark.parametrize("form", ["pandas objects", "array of objects"])
def test_one_giant_among_many_stands_for_no_other(form: str) -> None:
    cells = ["x" * 10**6, *["x"] * 10_000]
    assert 10**6 <= own(MANY[form](cells))[1] < 3 * 10**6


SLICES: dict[str, Callable[[], Any]] = {
    "pandas": lambda: pd.DataFrame({"a": [text() for _ in range(20)]}).iloc[3:4],
    "pandas objects": lambda: pd.DataFrame({"a": [text() for _ in range(20)]}, dtype=object).iloc[3:4],
    "polars": lambda: pl.DataFrame({"a": [text() for _ in range(20)]})[3:4],
    "arrow": lambda: pa.table({"a": [text() for _ in range(20)]}).slice(3, 1),
    "arrow array": lambda: pa.array([text() for _ in range(20)]).slice(3, 1),
}


@pytest.mark.parametrize("form", SLICES)
def test_a_slice_is_not_taken_for_the_whole(form: str) -> None:
    assert LONG <= own(SLICES[form]())[1] < 2 * LONG


def test_numbers_are_counted_as_before() -> None:
    for numbers in (pd.DataFrame(np.ones((100, 50))), pa.table({"a": np.ones(5000)}), pl.DataFrame(np.ones((100, 50)))):
        assert 8 * 5000 <= own(numbers)[1] <= 64 * 5000 + 1000
    assert own(pl.DataFrame({"a": [1]}).lazy())[1] < 1000
    assert own(np.array([1, "a", None], dtype=object))[1] >= getsizeof("a")
