"""Numbers of any type as labels, predictions and ids."""

from __future__ import annotations

import decimal
import fractions
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.edge.forms import sharp
from tests.edge.harness import Edge
from tests.support.frameworks import require

N = 300
Y = [i % 2 for i in range(N)]
SAID = [y ^ (i % 4 == 3) for i, y in enumerate(Y)]
P = sharp(SAID, 2)
NAMES = ["no", "yes"]

NUMBERS_AS: dict[str, Callable[[int], Any]] = {
    "decimal": decimal.Decimal,
    "decimal.0": lambda y: decimal.Decimal(f"{y}.0"),
    "fraction": fractions.Fraction,
    "string.0": lambda y: f"{y}.0",
    "string.00": lambda y: f"{y}.00",
    "numpy": np.int8,
    "bytes": lambda y: f"{y}".encode(),
    "long": np.longdouble,
}


FORMS_OF_NUMBERS = [
    (form, container)
    for form in NUMBERS_AS
    for container in ("list", "object", "arrow")
    if container != "arrow" or form.startswith(("decimal", "string"))
]


@pytest.mark.parametrize(("form", "container"), FORMS_OF_NUMBERS)
@pytest.mark.parametrize("classes", [[0, 1], ["0", "1"], [0.0, 1.0], [1, 0]], ids=str)
def test_numbers_of_any_type_are_classes(edge: Edge, form: str, classes: list[Any], container: str) -> None:
    """Decimals come from databases, strings such as "1.0" from columns that had gaps once."""
    labels: Any = [NUMBERS_AS[form](y) for y in Y]
    said: Any = [NUMBERS_AS[form](y) for y in SAID]
    if container != "list":
        make = require("pyarrow").array if container == "arrow" else lambda v: np.array([*v, None], dtype=object)[:-1]
        labels, said = make(labels), make(said)
    model = edge.model(classes=classes)
    model.publish(P if classes[0] != 1 else P[:, ::-1], labels=labels)
    model.publish(predictions=said, labels=labels)
    found = model.end()
    assert (found.rows, found.rejected, found.degraded) == (2 * N, {}, {})
    assert found["accuracy"] == 0.75


@pytest.mark.parametrize("signs", [[-1, 1], ["-1", "1"], [-1.0, 1.0]], ids=str)
@pytest.mark.parametrize("form", ["ints", "floats", "strings", "float strings", "decimals"])
def test_signs_as_classes(edge: Edge, signs: list[Any], form: str) -> None:
    make: Any = {"ints": int, "floats": float, "strings": str, "float strings": lambda y: f"{y}.0",
                 "decimals": decimal.Decimal}[form]  # fmt: skip
    model = edge.model(classes=signs)
    model.publish(P, labels=[make(2 * y - 1) for y in Y])
    model.publish(P, labels=np.array([make(2 * y - 1) for y in Y]))
    found = model.end()
    assert (found.rows, found.rejected, found.degraded, found["accuracy"]) == (2 * N, {}, {}, 0.75)


def test_codes_are_no_numbers(edge: Edge) -> None:
    """A class named 1 is neither 01 nor 1e0."""
    model = edge.model(classes=["1", "2"])
    model.publish(P[:4], labels=["01", "1e0", "1.5", " 1"])
    found = model.end()
    assert (found.rows, found.degraded) == (4, {"label_unknown": 4})


IDS_AS: dict[str, Callable[[], Any]] = {
    "decimals": lambda: [decimal.Decimal(i) for i in range(N)],
    "decimals.0": lambda: [decimal.Decimal(f"{i}.0") for i in range(N)],
    "bytearrays": lambda: [bytearray(b"%d" % i) for i in range(N)],
    "arrow decimals": lambda: require("pyarrow").array([decimal.Decimal(i) for i in range(N)]),
    "polars 128 bits": lambda: require("polars").Series(range(N), dtype=require("polars").Int128),
    "index": lambda: require("pandas").DataFrame({"a": range(N)}).index,
    "range": lambda: range(N),
    "long floats": lambda: np.arange(N, dtype=np.longdouble),
    "masked": lambda: np.ma.masked_array(range(N), mask=np.zeros(N)),
}


@pytest.mark.parametrize("form", IDS_AS)
def test_whole_numbers_of_any_type_are_ids(edge: Edge, form: str) -> None:
    model = edge.model(classes=NAMES)
    model.publish(P, ids=IDS_AS[form]())
    model.flush()
    model.publish_labels([str(i) for i in range(N)], [NAMES[y] for y in Y])
    found = model.end()
    assert (found.rows, found.rejected, found.degraded, found["accuracy"]) == (N, {}, {}, 0.75)
