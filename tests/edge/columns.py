"""Random inputs: matrices of numbers, and tables with columns of all kinds."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.edge.forms import FRAMES, MATRICES
from tests.support.frameworks import require

KINDS = {"num": "numeric", "whole": "numeric", "": "numeric", "when": "numeric", "span": "numeric", "price": "numeric",
         "flag": "boolean", "text": "categorical", "colour": "categorical"}  # fmt: skip
UNNAMED = [form for form in MATRICES if form != "float32" and not form.startswith(("pandas", "polars"))]
SPARSE = {
    "csr": lambda a: require("scipy.sparse").csr_array(a),
    "coo": lambda a: require("scipy.sparse").coo_matrix(a),
}


@st.composite
def pool(draw: st.DrawFn, matrix: bool) -> dict[str, str]:
    """Draw the columns of a publisher and their kinds."""
    if matrix:
        return {f"feat_{i}": "numeric" for i in range(draw(st.integers(1, 4)))}
    return {name: KINDS[name] for name in draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, unique=True))}


def inputs_of(
    draw: st.DrawFn,
    random: np.random.Generator,
    call: Any,
    columns: dict[str, str],
    *,
    matrix: bool,
    known: bool,
    sound: bool = False,
) -> None:
    """Draw the inputs of a call: none, some or all of the columns."""
    if not sound and draw(st.sampled_from([False, False, False, True])):
        return
    n = call.n
    if matrix:
        _matrix(draw, random, call, len(columns), sound)
        return
    names = list(columns) if sound else draw(st.lists(st.sampled_from(list(columns)), min_size=1, unique=True))
    form = "rows" if sound else draw(st.sampled_from(sorted(FRAMES)))
    values = {name: _values(random, name, n, gaps=not sound) for name in names}
    call.inputs = values
    if form == "rows" and not sound:
        rows = [{name: values[name][i] for name in names if values[name][i] is not None} for i in range(n)]
        if n and not any(rows):
            rows[0] = {names[0]: None}
        call.arguments["inputs"] = rows
        return
    if not sound and known and draw(st.sampled_from([False] * 5 + [True])):
        _other_kind(draw, call, columns, form, values)
        return
    call.arguments["inputs"] = FRAMES[form](values)


def _matrix(draw: st.DrawFn, random: np.random.Generator, call: Any, width: int, sound: bool) -> None:
    kind = "f8" if sound else draw(st.sampled_from(["f8", "f4", "i8", "u1"]))
    form = "float64" if sound else draw(st.sampled_from([*UNNAMED, *SPARSE]))
    if kind != "f8" and form in ("torch-grad", "big-endian"):
        form = "float64"
    a = random.normal(10, 50, (call.n, width))
    if kind in ("i8", "u1"):
        a = np.abs(a) % 200
    a = a.astype(kind)
    if a.dtype.kind == "f" and not sound and form not in SPARSE:
        a[random.random(a.shape) < 0.1] = np.nan
        a[random.random(a.shape) < 0.05] = np.inf
    call.inputs = {
        f"feat_{i}": [None if v != v else float(v) for v in a[:, i].astype("f8").tolist()] for i in range(width)
    }
    call.arguments["inputs"] = (MATRICES | SPARSE)[form](a.copy())


def _values(random: np.random.Generator, name: str, n: int, *, gaps: bool) -> list[Any]:
    def one() -> Any:
        if gaps and random.random() < 0.15:
            return None
        i = int(random.integers(0, 40))
        return {
            "num": i / 8,
            "whole": i,
            "": float(-i),
            "when": dt.datetime(2024, 1, 1) + dt.timedelta(days=1000 * i),
            "span": dt.timedelta(hours=i),
            "price": Decimal(i) / 4,
            "flag": i % 3 == 0,
            "text": "abc"[i % 3],
            "colour": ["rot", "grün", "blau 🙂", ""][i % 4],
        }[name]

    return [one() for _ in range(n)]


def _other_kind(draw: st.DrawFn, call: Any, columns: dict[str, str], form: str, values: dict[str, list[Any]]) -> None:
    """Pass a column with values of another kind than before: they are missing, and their rows are counted."""
    name = draw(st.sampled_from(list(values)))
    other: Any = "text" if columns[name] == "numeric" else 7.5
    given = {**values, name: [None if value is None else other for value in values[name]]}
    rows = [i for i, value in enumerate(values[name]) if value is not None]
    if rows:
        call.degrade("inputs_kind", *rows)
    call.inputs = {**values, name: [None] * call.n}
    call.arguments["inputs"] = FRAMES[form](given)


def number(value: Any) -> float:
    """Return a value of a numeric column as the number that its points are computed of."""
    if isinstance(value, dt.datetime):
        return value.replace(tzinfo=dt.UTC).timestamp()
    return value.total_seconds() if isinstance(value, dt.timedelta) else float(value)


def category(value: Any) -> str:
    """Return the name of a category, as documented."""
    return "(empty)" if value == "" else str(value)
