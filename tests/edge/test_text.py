"""Texts that are odd, and texts that stand for something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.edge.forms import FRAMES, sharp
from tests.edge.harness import Edge
from tests.support.frameworks import require

N = 300
Y = [i % 2 for i in range(N)]
P = sharp(Y, 2)
NAMES = ["no", "yes"]
PLAIN = ["DE", "FR"] * (N // 2)


def with_one(bad: Any) -> list[Any]:
    return [bad, *PLAIN[1:]]


# The last two are too long for a category: a column that begins with one holds texts.
ODD = ["caf\ud800", "\udfff", "a\0b", "\u202e", "e\u0301", "", " ", "=1+1", "x" * 5000, "🙂" * 300]


# pandas refuses a lone surrogate itself.
ODD_FORMS = [
    (form, odd)
    for form in ("rows", "columns", "pandas", "object", "str array")
    for odd in ODD[:-2]
    if form != "pandas" or not any("\ud800" <= character <= "\udfff" for character in odd)
]


@pytest.mark.parametrize(("form", "odd"), ODD_FORMS, ids=lambda text: ascii(text[:10]))
def test_one_odd_text_among_categories(edge: Edge, odd: str, form: str) -> None:
    values = with_one(odd)
    given: Any
    if form == "object":
        given = np.array([[value] for value in values], dtype=object)
    elif form == "str array":
        given = np.array([[value] for value in values])
    else:
        given = FRAMES[form]({"feat_0": values})
    model = edge.model(classes=NAMES)
    model.publish(P, given, Y)
    model.publish(P, labels=Y)
    found = model.end()
    assert (found.rows, found.rejected, found.degraded, found["accuracy"]) == (2 * N, {}, {}, 1.0)
    counts = found.categories("feat_0")
    assert (counts.pop("DE"), counts.pop("FR")) == (N / 2 - 1, N / 2)
    assert list(counts.values()) == [1.0]


@pytest.mark.parametrize("odd", ODD, ids=lambda text: ascii(text[:10]))
@pytest.mark.parametrize("form", ["list", "object"])
def test_one_odd_text_among_segments(edge: Edge, odd: str, form: str) -> None:
    values: Any = with_one(odd)
    model = edge.model(classes=NAMES)
    model.publish(P, labels=Y, segments={"s": values if form == "list" else np.array(values, dtype=object)})
    found = model.end()
    assert (found.rows, found.rejected, found.degraded) == (N, {}, {})
    assert found.get("buffer_count", segment_name="s", segment_value="DE") == N / 2 - 1


@pytest.mark.parametrize("odd", ["caf\ud800", "a\0b", "", "x" * 5000], ids=lambda text: ascii(text[:10]))
def test_one_odd_text_among_ids_and_labels(edge: Edge, odd: str) -> None:
    model = edge.model(classes=NAMES)
    model.publish(P, labels=[odd, *[NAMES[y] for y in Y[1:]]], ids=[odd, *map(str, range(1, N))])
    found = model.end()
    assert (found.rows, found.rejected, found["accuracy"]) == (N, {}, 1.0)
    assert found["label_coverage"] == pytest.approx(1 - 1 / N)
    assert "internal" not in found.degraded


def test_odd_texts_as_keys_of_segments(edge: Edge) -> None:
    for odd in ("caf\ud800", "", "x" * 3000, "\0"):
        model = edge.model(classes=NAMES)
        model.publish(P, labels=Y, segments={odd: PLAIN})
        model.publish(P, labels=Y, segments={"s": PLAIN})
        found = model.end()
        assert found.rows + found.rejected.total() == 2 * N
        assert "internal" not in found.rejected and "internal" not in found.degraded
        assert found["accuracy"] == 1.0


MASKED: dict[str, Callable[[list[Any]], Any]] = {
    "masked text": lambda v: np.ma.masked_array(["-" if x is None else x for x in v], mask=[x is None for x in v]),
    "masked objects": lambda v: np.ma.masked_array(np.array(v, dtype=object), mask=[x is None for x in v]),
    "None": lambda v: v,
    "NaN": lambda v: [float("nan") if x is None else x for x in v],
    "numpy NaN": lambda v: np.array([np.nan if x is None else x for x in v], dtype=object),
    "NA": lambda v: [require("pandas").NA if x is None else x for x in v],
    "NaT": lambda v: [require("pandas").NaT if x is None else x for x in v],
    "numpy NaT": lambda v: [np.datetime64("NaT") if x is None else x for x in v],
    "string dtype": lambda v: require("pandas").Series(v, dtype="string"),
    "str dtype": lambda v: require("pandas").Series(v, dtype="str"),
    "arrow": lambda v: require("pyarrow").array(v),
    "chunked": lambda v: require("pyarrow").chunked_array([v[:10], v[10:]]),
    "polars": lambda v: require("polars").Series(v),
    "StringDType": lambda v: np.array(v, dtype=np.dtypes.StringDType(na_object=None)),
}


@pytest.mark.parametrize("form", MASKED)
def test_missing_is_missing_in_segments_and_features(edge: Edge, form: str) -> None:
    values = [None if i % 10 == 0 else text for i, text in enumerate(PLAIN)]
    given = MASKED[form](values)
    model = edge.model(classes=NAMES)
    model.publish(P, {"c": given}, Y, segments={"s": given})
    found = model.end()
    assert (found.rows, found.rejected, found.degraded) == (N, {}, {})
    assert found.categories("c") == {"DE": 120, "FR": 150}
    assert found.get("feature_missing_freq", feat_name="c") == pytest.approx(0.1)
    assert [found.get("buffer_count", segment_name="s", segment_value=each) for each in ("DE", "FR")] == [120, 150]
    values_of_s = {dict(each).get("segment_value") for each in found.points} - {None}
    assert values_of_s == {"DE", "FR"}


@pytest.mark.parametrize("form", [name for name in MASKED if name != "NaN" and "NaT" not in name])
def test_missing_ids_join_nothing(edge: Edge, form: str) -> None:
    values = [None if i % 10 == 0 else f"id-{i}" for i in range(N)]
    model = edge.model(classes=NAMES)
    model.publish(P, ids=MASKED[form](values))
    model.flush()
    odd = ["nan", "None", "NaT", "<NA>", "-", "--", "N/A"]
    model.publish_labels([*values[1:10], *odd], ["no"] * (9 + len(odd)))
    found = model.end()
    assert (found.rows, found.rejected.total()) == (N, 0)
    assert found.get("late_label_count", reason="joined") == 9
