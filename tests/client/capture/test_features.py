"""One set of columns a publisher: it grows, its order means nothing, and what a name or kind does not fit is said."""

from __future__ import annotations

import datetime as dt
import logging
from hashlib import blake2b
from typing import Any

import numpy as np
import pytest

from tests.support.capture import capture, columns, convert, degraded, proba, snapshot
from tests.support.frameworks import require
from zmon._capture import kinds as kinds_module
from zmon._capture.kinds import MOST_TYPES, kind_of_type
from zmon.errors import ConfigurationError

NAN = float("nan")
P = proba(400, 2)
BINARY = ["no", "yes"]


def test_optional_keys_are_missing_values() -> None:
    random = np.random.default_rng(0)
    one, optional = capture(BINARY), [f"k{i}" for i in range(8)]
    for i in range(300):
        row = {"a": float(i), **{key: float(i) for key in optional if random.random() < 0.5}}
        assert degraded(one, P[:1], inputs=[row]) == {}
    found, schema, _ = columns(one, P[:1], inputs=[{"k3": 1.0}])
    assert sorted(schema.features) == ["a", *optional]
    assert np.nansum(found["inputs"]) == 1.0
    assert found["inputs"][0, schema.features.index("k3")] == 1.0


def test_the_order_of_columns_means_nothing() -> None:
    pandas = require("pandas")
    random, names = np.random.default_rng(0), [f"c{i}" for i in range(6)]
    one = capture(BINARY)
    frame = pandas.DataFrame(np.arange(12.0).reshape(2, 6), columns=names)
    first = columns(one, P[:2], inputs=frame)
    for _ in range(100):
        shuffled = frame[list(random.permutation(names))]
        found, schema, _ = columns(one, P[:2], inputs=shuffled)
        assert schema == first[1]
        np.testing.assert_array_equal(found["inputs"], first[0]["inputs"])
    assert len(one.schemas) == 1


def test_columns_beyond_the_limit_are_left_out_and_the_outputs_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zmon._capture.schema_book.SCHEMA_LIMIT", 3)
    one = capture(BINARY)
    for i in range(3):
        assert degraded(one, P[:1], inputs={f"k{i}": 1.0}) == {}
    assert degraded(one, P[:1], inputs={"k9": 1.0, "k0": 2.0}) == {"schema_changes": 1}
    found, schema, _ = columns(one, P[:1], inputs={"k9": 1.0, "k0": 2.0}, segments={"late": ["x"]})
    assert schema.features == ("k0", "k1", "k2")
    assert schema.segments == ()
    np.testing.assert_array_equal(found["inputs"], [[2.0, NAN, NAN]])
    assert len(one.schemas) == 3


def test_declared_features_of_a_frame_that_lacks_one() -> None:
    one = capture(BINARY, features=["a", "b"])
    columns(one, P[:1], inputs={"a": [1.0], "b": [2.0]})
    assert degraded(one, P[:1], inputs={"b": [3.0]}) == {"inputs_columns": 1}
    np.testing.assert_array_equal(columns(one, P[:1], inputs={"b": [3.0]})[0]["inputs"], [[NAN, 3.0]])
    assert degraded(one, P[:1], inputs=[{"b": 3.0}]) == {}, "a dict may lack a key"
    assert degraded(one, P[:1], inputs=np.ones((1, 3))) == {"inputs_shape": 1}


# --- times ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["Y", "M", "D", "h", "m", "s", "ms", "us"])
def test_times_far_away_are_their_seconds_in_every_unit(unit: str) -> None:
    far = dt.datetime(9999, 1, 1)
    seconds = far.replace(tzinfo=dt.UTC).timestamp()
    array = np.array([far, "NaT", "1970-01-01"], dtype=f"datetime64[{unit}]")
    found = columns(capture(BINARY), P[:3], inputs={"t": array})[0]["inputs"][:, 0]
    np.testing.assert_array_equal(found, [seconds, NAN, 0.0])


def test_times_far_away_in_every_container() -> None:
    pandas, polars, pyarrow = require("pandas"), require("polars"), require("pyarrow")
    far, span = dt.datetime(9999, 12, 31), dt.timedelta(days=999_999)
    seconds = far.replace(tzinfo=dt.UTC).timestamp()
    typed = {"t": np.array([far], "datetime64[s]"), "d": np.array([span], "timedelta64[s]")}
    containers: dict[str, Any] = {
        "dict": [{"t": far, "d": span}],
        "pandas": pandas.DataFrame(typed),
        "pandas objects": pandas.DataFrame({"t": [far], "d": [span]}, dtype=object),
        "pandas zone": pandas.DataFrame({"t": pandas.Series(typed["t"]).dt.tz_localize("UTC"), "d": typed["d"]}),
        "polars": polars.DataFrame({"t": [far], "d": [span]}),
        "arrow": pyarrow.table({"t": pyarrow.array([far], pyarrow.timestamp("us")), "d": pyarrow.array([span])}),
        "structured": np.array([(far, span)], dtype=[("t", "datetime64[ms]"), ("d", "timedelta64[ms]")]),
    }
    for name, inputs in containers.items():
        found = columns(capture(BINARY), P[:1], inputs=inputs)[0]["inputs"]
        assert found.tolist() == [[seconds, span.total_seconds()]], name


