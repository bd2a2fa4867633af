"""What publish() takes: awkward arrays come out as the same numbers, wrong arguments as one counted reason."""

from __future__ import annotations

import datetime as dt
import logging
from typing import Any

import numpy as np
import pytest

import zmon
from tests.support.capture import capture, columns, convert, degraded, proba, read_back, rejected, snapshot
from tests.support.frameworks import require
from tests.support.waiting import settled

BASE = np.arange(24, dtype=np.float64).reshape(6, 4)
AWKWARD = {
    "float64": BASE,
    "float32": BASE.astype(np.float32),
    "float16": BASE.astype(np.float16),
    "longdouble": BASE.astype(np.longdouble),
    "int8": BASE.astype(np.int8),
    "int64": BASE.astype(np.int64),
    "uint8": BASE.astype(np.uint8),
    "uint64": BASE.astype(np.uint64),
    "big-endian floats": BASE.astype(">f8"),
    "big-endian ints": BASE.astype(">i4"),
    "fortran": np.asfortranarray(BASE),
    "strided rows": np.repeat(BASE, 2, axis=0)[::2],
    "strided columns": np.repeat(BASE, 3, axis=1)[:, ::3],
    "negative strides": BASE[::-1, ::-1],
    "transposed": BASE.reshape(4, 6).T,
    "broadcast": np.broadcast_to(BASE[0], (6, 4)),
    "offset view": np.pad(BASE, 2)[2:-2, 2:-2],
    "unaligned": np.frombuffer(b"x" + BASE.tobytes(), dtype=np.uint8)[1:].view(np.float64).reshape(6, 4),
    "masked": np.ma.masked_greater(BASE, 20),
    "one column": BASE[:, :1],
    "one row": BASE[:1],
    "nan and infinities": np.where(BASE > 20, np.nan, np.where(BASE < 2, np.inf, BASE)),
    "subnormals": BASE * 5e-324,
    "list": BASE.tolist(),
    "tuple": tuple(map(tuple, BASE.tolist())),
    "one dimension": BASE[:, 0],
}


@pytest.mark.parametrize("value", AWKWARD.values(), ids=AWKWARD.keys())
def test_awkward_inputs_arrive_as_they_are(value: Any) -> None:
    expected = np.asarray(np.ma.filled(value.astype(float), np.nan) if isinstance(value, np.ma.MaskedArray) else value)
    expected = expected.reshape(len(expected), -1)
    found, _, _ = columns(capture(), proba(len(expected)), inputs=value)
    np.testing.assert_array_equal(found["inputs"].astype(np.float64), expected.astype(np.float64))


def test_read_only_array_is_taken() -> None:
    value = proba(4)
    value.flags.writeable = False
    found, _, _ = columns(capture(), value)
    np.testing.assert_array_equal(found["probabilities"], value)


def test_snapshot_is_independent_of_the_models_buffers() -> None:
    p, x = proba(4), BASE[:4].copy()
    kept, kept_x = p.copy(), x.copy()
    taken = snapshot(probabilities=p, inputs=x)
    p[:], x[:] = 0.0, -1.0
    (_, piece, _) = capture().convert([taken]).pieces[0]
    np.testing.assert_array_equal(np.frombuffer(piece.buffers[0]).reshape(4, 3), kept)
    np.testing.assert_array_equal(np.frombuffer(piece.buffers[1]).reshape(4, 4), kept_x)


def test_zero_rows_are_nothing() -> None:
    made = convert(capture(), np.empty((0, 3)), inputs=np.empty((0, 2)), labels=[], ids=[])
    assert (list(made.pieces), made.sampled_out, list(made.rejected)) == ([], 0, [])


def test_binary_takes_one_column_two_columns_and_a_keras_column() -> None:
    one = capture(["no", "yes"])
    assert columns(one, [0.1, 0.9])[0]["probabilities"].shape == (2,)
    assert columns(one, [[0.9, 0.1]])[0]["probabilities"].shape == (1, 2)
    assert columns(one, np.array([[0.1], [0.9]], dtype=np.float32))[0]["probabilities"].shape == (2,)


def test_classes_are_inferred_counted_or_named() -> None:
    assert columns(capture(None), proba(2, 4))[1].classes == ("class_0", "class_1", "class_2", "class_3")
    assert columns(capture(None), [0.2])[1].classes == ("class_0", "class_1")
    assert columns(capture(3), proba(2))[1].classes == ("class_0", "class_1", "class_2")
    assert columns(capture(np.array(["x", "y", "z"])), proba(2))[1].classes == ("x", "y", "z")
    assert columns(capture(np.array([3, 5, 7])), proba(2))[1].classes == ("3", "5", "7")


