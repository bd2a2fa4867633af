"""Arguments of `publish` in every form that services have, with what copying them costs in the form's own way."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle, islice
from typing import Any, NamedTuple

import numpy as np

ARRAY, WITH_COLUMNS, LIST, DICT, PANDAS, POLARS, ARROW = (
    "array", "array + ids, labels, segments", "list", "dict", "pandas", "polars", "arrow",
)  # fmt: skip
FORMS = (ARRAY, WITH_COLUMNS, LIST, DICT, PANDAS, POLARS, ARROW)
NUMERIC, MIXED = "numeric", "mixed"
CITIES = ("Amsterdam", "Berlin", "Copenhagen", "Dublin", "Edinburgh")


class Case(NamedTuple):
    """A form, how many rows and columns, and whether all columns are numeric: ``"numeric"`` or ``"mixed"``."""

    form: str
    rows: int
    columns: int
    values: str

    @classmethod
    def of(cls, row: dict[str, Any]) -> Case:
        """The case of a measured row."""
        return cls(*(row[name] for name in cls._fields))

    def __str__(self) -> str:
        return f"{self.form}, {self.rows}×{self.columns} {self.values}"


class Given(NamedTuple):
    """What to pass to `publish`, and a call that copies the inputs in their own way; None where nothing copies them."""

    arguments: dict[str, Any]
    copy: Callable[[], Any] | None


def cases(quick: bool) -> list[Case]:
    """All combinations that exist, and two more that have a target of their own; `quick` ones have a single row."""
    found = [
        Case(form, rows, columns, values)
        for form in FORMS
        for columns in ((13,) if quick else (13, 500))
        for values in ((NUMERIC,) if form in (ARRAY, WITH_COLUMNS) else (NUMERIC, MIXED))
        for rows in ((1,) if quick else (1, 32, 1000))
    ]
    return [*found, Case(DICT, 1, 20, MIXED), Case(PANDAS, 32, 5000, MIXED)]


def given(case: Case) -> Given:
    """The arguments of a case, always the same."""
    p = np.random.default_rng(0).dirichlet(np.ones(2), case.rows).astype("f4")
    inputs, copy = _inputs(case)
    arguments = {"probabilities": p, "inputs": inputs}
    if case.form == WITH_COLUMNS:
        arguments |= {
            "ids": np.arange(case.rows),
            "labels": np.arange(case.rows) % 2,
            "segments": {"city": list(islice(cycle(CITIES), case.rows))},
        }
    return Given(arguments, copy)


def _inputs(case: Case) -> tuple[Any, Callable[[], Any] | None]:
    if case.form in (ARRAY, WITH_COLUMNS):
        x = np.random.default_rng(1).normal(size=(case.rows, case.columns)).astype("f4")
        return x, x.copy
    columns = named_columns(case)
    if case.form in (LIST, DICT):
        rows = list(zip(*columns.values(), strict=True))
        if case.form == LIST:
            lists = [list(row) for row in rows]
            return lists, lambda: [list(row) for row in lists]
        dicts = [dict(zip(columns, row, strict=True)) for row in rows]
        return dicts, lambda: [dict(row) for row in dicts]
    # Frameworks of frames are imported where they are needed: a peer's environment lacks most of them.
    if case.form == PANDAS:
        import pandas as pd

        frame = pd.DataFrame(columns)
        return frame, frame.copy
    if case.form == POLARS:
        import polars as pl

        table = pl.DataFrame(columns)
        return table, table.clone
    import pyarrow as pa

    return pa.table(columns), None


def named_columns(case: Case) -> dict[str, list[Any]]:
    """Columns of Python values: floats; or, of every thirteen, six floats, three integers, three strings, a boolean."""
    random = np.random.default_rng(1)
    found: dict[str, list[Any]] = {}
    for number in range(case.columns):
        place = number % 13 if case.values == MIXED else 0
        if place < 6:
            found[f"amount_{number}"] = random.normal(100, 10, case.rows).tolist()
        elif place < 9:
            found[f"count_{number}"] = random.integers(0, 1000, case.rows).tolist()
        elif place < 12:
            found[f"city_{number}"] = random.choice(CITIES, case.rows).tolist()
        else:
            found[f"known_{number}"] = (random.random(case.rows) < 0.5).tolist()
    return found