def test_the_mean_of_times_that_do_not_fit_nanoseconds() -> None:
    column = np.full(400, np.datetime64("2020-01-01", "s"))
    column[:10] = np.datetime64("9999-12-31", "s")
    found = columns(capture(BINARY), P, inputs={"t": column})[0]["inputs"]
    assert found.mean() == pytest.approx((390 * 1577836800 + 10 * 253402214400) / 400)


def test_naive_local_times_are_said_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    import time

    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        one = capture(BINARY)
        now = dt.datetime(2024, 1, 15, 12, tzinfo=dt.UTC)
        stamp = int(now.timestamp()) * 10**9
        local = (now - dt.timedelta(hours=5)).replace(tzinfo=None)
        with caplog.at_level(logging.WARNING, logger="zmon"):
            for times in (now, [now], now.replace(tzinfo=None), stamp / 1e9, dt.datetime(2023, 1, 1)):
                one.convert([snapshot(now=stamp, probabilities=P[:1], timestamps=times)])
            assert not caplog.records
            for _ in range(2):
                one.convert([snapshot(now=stamp, probabilities=P[:1], timestamps=[local])])
                one.convert([snapshot(now=stamp, probabilities=P[:1], timestamps=local)])
            assert len(caplog.records) == 1
    finally:
        monkeypatch.undo()
        time.tzset()


# --- what is declared -----------------------------------------------------------------------------------------------


def said(caplog: pytest.LogCaptureFixture, **options: Any) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="zmon"):
        one = capture(BINARY, **options)
        for _ in range(2):
            one.convert([snapshot(probabilities=P[:1], inputs={"amount": 1.0, "f[0]": 2.0, "0": 3.0})])
    return [record.getMessage() for record in caplog.records]


def test_declarations_that_fit_no_column_are_said_once_with_the_nearest(caplog: pytest.LogCaptureFixture) -> None:
    for argument in ({"kinds": {"amuont": "numeric"}}, {"exclude": ["amuont"]}, {"include": ["amuont", "*0*"]}):
        (line,) = said(caplog, **argument)
        assert "'amuont'" in line
        assert "'amount'" in line
    (line,) = said(caplog, exclude=["f[0]"])
    assert "[[]" in line
    assert said(caplog, exclude=["f[[]0]"], include=["*"], kinds={0: "categorical"}) == []


def test_brackets_are_escaped_and_integers_are_names() -> None:
    given = {"amount": [1.0], "f[0]": [2.0], 0: [3.0]}
    one = capture(BINARY, exclude=["f[[]0]"], kinds={0: "categorical"})
    found, schema, _ = columns(one, P[:1], inputs=given)
    assert dict(zip(schema.features, schema.kinds, strict=True)) == {"amount": "numeric", "0": "categorical"}
    assert found["codes"] == {"0": ["3"]}
    _, schema, _ = columns(capture(BINARY, kinds={0: "categorical"}), P[:1], inputs=[[7, 8]])
    assert schema.kinds == ("categorical", "numeric")


def test_columns_that_are_left_out_are_not_read() -> None:
    class Untouchable:
        def __eq__(self, other: object) -> bool:
            raise AssertionError("read")

        __hash__ = None  # type: ignore[assignment]

    given = {"v1": [1.0], "v2": [2.0], "secret": [Untouchable()]}
    for options in ({"include": ["v*"]}, {"exclude": ["secret"]}):
        assert degraded(capture(BINARY, **options), P[:1], inputs=given) == {}
        assert columns(capture(BINARY, **options), P[:1], inputs=given)[1].features == ("v1", "v2")


def test_ids_as_inputs_are_sent_as_hashes_and_lengths() -> None:
    one = capture(BINARY, kinds={"customer": "id", "order": "id"})
    given = {"customer": ["c1", None, "", "c1"], "x": [1.0, 2.0, 3.0, 4.0], "order": [1001, 1002, NAN, 7]}
    found, schema, _ = columns(one, P[:4], inputs=given)
    assert schema.kinds == ("categorical", "numeric", "categorical")
    assert schema.hashed == ("customer", "order")
    codes = {"customer": ["__other__", None, "__other__", "__other__"]}
    assert found["codes"] == {**codes, "order": ["__other__", "__other__", None, "__other__"]}
    assert found["lengths"].tolist() == [[2, 4], [-1, 4], [0, -1], [2, 1]]
    hashes = found["hashes"]
    assert hashes[0, 0] == hashes[3, 0] != hashes[2, 0]
    assert hashes[:, 1].tolist() == [hash_of("1001"), hash_of("1002"), 0, hash_of("7")], (
        "an id is a name, as in a string"
    )
    found, _, _ = columns(one, P[:1], inputs=[{"order": 5}])
    assert found["lengths"].tolist() == [[-1, 1]], "a missing column is missing"
    with pytest.raises(ConfigurationError, match="ordinal"):
        capture(kinds={"a": "ordinal"})