LABELS = {
    "indices": [2, 0, 1],
    "int32": np.array([2, 0, 1], dtype=np.int32),
    "floats": [2.0, 0.0, 1.0],
    "names": ["c", "a", "b"],
    "bytes": np.array([b"c", b"a", b"b"]),
    "objects": np.array(["c", "a", "b"], dtype=object),
    "indices as objects": np.array([2, 0, 1], dtype=object),
    "one-hot": np.eye(3)[[2, 0, 1]],
    "one-hot ints": np.eye(3, dtype=int)[[2, 0, 1]],
    "one-hot bools": np.eye(3, dtype=bool)[[2, 0, 1]],
    "a column": np.array([[2], [0], [1]]),
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
def test_labels_in_every_form(labels: Any) -> None:
    assert columns(capture(), proba(3), labels=labels)[0]["labels"].tolist() == [2, 0, 1]


UNLABELLED = {
    "None among names": ["c", None, "b"],
    "None among indices": [2, None, 1],
    "NaN among indices": [2.0, float("nan"), 1.0],
    "NaN among names": np.array(["c", float("nan"), "b"], dtype=object),
    "NaN among a list of names": ["c", float("nan"), "b"],
    "NaN row": np.array([[0, 0, 1.0], [np.nan] * 3, [0, 1.0, 0]]),
}


@pytest.mark.parametrize("labels", UNLABELLED.values(), ids=UNLABELLED.keys())
def test_unlabelled_rows(labels: Any) -> None:
    assert columns(capture(), proba(3), labels=labels)[0]["labels"].tolist() == [2, -1, 1]


def test_missing_labels_of_pandas() -> None:
    pandas = require("pandas")
    labels = pandas.Series([2, None, 1], dtype="Int64")
    assert columns(capture(), proba(3), labels=labels)[0]["labels"].tolist() == [2, -1, 1]


def test_names_that_are_numbers_are_matched_by_value() -> None:
    one = capture([3, 5, 7])
    for labels in ([7, 3, 5], [7.0, 3.0, 5.0], np.array([7, 3, 5], dtype=object)):
        assert columns(one, proba(3), labels=labels)[0]["labels"].tolist() == [2, 0, 1]
    assert degraded(one, proba(1), labels=[0]) == {"label_unknown": 1}


TIMES = {
    "seconds": (1_700_000_000.25, 1_700_000_000_250_000_000),
    "whole seconds": (1_700_000_000, 1_700_000_000_000_000_000),
    "naive datetime": (dt.datetime(2023, 11, 14, 22, 13, 20, 250_000), 1_700_000_000_250_000_000),
    "zoned datetime": (
        dt.datetime(2023, 11, 15, 0, 13, 20, tzinfo=dt.timezone(dt.timedelta(hours=2))),
        1_700_000_000_000_000_000,
    ),
    "datetime64": (np.datetime64("2023-11-14T22:13:20.250"), 1_700_000_000_250_000_000),
}


@pytest.mark.parametrize(("value", "expected"), TIMES.values(), ids=TIMES.keys())
def test_timestamps(value: Any, expected: int) -> None:
    assert columns(capture(), proba(2), timestamps=value)[2] == expected
    assert columns(capture(), proba(2), timestamps=[value, value])[0]["timestamps"].tolist() == [expected] * 2


def test_timestamps_of_pandas() -> None:
    pandas = require("pandas")
    times = pandas.to_datetime(["2023-11-14T22:13:20Z", "2023-11-15T00:13:20+02:00"], utc=True)
    for value in (times, times.to_series(), times.tz_localize(None)):
        assert columns(capture(), proba(2), timestamps=value)[0]["timestamps"].tolist() == [1_700_000_000 * 10**9] * 2


def test_ids() -> None:
    assert columns(capture(), proba(2), ids=[1, 2**40])[0]["ids"].tolist() == [1, 2**40]
    assert columns(capture(), proba(2), ids=["ä", "bcd"])[0]["ids"].tolist() == ["ä".encode(), b"bcd"]


def test_frames_bring_their_names() -> None:
    pandas, polars, pyarrow = require("pandas"), require("polars"), require("pyarrow")
    data = {"age": [30, None, 50], "rate": [0.5, 1.5, None], "vip": [True, False, True]}
    expected = np.array([[30, 0.5], [np.nan, 1.5], [50, np.nan]])
    frames = {
        "pandas": pandas.DataFrame(data),
        "pandas nullable": pandas.DataFrame(data).convert_dtypes(),
        "pandas arrow": pandas.DataFrame(data).convert_dtypes(dtype_backend="pyarrow"),
        "polars": polars.DataFrame(data),
        "pyarrow": pyarrow.table(data),
        "dicts": [dict(zip(data, row, strict=True)) for row in zip(*data.values(), strict=True)],
    }
    for name, frame in frames.items():
        found, schema, _ = columns(capture(), proba(3), inputs=frame)
        np.testing.assert_array_equal(found["inputs"], expected, err_msg=name)
        assert found["codes"] == {"vip": ["True", "False", "True"]}, name
        assert schema.features == ("age", "rate", "vip"), name
        assert schema.kinds == ("numeric", "numeric", "boolean"), name


def test_a_plain_frame_keeps_its_dtype() -> None:
    pandas = require("pandas")
    frame = pandas.DataFrame(BASE.astype(np.float32), columns=list("wxyz"))
    found, _, _ = columns(capture(), proba(6), inputs=frame)
    assert found["inputs"].dtype == np.float32


def test_declared_features_pick_and_order_a_frames_columns() -> None:
    pandas = require("pandas")
    frame = pandas.DataFrame({"b": [1.0], "a": [2.0], "extra": ["text"]})
    found, schema, _ = columns(capture(features=["a", "b"]), proba(1), inputs=frame)
    assert (found["inputs"].tolist(), schema.features) == ([[2.0, 1.0]], ("a", "b"))


def test_include_and_exclude() -> None:
    one = capture(
        features=["user_id", "amount_eur", "amount_usd", "age"], include=["amount_*", "age"], exclude=["*_usd"]
    )
    found, schema, _ = columns(one, proba(6), inputs=BASE)
    assert schema.features == ("amount_eur", "age")
    np.testing.assert_array_equal(found["inputs"], BASE[:, [1, 3]])


def test_a_call_without_inputs_keeps_the_schema() -> None:
    one = capture()
    with_inputs = columns(one, proba(6), inputs=BASE)[1]
    assert columns(one, proba(6))[1] == with_inputs


@pytest.mark.integration
def test_a_tensor_is_taken() -> None:
    tensorflow = require("tensorflow")
    found, _, _ = columns(capture(), tensorflow.constant(proba(4), dtype="float32"), inputs=tensorflow.ones((4, 2)))
    assert found["probabilities"].dtype == np.float32
    assert found["inputs"].tolist() == [[1.0, 1.0]] * 4


def test_regression() -> None:
    one = capture(None, task="regression")
    found, schema, _ = columns(one, predictions=[1.5, 2.0], labels=[1.0, None])
    assert schema.task == "regression"
    assert schema.classes == ()
    np.testing.assert_array_equal(found["labels"], [1.0, np.nan])


def test_labels_only_model() -> None:
    assert columns(capture(), predictions=["c", "a"])[0]["predictions"].tolist() == [2, 0]


def test_a_large_batch_travels_in_parts() -> None:
    p, x = proba(3000), np.random.default_rng(0).normal(size=(3000, 784))
    pieces = convert(capture(), p, inputs=x).pieces
    assert len(pieces) == 5
    assert max(nbytes for _, _, nbytes in pieces) <= 4 * 2**20
    assert sum(piece.rows for _, piece, _ in pieces) == 3000
    np.testing.assert_array_equal(columns(capture(), p, inputs=x)[0]["inputs"], x)


def test_sample_rate_is_a_share_of_the_rows() -> None:
    one = capture(sample_rate=0.25)
    found, _, _ = columns(one, proba(20_000), inputs=np.arange(20_000.0))
    kept = len(found["inputs"])
    assert abs(kept - 5000) < 5 * np.sqrt(20_000 * 0.25 * 0.75)
    sampled_out = convert(one, proba(20_000)).sampled_out
    assert 14_000 < sampled_out < 16_000


P = proba(2)
NAN = P.copy()
NAN[1, 1] = np.nan
REJECTED: dict[str, tuple[str, dict[str, Any]]] = {
    "nothing": ("probabilities_missing", {}),
    "None": ("probabilities_missing", {"probabilities": None}),
    "wrong width": ("probabilities_shape", {"probabilities": proba(2, 4)}),
    "one column for three classes": ("probabilities_shape", {"probabilities": [0.1, 0.2]}),
    "a scalar": ("probabilities_shape", {"probabilities": 0.5}),
    "three dimensions": ("probabilities_shape", {"probabilities": np.zeros((2, 3, 1))}),
    "strings": ("probabilities_dtype", {"probabilities": [["a", "b", "c"]]}),
    "objects": ("probabilities_dtype", {"probabilities": np.array([[{}, 1, 2]], dtype=object)}),
    "ragged": ("probabilities_dtype", {"probabilities": [[0.5, 0.5], [0.1]]}),
    "complex": ("probabilities_dtype", {"probabilities": P.astype(complex)}),
    "infinity": ("probabilities_nan", {"probabilities": P * np.inf}),
    "logits": ("probabilities_range", {"probabilities": [[-3.0, 2.0, 5.0]]}),
    "one number above 1": ("probabilities_range", {"probabilities": [[0.0, 0.0, 1.0], [0.0, 0.0, 1.01]]}),
    "predictions unknown": ("prediction_unknown", {"predictions": ["z", "z"]}),
    "predictions missing": ("predictions_nan", {"predictions": [None, None]}),
    "predictions beyond": ("prediction_index", {"predictions": [3, 4]}),
    "predictions too short": ("length_mismatch", {"probabilities": P, "predictions": [1]}),
}
DEGRADED: dict[str, tuple[str, int, dict[str, Any]]] = {
    "inputs too short": ("length_mismatch", 2, {"inputs": BASE}),
    "labels too short": ("length_mismatch", 2, {"labels": [1]}),
    "ids too long": ("length_mismatch", 2, {"ids": [1, 2, 3]}),
    "inputs of mixed kinds": ("inputs_kind", 2, {"inputs": [["a"], [1]]}),
    "inputs of dicts of mixed kinds": ("inputs_kind", 2, {"inputs": [{"a": "x"}, {"a": 2.5}]}),
    "inputs of complex numbers": ("inputs_dtype", 2, {"inputs": np.ones((2, 1), dtype=complex)}),
    "inputs of ragged rows": ("inputs_dtype", 2, {"inputs": [[1, 2], [1]]}),
    "inputs of strange objects": ("inputs_dtype", 2, {"inputs": [{"a": object()}, {"a": object()}]}),
    "a number too large": ("inputs_dtype", 1, {"inputs": [{"a": 10**400}, {"a": 1}]}),
    "inputs of three dimensions": ("inputs_shape", 2, {"inputs": np.zeros((2, 2, 2))}),
    "inputs of a single row": ("length_mismatch", 2, {"inputs": {"a": 1}}),
    "unknown label": ("label_unknown", 1, {"labels": ["a", "z"]}),
    "negative index": ("label_index", 1, {"labels": [0, -1]}),
    "index beyond": ("label_index", 1, {"labels": [0, 3]}),
    "fractional label": ("labels_dtype", 1, {"labels": [0.5, 1.0]}),
    "infinite label": ("label_index", 1, {"labels": [np.inf, 1.0]}),
    "two ones": ("label_one_hot", 1, {"labels": [[1, 1, 0], [1, 0, 0]]}),
    "no one": ("label_one_hot", 1, {"labels": [[0, 0, 0], [1, 0, 0]]}),
    "one-hot of another width": ("labels_shape", 2, {"labels": np.eye(2)}),
    "labels of lists": ("labels_shape", 2, {"labels": np.array([[], {}], dtype=object)}),
    "ids of fractions": ("ids_invalid", 2, {"ids": [1.5, 2.5]}),
    "a long id": ("ids_invalid", 1, {"ids": ["a" * 300, "b"]}),
    "segments without names": ("segments_invalid", 2, {"segments": ["de", "fr"]}),
    "segments without columns": ("segments_invalid", 2, {"segments": {}}),
    "too many segments": ("segments_invalid", 2, {"segments": {f"s{i}": [1, 2] for i in range(9)}}),
    "segments of two dimensions": ("segments_invalid", 2, {"segments": {"a": [[1, 1], [2, 2]]}}),
    "segments too short": ("length_mismatch", 2, {"segments": {"a": [1]}}),
    "too many columns": ("schema_changes", 2, {"inputs": np.zeros((2, 70_000))}),
}


@pytest.mark.parametrize(("reason", "rows", "arguments"), DEGRADED.values(), ids=DEGRADED.keys())
def test_a_part_that_cannot_be_used_is_left_out(reason: str, rows: int, arguments: dict[str, Any]) -> None:
    one = capture()
    assert degraded(one, P, **arguments) == {reason: rows}
    np.testing.assert_array_equal(columns(one, P, **arguments)[0]["probabilities"], P)


REJECTED_TIMES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "times too short": ("length_mismatch", 2, {"timestamps": [1.7e9]}),
    "milliseconds": ("timestamp_unit", 2, {"timestamps": 1.7e12}),
    "milliseconds a row": ("timestamp_unit", 2, {"timestamps": [1.7e12, 1.7e12]}),
    "beyond 2262": ("timestamp_invalid", 2, {"timestamps": 5e10}),
    "NaN time": ("timestamp_invalid", 2, {"timestamps": np.nan}),
    "negative time": ("timestamp_invalid", 2, {"timestamps": -1.0}),
    "NaT": ("timestamp_invalid", 1, {"timestamps": np.array(["NaT", "2024-01-01"], dtype="datetime64[s]")}),
    "time as text": ("timestamp_invalid", 2, {"timestamps": "yesterday"}),
    "times of two dimensions": ("timestamp_invalid", 2, {"timestamps": [[1.7e9], [1.7e9]]}),
    "NaT without a unit": ("timestamp_invalid", 2, {"timestamps": np.datetime64("NaT")}),
}


