"""Kinds of columns: inferred once from types, declared, kept; and codes with their dictionaries over the wire."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zmon
from tests.support.capture import capture, columns, convert, degraded, proba
from tests.support.frameworks import require
from zmon import categories
from zmon._wire.frames import Topic, decode, encode_batch
from zmon.batch import Batch, Schema
from zmon.errors import ConfigurationError, WireError

NAN, NAT = float("nan"), np.datetime64("NaT")
MIXED = {
    "age": [30, None, 50],
    "rate": [0.5, 1.5, None],
    "vip": [True, None, False],
    "city": ["Rome", None, "Oslo"],
    "since": [dt.datetime(2024, 1, 1), None, dt.datetime(2024, 1, 2)],
}
NUMBERS = np.array([[30, 0.5, 1704067200], [np.nan, 1.5, np.nan], [50, np.nan, 1704153600]])
CODES = {"vip": ["True", None, "False"], "city": ["Rome", None, "Oslo"]}
KINDS = ("numeric", "numeric", "boolean", "categorical", "numeric")


def mixed_tables() -> dict[str, Any]:
    pandas, polars, pyarrow = require("pandas"), require("polars"), require("pyarrow")
    rows = list(zip(*MIXED.values(), strict=True))
    masked = np.ma.masked_array(
        np.array([tuple(0 if v is None else v for v in row) for row in rows], dtype=[(name, "O") for name in MIXED]),
        mask=[tuple(v is None for v in row) for row in rows],
    )
    return {
        "pandas": pandas.DataFrame(MIXED),
        "pandas objects": pandas.DataFrame(MIXED, dtype=object),
        "pandas nullable": pandas.DataFrame(MIXED).convert_dtypes(),
        "pandas arrow": pandas.DataFrame(MIXED).convert_dtypes(dtype_backend="pyarrow"),
        "pandas categorical": pandas.DataFrame(MIXED).astype({"city": "category"}),
        "polars": polars.DataFrame(MIXED),
        "polars categorical": polars.DataFrame(MIXED).with_columns(polars.col("city").cast(polars.Categorical)),
        "pyarrow": pyarrow.table(MIXED),
        "pyarrow dictionary": pyarrow.table({**MIXED, "city": pyarrow.array(MIXED["city"]).dictionary_encode()}),
        "dicts": [dict(zip(MIXED, row, strict=True)) for row in rows],
        "dicts with gaps": [{k: v for k, v in zip(MIXED, row, strict=True) if v is not None} for row in rows],
        "structured": np.array(rows, dtype=[(name, "O") for name in MIXED]),
        "structured and masked": masked,
    }


@pytest.mark.parametrize("name", mixed_tables())
def test_mixed_tables_arrive_as_they_are(name: str) -> None:
    found, schema, _ = columns(capture(), proba(3), inputs=mixed_tables()[name])
    assert dict(zip(schema.features, schema.kinds, strict=True)) == dict(zip(MIXED, KINDS, strict=True))
    np.testing.assert_array_equal(found["inputs"], NUMBERS)
    assert found["codes"] == CODES


def test_rows_and_arrays_of_objects_take_declared_names() -> None:
    rows = list(zip(*MIXED.values(), strict=True))
    for value in (rows, [list(row) for row in rows], np.array(rows, dtype=object)):
        found, schema, _ = columns(capture(features=list(MIXED)), proba(3), inputs=value)
        assert schema.kinds == KINDS
        np.testing.assert_array_equal(found["inputs"], NUMBERS)
        assert found["codes"] == CODES


def test_a_matrix_of_truth_values_or_texts() -> None:
    found, schema, _ = columns(capture(), proba(2), inputs=np.array([[True, False], [False, False]]))
    assert schema.kinds == ("boolean", "boolean")
    assert found["codes"] == {"feat_0": ["True", "False"], "feat_1": ["False", "False"]}
    found, schema, _ = columns(capture(), proba(2), inputs=np.array([["1", "x"], ["2", ""]]))
    assert schema.kinds == ("categorical", "categorical"), "a text of digits stays a text"
    assert found["codes"] == {"feat_0": ["1", "2"], "feat_1": ["x", "(empty)"]}


def missing_values() -> dict[str, Any]:
    pandas = require("pandas")
    return {
        "None": None,
        "NaN": NAN,
        "numpy NaN": np.float32("nan"),
        "NaT": pandas.NaT,
        "NA": pandas.NA,
        "numpy NaT": NAT,
    }


@pytest.mark.parametrize("name", missing_values())
@pytest.mark.parametrize(
    ("value", "kind", "named"),
    [(1.5, "numeric", None), (2, "numeric", None), ("x", "categorical", "x"), (True, "boolean", "True"),
     (b"x", "categorical", "x"), (Decimal("1.5"), "numeric", None),
     (np.int8(3), "numeric", None), (np.bool_(False), "boolean", "False"),
     (np.str_("y"), "categorical", "y"), (dt.date(2024, 1, 1), "numeric", None),
     (dt.timedelta(seconds=3), "numeric", None)],
)  # fmt: skip
def test_missing_values_of_every_kind_among_values_of_every_kind(name: str, value: Any, kind: str, named: Any) -> None:
    given = [{"a": missing_values()[name]}, {"a": value}]
    found, schema, _ = columns(capture(), proba(2), inputs=given)
    assert schema.kinds == (kind,)
    if kind == "numeric":
        assert np.isnan(found["inputs"][:, 0]).tolist() == [True, False]
    else:
        assert found["codes"] == {"a": [None, named]}


def test_times_are_seconds() -> None:
    zone = dt.timezone(dt.timedelta(hours=2))
    given = [
        {"a": dt.datetime(1970, 1, 1, 0, 1), "b": dt.time(0, 1)},
        {"a": dt.datetime(1970, 1, 1, 2, 1, tzinfo=zone), "b": dt.time(0, 1)},
    ]
    assert columns(capture(), proba(2), inputs=given)[0]["inputs"].tolist() == [[60.0, 60.0]] * 2
    array = np.array([["1970-01-01T00:01"], ["NaT"]], dtype="datetime64[s]")
    found = columns(capture(), proba(2), inputs=array)[0]["inputs"][:, 0]
    assert found[0] == 60
    assert math.isnan(found[1])


def test_a_column_without_a_value_waits_for_its_kind() -> None:
    one = capture()
    found, schema, _ = columns(one, proba(1), inputs=[{"a": 1.0, "b": None}])
    assert schema.features == ("a",)
    found, schema, _ = columns(one, proba(1), inputs=[{"a": None, "b": "x"}])
    assert schema.features == ("a", "b")
    assert schema.kinds == ("numeric", "categorical")
    assert found["codes"] == {"b": ["x"]}
    found, again, _ = columns(one, proba(1), inputs=[{"a": None, "b": None}])
    assert again == schema
    assert found["codes"] == {"b": [None]}


CHANGES = {
    "numbers become text": ([{"a": 1}], [{"a": "1"}]),
    "text becomes numbers": ([{"a": "1"}], [{"a": 1}]),
    "text becomes truth values": ([{"a": "True"}], [{"a": True}]),
    "truth values become numbers that are neither 0 nor 1": ([{"a": True}], [{"a": 2}]),
    "text becomes lists": ([{"a": "x"}], [{"a": ["x"]}]),
    "a matrix becomes texts": (np.zeros((1, 2)), np.array([["a", "b"]])),
}


@pytest.mark.parametrize(("first", "then"), CHANGES.values(), ids=CHANGES.keys())
def test_values_of_another_kind_are_missing_and_counted(first: Any, then: Any) -> None:
    one = capture()
    assert degraded(one, proba(1), inputs=first) == {}
    assert degraded(one, proba(1), inputs=then) == {"inputs_kind": 1}
    assert degraded(one, proba(1), inputs=first) == {}


def test_numbers_0_and_1_and_truth_values_agree() -> None:
    one = capture()
    for value, name in ((True, "True"), (0, "False"), (1.0, "True"), (np.int8(0), "False")):
        found, schema, _ = columns(one, proba(1), inputs=[{"a": value}])
        assert schema.kinds == ("boolean",)
        assert found["codes"] == {"a": [name]}
    one = capture()
    for value, number in ((0, 0.0), (True, 1.0), (False, 0.0)):
        found, schema, _ = columns(one, proba(1), inputs=[{"a": value}])
        assert schema.kinds == ("numeric",)
        assert found["inputs"].tolist() == [[number]]


def test_declared_kinds_win_over_types() -> None:
    kinds = {"code": "categorical", "flag": "boolean", "bit": "numeric", "essay": "text"}
    one = capture(kinds=kinds)
    first, second = (7, 1, True, "…"), (7.0, 0.0, None, 3)
    given = [dict(zip(kinds, row, strict=True)) for row in (first, second)]
    found, schema, _ = columns(one, proba(2), inputs=given)
    assert dict(zip(schema.features, schema.kinds, strict=True)) == kinds
    assert found["codes"] == {"code": ["7", "7"], "flag": ["True", "False"]}
    np.testing.assert_array_equal(found["inputs"], [[1.0], [np.nan]])
    one = capture(features=["x", "code"], kinds={"code": "categorical"})
    found, schema, _ = columns(one, proba(2), inputs=np.array([[0.5, 3.0], [1.5, np.nan]]))
    assert found["codes"] == {"code": ["3", None]}
    assert found["inputs"].tolist() == [[0.5], [1.5]]


@pytest.mark.parametrize(("kind", "value"), [("numeric", "x"), ("boolean", 2), ("boolean", "x"), ("categorical", [1])])
def test_what_cannot_be_of_the_declared_kind_is_missing(kind: str, value: Any) -> None:
    assert degraded(capture(kinds={"a": kind}), proba(1), inputs=[{"a": value}]) == {"inputs_kind": 1}


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="ordinal"):
        zmon.Publisher("m", kinds={"a": "ordinal"})


def test_long_texts_and_vectors_are_named_and_not_captured() -> None:
    given = [{"essay": "word " * 100, "v": [1, 2], "array": np.ones(3), "x": 1}]
    found, schema, _ = columns(capture(), proba(1), inputs=given)
    assert dict(zip(schema.features, schema.kinds, strict=True)) == {
        "essay": "text",
        "v": "vector",
        "array": "vector",
        "x": "numeric",
    }
    assert found["inputs"].tolist() == [[1.0]]
    assert "codes" not in found


def test_include_and_exclude_choose_columns_of_every_kind() -> None:
    found, schema, _ = columns(capture(include=["c*", "age"], exclude=["*x"]), proba(1), inputs=[
        {"age": 1, "city": "Rome", "cx": "no", "odd": object()}])  # fmt: skip
    assert schema.features == ("age", "city")
    assert found["codes"] == {"city": ["Rome"]}


def test_segments() -> None:
    pandas = require("pandas")
    given = {"country": ["de", None, "fr"], "tier": np.array([1, 2, 1]), "plan": pandas.Series(["a", pandas.NA, "b"])}
    found, schema, _ = columns(capture(), proba(3), segments=given)
    assert schema.segments == ("country", "tier", "plan")
    assert found["segments"] == {"country": ["de", None, "fr"], "tier": ["1", "2", "1"], "plan": ["a", None, "b"]}


def test_a_large_table_travels_in_parts_with_their_own_dictionaries() -> None:
    names = [f"customer {i:030}" for i in range(150_000)]
    one = capture(kinds={"a": "categorical"})
    given = [{"a": name} for name in names]
    pieces = convert(one, proba(150_000), inputs=given).pieces
    assert len(pieces) > 1
    assert max(nbytes for _, _, nbytes in pieces) <= 4 * 2**20
    assert columns(one, proba(150_000), inputs=given)[0]["codes"]["a"] == names


ANY = st.one_of(
    st.none(), st.just(NAN), st.just(NAT), st.floats(), st.integers(), st.booleans(), st.text(max_size=5),
    st.binary(max_size=3), st.dates(), st.decimals(), st.lists(st.integers(), max_size=2), st.complex_numbers(),
)  # fmt: skip


@settings(max_examples=200)
@given(st.lists(st.dictionaries(st.sampled_from("abc"), ANY), min_size=1, max_size=6))
def test_whatever_is_in_a_table_it_is_captured_or_counted_for_a_reason(rows: list[dict[str, Any]]) -> None:
    assert degraded(capture(), proba(len(rows)), inputs=rows).keys() <= {
        "inputs_kind",
        "inputs_dtype",
        "inputs_columns",
    }
    found, schema, _ = columns(capture(), proba(len(rows)), inputs=rows)
    for name, kind in zip(schema.features, schema.kinds, strict=True):
        if kind in ("categorical", "boolean"):
            assert len(found["codes"][name]) == len(rows)
    assert found.get("inputs", np.empty((0, len(schema.numeric)))).shape[1] == len(schema.numeric)


# --- the codec ----------------------------------------------------------------------------------------------------

NAMES = st.lists(st.text(min_size=1, max_size=4), unique=True, max_size=6).map(tuple)


@st.composite
def parts(draw: Any) -> list[tuple[np.ndarray, tuple[tuple[str, ...], ...]]]:
    width = draw(st.integers(1, 3))
    found = []
    for _ in range(draw(st.integers(1, 4))):
        names = tuple(draw(NAMES) for _ in range(width))
        rows = draw(st.integers(1, 5))
        codes = [[draw(st.integers(-1, len(each) - 1)) for each in names] for _ in range(rows)]
        found.append((np.array(codes, dtype=np.int8), names))
    return found


def named(codes: np.ndarray, names: tuple[tuple[str, ...], ...]) -> list[list[str | None]]:
    return [[names[i][c] if c >= 0 else None for i, c in enumerate(row)] for row in codes.tolist()]


@given(parts())
def test_blobs_behind_each_other_are_one(pieces: list[Any]) -> None:
    blob = b"".join(categories.encode(len(codes), names) for codes, names in pieces)
    expected = [row for codes, names in pieces for row in named(codes, names)]
    codes = np.concatenate([codes for codes, _ in pieces])
    assert named(*categories.decode(codes, blob)) == expected
    assert named(*categories.join(pieces)) == expected
    assert named(*categories.compact(*categories.join(pieces))) == expected


@settings(max_examples=300)
@given(parts(), st.data())
def test_damaged_blobs_give_one_typed_error_or_rows(pieces: list[Any], data: st.DataObject) -> None:
    blob = bytearray(b"".join(categories.encode(len(codes), names) for codes, names in pieces))
    for _ in range(data.draw(st.integers(1, 4))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    codes = np.concatenate([codes for codes, _ in pieces])
    for damaged in (
        bytes(blob),
        bytes(blob[: data.draw(st.integers(0, len(blob)))]),
        data.draw(st.binary(max_size=40)),
    ):
        try:
            found, names = categories.decode(codes, damaged)
        except WireError as error:
            assert error.reason == "categories"
            continue
        assert len(named(found, names)) == len(codes)


@pytest.mark.parametrize(
    ("arrays", "buffers"),
    [
        ([["codes", "|i1", [2, 1]]], [b"\0\0"]),
        ([["codes", "|i1", [2, 1]], ["categories", "|u1", [2]]], [b"\0\1", categories.encode(2, (("a",),))]),
        ([["codes", "|i1", [2, 1]], ["categories", "|u1", [2]]], [b"\0\0", categories.encode(2, (("a",), ("b",)))]),
        ([["codes", "|i1", [2, 1]], ["categories", "|u1", [2]]], [b"\0\0", categories.encode(3, (("a",),))]),
        ([["codes", "|i1", [2, 1]], ["categories", "|u1", [2]]], [b"\0\0", categories.encode(2, (("a", "a"),))]),
        ([["codes", "|i1", [2, 1]], ["categories", "|u1", [2]]], [b"\0\0", categories.encode(2, (("",),))]),
        ([["segments", "|i1", [2, 1]], ["categories", "|u1", [2]]], [b"\0\0", categories.encode(2, (("a",),))]),
    ],
)
def test_a_message_whose_codes_have_no_names(arrays: Any, buffers: list[bytes]) -> None:
    topic = Topic("m", "", "a").encode()
    frames = encode_batch(
        topic, stream=b"s" * 16, schema=b"h" * 8, first=1, rows=2, base=1, ts=0, arrays=arrays, buffers=buffers
    )
    with pytest.raises(WireError) as error:
        decode(frames)
    assert error.value.reason == "categories"


def test_batches_keep_their_names_when_they_are_cut_aligned_and_changed() -> None:
    schema = Schema(features=("x", "a", "b"), kinds=("numeric", "categorical", "boolean"), segments=("s",))
    batch = Batch(
        schema,
        {
            "inputs": np.arange(3.0)[:, None],
            "codes": np.array([[0, 1], [1, -1], [0, 0]]),
            "segments": np.zeros((3, 1), int),
        },
        dictionaries={"codes": (("p", "q"), ("False", "True")), "segments": (("z",),)},
    )
    kinds = ("boolean", "categorical", "numeric", "categorical", "numeric")
    wider = Schema(features=("b", "new", "y", "a", "x"), kinds=kinds, segments=("t", "s"))
    moved = batch.take(np.array([2, 1])).aligned(wider)
    assert named(moved.codes, moved.categories) == [["False", None, "p"], [None, None, "q"]]
    assert named(moved.segments, moved.dictionaries["segments"]) == [[None, "z"], [None, "z"]]
    np.testing.assert_array_equal(moved.inputs, [[np.nan, 2.0], [np.nan, 1.0]])
    numbers = Batch(Schema(features=("x",), kinds=("numeric",)), {"inputs": np.arange(2.0)[:, None]}).aligned(wider)
    assert named(numbers.codes, numbers.categories) == [[None] * 3] * 2, "what the batch lacks is missing"
    assert moved.having(ids=np.arange(2)).categories == moved.categories
    with pytest.raises(ValueError, match="dictionaries"):
        Batch(schema, {"codes": np.zeros((1, 2), int)})
