"""What is wrong with a call costs as little as it can: a cell, then a column, then a row, then the call."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from tests.support.capture import capture, columns, convert, degraded, proba, read_back, rejected
from tests.support.frameworks import require

NAN, NAT = float("nan"), np.datetime64("NaT")
P = proba(300, 2)
BINARY = ["no", "yes"]


class Color(str, enum.Enum):  # noqa: UP042 - what people have: its str() is not its value
    RED = "red"
    BLUE = "blue"


class Plain(enum.Enum):
    A = 1


# --- cells ----------------------------------------------------------------------------------------------------------


def test_an_unknown_label_is_unlabelled_and_the_others_stay() -> None:
    labels: list[Any] = ["yes", "no"] * 150
    labels[7] = "maybe"
    one = capture(BINARY)
    assert degraded(one, P, labels=labels) == {"label_unknown": 1}
    found = columns(one, P, labels=labels)[0]["labels"].tolist()
    assert found[:8] == [1, 0, 1, 0, 1, 0, 1, -1]
    assert found[8:] == [1, 0] * 146


@pytest.mark.parametrize("absent", [None, NAN, NAT])
def test_a_row_without_an_id_has_none(absent: Any) -> None:
    one = capture(BINARY)
    assert degraded(one, P[:3], ids=["a", absent, "c"]) == {}
    assert columns(one, P[:3], ids=["a", absent, "c"])[0]["ids"].tolist() == [b"a", b"", b"c"]
    assert columns(one, P[:3], ids=[1, absent, 3])[0]["ids"].tolist() == [b"1", b"", b"3"]
    assert degraded(one, P[:1], ids=[absent]) == {}
    assert "ids" not in columns(one, P[:1], ids=[absent])[0]


def test_collections_among_labels_and_sets_of_rows() -> None:
    one = capture(BINARY)
    assert degraded(one, P[:3], labels=["no", ["yes"], "yes"]) == {"label_unknown": 1}
    assert degraded(one, P[:3], ids=["a", ["b"], "c"]) == {"ids_invalid": 1}
    assert degraded(one, P[:2], labels={"no", "yes"}) == {"labels_dtype": 2}
    assert rejected(one, P[:1], timestamps={1}) == {"timestamp_invalid": 1}


def test_one_value_stands_for_one_row() -> None:
    found = columns(capture(BINARY), {"no": 0.25, "yes": 0.75}, labels="yes", ids=7, segments={"c": "de"})[0]
    assert (found["labels"].tolist(), found["ids"].tolist(), found["segments"]) == ([1], [7], {"c": ["de"]})
    assert columns(capture(BINARY), predictions="yes")[0]["predictions"].tolist() == [1]
    assert degraded(capture(BINARY), P[:2], labels="yes") == {"labels_shape": 2}


def test_ids_of_pandas_with_a_gap_are_the_integers_they_were() -> None:
    pandas = require("pandas")
    one = capture(BINARY)
    for ids in (pandas.Series([7, None, 9]), pandas.Series([7, None, 9], dtype="Int64"), np.array([7, NAN, 9])):
        assert columns(one, P[:3], ids=ids)[0]["ids"].tolist() == [b"7", b"", b"9"]


def test_ids_in_other_forms() -> None:
    one, first = capture(BINARY), uuid.UUID(int=1)
    assert columns(one, P[:2], ids=[first, uuid.UUID(int=2)])[0]["ids"][0] == str(first).encode()
    assert columns(one, P[:2], ids=np.array([3, 4], dtype=object))[0]["ids"].tolist() == [3, 4]
    assert columns(one, P[:2], ids=[7, "b"])[0]["ids"].tolist() == [b"7", b"b"]
    assert columns(one, P[:2], ids=[2**70, 1])[0]["ids"].tolist() == [str(2**70).encode(), b"1"]
    for bad in ("a\0b", "x" * 257, 0.5, True, ""):
        assert degraded(one, P[:2], ids=["a", bad]) == {"ids_invalid": 1}


@pytest.mark.parametrize("bad", [NAT, np.datetime64("2600-01-01"), np.datetime64("1969-12-31")])
def test_a_row_whose_time_cannot_be_used_is_rejected(bad: np.datetime64) -> None:
    times = np.array([np.datetime64("2024-01-01T00:00:00"), bad], dtype="datetime64[s]")
    one = capture(BINARY)
    assert rejected(one, P[:2], timestamps=times) == {"timestamp_invalid": 1}
    kept = read_back(one, convert(one, P[:2], timestamps=times))[0]
    assert kept["timestamps"].tolist() == [1704067200 * 10**9]


def test_a_time_in_another_unit_costs_its_row() -> None:
    one = capture(BINARY)
    assert rejected(one, P[:3], timestamps=[1.7e9, 1.7e12, None]) == {"timestamp_unit": 1, "timestamp_invalid": 1}
    kept = read_back(one, convert(one, P[:3], timestamps=[1.7e9, 1.7e12, None]))[0]
    assert kept["timestamps"].tolist() == [1_700_000_000 * 10**9]


@pytest.mark.parametrize(
    "far", [dt.datetime(9999, 12, 31), dt.datetime(9999, 12, 31, tzinfo=dt.UTC), np.datetime64("2600-01-01"), 5e10,
            dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=14)))]
)  # fmt: skip
def test_a_time_beyond_2262_is_refused_and_never_wraps(far: Any) -> None:
    one = capture(BINARY)
    assert rejected(one, P[:2], timestamps=far) == {"timestamp_invalid": 2}
    assert rejected(one, P[:2], timestamps=[far, far]) == {"timestamp_invalid": 2}


def test_missing_segments_are_in_no_segment() -> None:
    given = {
        "list": ["DE", NAN, None],
        "masked": np.ma.masked_array(["DE", "x", "y"], mask=[False, True, True]),
        "objects": np.array(["DE", NAN, NAT], dtype=object),
    }
    one = capture(BINARY)
    assert degraded(one, P[:3], segments=given) == {}
    assert columns(one, P[:3], segments=given)[0]["segments"] == {name: ["DE", None, None] for name in given}


def test_a_lone_surrogate_is_replaced() -> None:
    names = ["ok"] * 299 + ["bad\ud800"]
    one = capture(BINARY)
    made = degraded(one, P, inputs={"a": names, "b\udfff": names}, segments={"s": names}, ids=[*range(299), "x\ud800"])
    assert made == {}
    found, schema, _ = columns(one, P, inputs={"a": names, "b\udfff": names}, segments={"s": names})
    assert found["codes"]["a"][-1] == found["segments"]["s"][-1] == "bad\ufffd"
    assert schema.features == ("a", "b\ufffd")


# --- columns --------------------------------------------------------------------------------------------------------


def test_columns_of_unusual_objects_are_categories() -> None:
    pandas = require("pandas")
    values: dict[str, list[Any]] = {
        "interval": [pandas.Interval(0, 1), pandas.Interval(1, 2)],
        "period": [pandas.Period("2024-01"), pandas.Period("2024-02")],
        "uuid": [uuid.UUID(int=1), uuid.UUID(int=2)],
        "enum": [Plain.A, None],
    }
    found, schema, _ = columns(capture(BINARY), P[:2], inputs=values)
    assert set(schema.kinds) == {"categorical"}
    assert found["codes"] == {name: [None if v is None else str(v) for v in given] for name, given in values.items()}
    typed = pandas.DataFrame({"i": pandas.cut([1, 2], 2), "p": pandas.period_range("2024-01", periods=2, freq="M")})
    assert set(columns(capture(BINARY), P[:2], inputs=typed)[1].kinds) == {"categorical"}


def test_a_column_that_cannot_be_converted_costs_only_itself() -> None:
    given = {"good": [1.0, 2.0], "odd": [object(), object()], "complex": [1j, 2j]}
    one = capture(BINARY)
    assert degraded(one, P[:2], inputs=given, labels=["no", "yes"]) == {"inputs_dtype": 2}
    found, schema, _ = columns(one, P[:2], inputs=given, labels=["no", "yes"])
    assert schema.features == ("good",)
    assert found["inputs"].tolist() == [[1.0], [2.0]]
    assert found["labels"].tolist() == [0, 1]


def test_signalling_nan_is_missing() -> None:
    found, _, _ = columns(capture(BINARY), P[:3], inputs={"d": [Decimal("1.5"), Decimal("sNaN"), Decimal("NaN")]})
    np.testing.assert_array_equal(found["inputs"], [[1.5], [NAN], [NAN]])


def test_members_of_enumerations_of_strings_are_their_values() -> None:
    one = capture(["red", "blue"])
    found, _, _ = columns(one, P[:3], inputs={"c": [Color.RED, "red", Color.BLUE]}, labels=[Color.RED, "red", "blue"])
    assert found["codes"] == {"c": ["red", "red", "blue"]}
    assert found["labels"].tolist() == [0, 0, 1]
    assert capture([Color.RED, Color.BLUE]).classes == ("red", "blue")
    assert columns(one, P[:2], segments={"s": [Color.RED, "red"]})[0]["segments"] == {"s": ["red", "red"]}


def test_a_category_dtype_is_categorical_whatever_it_holds() -> None:
    pandas, polars = require("pandas"), require("polars")
    for frame in (
        pandas.DataFrame({"a": pandas.Series([0, 1]).astype("category")}),
        polars.DataFrame({"a": ["0", "1"]}).with_columns(polars.col("a").cast(polars.Categorical)),
    ):
        found, schema, _ = columns(capture(BINARY), P[:2], inputs=frame)
        assert schema.kinds == ("categorical",)
        assert found["codes"] == {"a": ["0", "1"]}


def test_a_wrong_cell_costs_its_cell() -> None:
    one = capture(BINARY)
    columns(one, P[:1], inputs={"a": [1.0]})
    given = {"a": [1.0, "x", 3.0]}
    assert degraded(one, P[:3], inputs=given) == {"inputs_kind": 1}
    np.testing.assert_array_equal(columns(one, P[:3], inputs=given)[0]["inputs"], [[1.0], [NAN], [3.0]])


def test_names_of_columns() -> None:
    pandas = require("pandas")
    frame = pandas.DataFrame([[1.0, 2.0, 3.0, 4.0, 5.0]], columns=["", "age", NAN, "age", 7])
    found, schema, _ = columns(capture(BINARY), P[:1], inputs=frame)
    assert schema.features == ("unnamed", "age", "unnamed_2", "age_2", "7")
    assert found["inputs"].tolist() == [[1.0, 2.0, 3.0, 4.0, 5.0]]
    schema = columns(capture(BINARY), P[:1], inputs=[{0: 1.0, 1: "x", None: 2.0}])[1]
    assert schema.features == ("0", "1", "unnamed")
    assert schema.kinds == ("numeric", "categorical", "numeric")


# --- rows -----------------------------------------------------------------------------------------------------------


def test_a_nan_among_probabilities_costs_its_row() -> None:
    p = P.copy()
    p[5, 0] = NAN
    p[9, 1] = np.inf
    one = capture(BINARY)
    made = convert(one, p, ids=np.arange(300))
    assert {loss.reason: loss.rows for loss in made.rejected} == {"probabilities_nan": 2}
    assert not made.degraded
    found, _, _ = read_back(one, made)
    np.testing.assert_array_equal(found["probabilities"], np.delete(P, [5, 9], axis=0))
    np.testing.assert_array_equal(found["ids"], np.delete(np.arange(300), [5, 9]))


def test_degraded_rows_are_in_the_points() -> None:
    p = P[:3].copy()
    p[1] = NAN
    made = convert(capture(BINARY), p, labels=["no", "what", "yes"])
    assert {loss.reason: loss.rows for loss in made.rejected} == {"probabilities_nan": 1}
    assert not made.degraded, "the row with an unknown label is not in the points"


def test_rounding_is_clipped() -> None:
    p = P.copy()
    p[3] = [-1e-9, 1 + 1e-9]
    found = columns(capture(BINARY), p)[0]["probabilities"]
    assert found[3].tolist() == [0.0, 1.0]
    narrow = np.array([[1.0000001, 0.0]], dtype=np.float32)
    assert columns(capture(BINARY), narrow)[0]["probabilities"].tolist() == [[1.0, 0.0]]
    assert rejected(capture(BINARY), [[1.001, 0.0]]) == {"probabilities_range": 1}


def test_outputs_that_are_no_distribution_are_kept_and_counted() -> None:
    one = capture(BINARY)
    assert degraded(one, [[0.25, 0.25], [0.9, 1.0], [0.5, 0.5]]) == {"probabilities_sum": 2}
    detail = convert(one, [[0.25, 0.25]]).degraded[0].detail
    assert 'task="multilabel"' in detail
    assert 'output="logits"' in detail
    assert degraded(one, np.array([[0.51, 0.505]], dtype=np.float16)) == {}
    assert degraded(one, np.array([[0.51, 0.505], [0.52, 0.51]], dtype=np.float32)) == {"probabilities_sum": 1}
    assert degraded(one, [0.3, 0.9]) == {}
    assert degraded(capture(BINARY, task="multilabel"), [[0.9, 0.9]]) == {}


def test_late_labels_lose_the_row_that_is_wrong() -> None:
    from tests.support.capture import snapshot

    one = capture(BINARY)
    made = one.convert([snapshot("labels", ids=[1, 2, None, 4], labels=["no", "maybe", "yes", None])])
    assert {loss.reason: loss.rows for loss in made.rejected} == {
        "label_unknown": 1,
        "ids_invalid": 1,
        "label_missing": 1,
    }
    found, _, _ = read_back(one, made)
    assert found["ids"].tolist() == [b"1"]
    assert found["labels"].tolist() == [0]
    made = one.convert([snapshot("labels", ids=[1, 2], labels=["no"])])
    assert {loss.reason: loss.rows for loss in made.rejected} == {"length_mismatch": 2}


def test_nothing_is_remembered_of_what_was_not_accepted() -> None:
    one = capture(None)
    assert convert(one, []).rejected == []
    assert rejected(one, [[0.5, NAN]]) == {"probabilities_nan": 1}
    assert rejected(one, [[3.0, -2.0]]) == {"probabilities_range": 1}
    assert rejected(one, 0.5) == {"probabilities_shape": 1}
    assert rejected(one, [[NAN, NAN]], inputs=[{"a": "x"}]) == {"probabilities_nan": 1}
    _, schema, _ = columns(one, proba(2, 3), inputs=[{"a": 1.0}, {"a": 2.0}])
    assert schema.classes == ("class_0", "class_1", "class_2")
    assert schema.kinds == ("numeric",)