@pytest.mark.parametrize(("reason", "rows", "arguments"), REJECTED_TIMES.values(), ids=REJECTED_TIMES.keys())
def test_rows_whose_time_cannot_be_used_are_rejected_and_settle_nothing(
    reason: str, rows: int, arguments: dict[str, Any]
) -> None:
    one = capture(None)
    made = convert(one, P, inputs=[{"a": 1.0}] * 2, **arguments)
    assert {loss.reason: loss.rows for loss in made.rejected} == {reason: rows}
    assert not made.degraded
    assert one.classes == (() if rows == 2 else ("class_0", "class_1", "class_2"))


@pytest.mark.parametrize(("reason", "arguments"), REJECTED.values(), ids=REJECTED.keys())
def test_outputs_that_cannot_be_used_are_rejected(reason: str, arguments: dict[str, Any]) -> None:
    found = rejected(capture(), **{"probabilities": None, **arguments})
    assert list(found) == [reason]


def test_a_row_with_a_bad_output_is_rejected_and_the_others_are_kept() -> None:
    one = capture()
    made = convert(one, NAN, inputs=BASE[:2], labels=["a", "b"])
    assert [tuple(loss)[:2] for loss in made.rejected] == [("probabilities_nan", 1)]
    found, _, _ = read_back(one, made)
    np.testing.assert_array_equal(found["probabilities"], P[:1])
    np.testing.assert_array_equal(found["inputs"], BASE[:1])
    assert found["labels"].tolist() == [0]
    made = convert(one, predictions=["a", "z", None])
    assert {loss.reason: loss.rows for loss in made.rejected} == {"prediction_unknown": 1, "predictions_nan": 1}
    assert read_back(one, made)[0]["predictions"].tolist() == [0]


class Hostile:
    """An object that raises whatever one does to it."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise KeyError("hostile")

    def __len__(self) -> int:
        raise ZeroDivisionError

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


def test_an_argument_that_raises_costs_as_little_as_any() -> None:
    assert rejected(capture(), Hostile()) == {"probabilities_dtype": 1}
    assert degraded(capture(), P, inputs=Hostile()) == {"inputs_dtype": 2}
    assert degraded(capture(), P, labels=Hostile()) == {"labels_dtype": 2}


@pytest.mark.integration
def test_losses_are_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with zmon.Publisher("model", classes=["a", "b", "c"], collector="ipc:///nonexistent/zmon") as publisher:
        with caplog.at_level(logging.WARNING, logger="zmon"):
            for _ in range(3):
                publisher.publish(proba(7, 4))
                publisher.publish(P, labels=["a", "maybe"])
            settled(publisher)
        assert dict(publisher.stats.rejected) == {"probabilities_shape": 21}
        assert dict(publisher.stats.degraded) == {"label_unknown": 3}
        for reason in ("probabilities_shape", "label_unknown"):
            assert len([each for each in caplog.records if reason in each.getMessage()]) == 1
        publisher.close(timeout=0)