def hash_of(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")


def test_texts_and_vectors_are_sent_where_that_is_declared() -> None:
    given = {"essay": ["long " * 100, None], "e": [[1.0, 2.0], np.array([3, 4])], "other": [[1], [2]]}
    found, schema, _ = columns(capture(BINARY, kinds={"essay": "text", "e": "vector"}), P[:2], inputs=given)
    assert schema.kinds == ("text", "vector", "vector")
    assert found["texts"]["essay"][1] is None
    assert found["texts"]["essay"][0].startswith("long long")
    assert found["vector:0"].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert "vector:1" not in found


def test_a_vector_has_one_width() -> None:
    one = capture(BINARY, kinds={"e": "vector"})
    assert degraded(one, P[:1], inputs=[{"e": [1.0, 2.0]}]) == {}
    given = [{"e": [3.0, 4.0]}, {"e": [5.0]}, {"e": None}, {"e": "x"}]
    assert degraded(one, P[:4], inputs=given) == {"inputs_kind": 2}
    found = columns(one, P[:4], inputs=given)[0]["vector:0"]
    np.testing.assert_array_equal(found, [[3.0, 4.0], [NAN] * 2, [NAN] * 2, [NAN] * 2])


def test_near_unique_strings_lose_their_names(caplog: pytest.LogCaptureFixture) -> None:
    one, p = capture(BINARY), proba(600, 2)
    with caplog.at_level(logging.WARNING, logger="zmon"):
        for start in range(0, 3000, 600):
            names = [f"c{start + i}" for i in range(599)]
            found, schema, _ = columns(one, p, inputs={"customer": [*names, None], "city": ["Rome", "Oslo"] * 300})
            assert (schema.kinds, schema.hashed) == (("categorical",) * 2, ("customer",))
            assert found["codes"]["customer"] == ["__other__"] * 599 + [None], "in the first batch, too"
            assert found["hashes"][:, 0].tolist() == [*map(hash_of, names), 0]
            assert found["codes"]["city"] == ["Rome", "Oslo"] * 300
    assert len(caplog.records) == 1
    assert "'customer'" in caplog.text
    declared = capture(BINARY, kinds={"customer": "categorical"})
    many = [f"c{i}" for i in range(2000)]
    found, schema, _ = columns(declared, proba(2000, 2), inputs={"customer": many})
    assert (found["codes"]["customer"], schema.hashed) == (many, ())


def test_ids_in_single_rows_are_found_after_a_hundred() -> None:
    one = capture(BINARY)
    for i in range(130):
        found, schema, _ = columns(one, P[:1], inputs=[{"customer": f"c{i}"}])
        assert (schema.hashed == ("customer",)) == (i >= 99)
        assert found["codes"]["customer"] == ["__other__" if i >= 99 else f"c{i}"]


@pytest.mark.parametrize("batch", [1, 20, 200, 5000])
@pytest.mark.parametrize("number", [2, 150, 700])
def test_categories_are_not_taken_for_ids(number: int, batch: int) -> None:
    """Cities drawn at random: 150 of them in a first batch of 200 rows, and others."""
    for seed in range(5):
        one, random = capture(BINARY), np.random.default_rng(seed)
        for _ in range(min(30, max(2, 5000 // batch))):
            cities = [f"city {k}" for k in random.integers(0, number, batch)]
            found, schema, _ = columns(one, proba(batch, 2), inputs={"city": cities})
            assert schema.hashed == ()
            assert found["codes"]["city"] == cities


def test_categories_that_come_once_each_in_a_batch_are_found_later(caplog: pytest.LogCaptureFixture) -> None:
    one, shops = capture(BINARY), [f"shop {i}" for i in range(150)]
    with caplog.at_level(logging.WARNING, logger="zmon"):
        for day in range(4):
            found, schema, _ = columns(one, proba(150, 2), inputs={"shop": shops})
            assert schema.hashed == (("shop",) if day == 0 else ())
            assert found["codes"]["shop"] == (shops if day else ["__other__"] * 150)
            assert ("lengths" in found) == (day == 0)
    assert [("repeated" in record.message, "'shop'" in record.message) for record in caplog.records] == [
        (False, True),
        (True, True),
    ]


def test_missing_values_do_not_hide_ids() -> None:
    sparse = [f"c{i}" if i % 10 == 0 else None for i in range(2000)]
    assert columns(capture(BINARY), proba(2000, 2), inputs={"customer": sparse})[1].hashed == ("customer",)


def test_categories_of_a_frame_are_no_ids() -> None:
    pandas = require("pandas")
    frame = pandas.DataFrame({"zip": pandas.Series([str(i) for i in range(300)], dtype="category")})
    assert columns(capture(BINARY), proba(300, 2), inputs=frame)[1].hashed == ()


# --- forms ------------------------------------------------------------------------------------------------------------


def test_sparse_matrices_are_numeric_columns() -> None:
    sparse = require("scipy.sparse")
    dense = np.array([[0.0, 1.0], [2.0, 0.0]])
    for make in (sparse.csr_matrix, sparse.csc_array, sparse.coo_matrix):
        assert columns(capture(BINARY), P[:2], inputs=make(dense))[0]["inputs"].tolist() == dense.tolist()
    wide = sparse.csr_matrix((2, 100_000))
    assert degraded(capture(BINARY), P[:2], inputs=wide) == {"inputs_columns": 2}


def test_dicts_of_columns() -> None:
    pandas, polars = require("pandas"), require("polars")
    given = {"a": [1, 2], "b": np.array([3.5, NAN]), "c": pandas.Series(["x", None]), "d": polars.Series([True, None])}
    found, schema, _ = columns(capture(BINARY), P[:2], inputs=given)
    assert schema.kinds == ("numeric", "numeric", "categorical", "boolean")
    np.testing.assert_array_equal(found["inputs"], [[1.0, 3.5], [2.0, NAN]])
    assert found["codes"] == {"c": ["x", None], "d": ["True", None]}
    assert degraded(capture(BINARY), P[:2], inputs={"a": [1, 2], "b": [1]}) == {"length_mismatch": 2}
    found, schema, _ = columns(capture(BINARY), P[:1], inputs={"a": 1, "b": "x", "v": [1, 2, 3]})
    assert schema.kinds == ("numeric", "categorical", "vector"), "the values of one row"


def test_a_series_is_one_column_of_its_type() -> None:
    pandas, polars = require("pandas"), require("polars")
    forms: list[tuple[Any, str]] = [
        (pandas.Series([0, 1]).astype("category"), "categorical"),
        (pandas.Series([0.5, 1.5]), "numeric"),
        (polars.Series(["0", "1"]), "categorical"),
        (["DE", NAN], "categorical"),
        ([True, None], "boolean"),
    ]
    for inputs, kind in forms:
        schema = columns(capture(BINARY), P[:2], inputs=inputs)[1]
        assert (schema.features, schema.kinds) == (("feat_0",), (kind,))
    assert columns(capture(BINARY), P[:2], inputs=["DE", NAN])[0]["codes"] == {"feat_0": ["DE", None]}


def test_a_row_of_a_structured_array() -> None:
    row = np.array([(1.5, "x")], dtype=[("a", float), ("b", "U1")])[0]
    assert columns(capture(BINARY), P[:1], inputs=row)[1].kinds == ("numeric", "categorical")


def test_small_integers_in_arrays_of_objects() -> None:
    found, schema, _ = columns(capture(BINARY), P[:2], inputs=np.array([[1, "x"], [2, "y"]], dtype=object))
    assert schema.kinds == ("numeric", "categorical")
    assert found["inputs"].tolist() == [[1.0], [2.0]]


# --- bounds ---------------------------------------------------------------------------------------------------------


def test_the_memory_of_types_is_bounded() -> None:
    for i in range(2 * MOST_TYPES):
        kind_of_type(type(f"Type{i}", (float,), {}))
    assert len(kinds_module._kinds) <= MOST_TYPES


def test_a_wide_table_pauses_between_columns() -> None:
    pauses: list[int] = []
    one = capture(BINARY, pause=lambda: pauses.append(1))
    names = [f"c{i}" for i in range(5000)]
    rows = [dict.fromkeys(names, "x") | dict.fromkeys(names[::2], 1.0) for _ in range(32)]
    convert(one, P[:32], inputs=rows)
    assert len(pauses) >= 3


def test_segments_are_a_set_that_grows() -> None:
    one = capture(BINARY)
    assert columns(one, P[:1], segments={"a": ["x"]})[0]["segments"] == {"a": ["x"]}
    assert columns(one, P[:1], segments={"b": ["y"]})[0]["segments"] == {"a": [None], "b": ["y"]}
    assert columns(one, P[:1], segments={"b": ["y"], "a": "z"})[0]["segments"] == {"a": ["z"], "b": ["y"]}
    assert "segments" not in columns(one, P[:1])[0]
