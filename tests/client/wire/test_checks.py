"""What the shared checks accept, `encode_batch` writes and a collector reads; a refusal has its reason and detail."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from zmon_collector.ingest import validation

from zmon import categories
from zmon._wire import checks
from zmon._wire import frames as wire
from zmon.batch import KINDS, Array, Schema
from zmon.errors import WireError

TOPIC = wire.Topic("fraud", "2", "pod-1").encode()
STREAM = bytes(range(16))
BINARY = Schema(classes=("no", "yes"))
TERNARY = Schema(classes=("a", "b", "c"))
MULTI = Schema("multilabel", ("cat", "dog", "bird"))
P = np.array([[0.9, 0.1], [0.2, 0.8]])
P3 = np.array([[0.9, 0.1, 0.7], [0.0, 1.0, 0.3]])


def sent(columns: dict[str, Array], schema: Schema, kind: str = "batch") -> wire.Message:
    """The columns as a collector decodes them."""
    rows = len(next(iter(columns.values())))
    arrays = [(name, column.dtype.str, column.shape) for name, column in columns.items()]
    for name, dtype, shape in arrays:
        checks.check_array(name, dtype, shape, rows)
    buffers = [np.ascontiguousarray(column).tobytes() for column in columns.values()]
    for blob, name in wire.BLOBS.items():
        if name in columns:
            names = tuple(tuple(map(str, range(100))) for _ in range(columns[name].shape[1]))
            arrays.append((blob, "|u1", (1,)))
            buffers.append(categories.encode(rows, names))
    frames = wire.encode_batch(
        TOPIC, stream=STREAM, schema=wire.schema_hash(wire.encode_schema(schema)), first=1, rows=rows, base=1, ts=1,
        arrays=arrays, buffers=buffers, kind=kind,
    )  # fmt: skip
    return wire.decode([bytes(frame) for frame in frames])


# --- schemas --------------------------------------------------------------------------------------------------------

texts = st.text(max_size=6) | st.sampled_from(["", "a", "b" * 1024, "b" * 1025])
any_schema = st.builds(
    lambda task, classes, columns, threshold, tags, segments, hashed: Schema(
        task,
        tuple(classes),
        tuple(c for c, _ in columns),
        tuple(k for _, k in columns),
        threshold,
        tags,
        tuple(segments),
        tuple(name for (name, _), chosen in zip(columns, hashed, strict=False) if chosen),
    ),
    st.sampled_from(["classification", "regression", "multilabel", "ranking"]),
    st.lists(texts, max_size=4),
    st.lists(st.tuples(texts, st.sampled_from([*KINDS, "tensor"])), max_size=4),
    st.floats(-0.5, 1.5) | st.just(float("nan")),
    st.dictionaries(texts, texts, max_size=2),
    st.lists(texts, max_size=2),
    st.lists(st.booleans(), max_size=2),
)


@given(any_schema)
def test_a_schema_is_accepted_on_both_sides_or_on_none(schema: Schema) -> None:
    try:
        body = wire.encode_schema(schema)
    except UnicodeEncodeError:  # a lone surrogate: the publisher replaces it before
        return
    try:
        checks.check_schema(schema)
    except WireError as refused:
        with pytest.raises(WireError) as error:
            wire.decode_schema(body, wire.schema_hash(body))
        assert str(error.value) == str(refused)
    else:
        assert wire.decode_schema(body, wire.schema_hash(body)) == schema


WRONG_SCHEMAS = {
    "an unknown task": (Schema("ranking"), "ranking"),
    "one class": (Schema(classes=("a",)), "1 classes"),
    "classes of a regression": (Schema("regression", ("a", "b")), "2 classes"),
    "no class": (Schema("multilabel"), "0 classes"),
    "a nameless column": (Schema("regression", (), ("a", ""), ("numeric", "numeric")), "features[1] has 0 characters"),
    "a long name": (Schema(classes=("a", "b" * 1025)), "classes[1] has 1025 characters"),
    "a column twice": (Schema("regression", (), ("x", "x"), ("numeric", "numeric")), "features repeat the name 'x'"),
    "an unknown kind": (Schema("regression", (), ("x",), ("tensor",)), "tensor"),
    "a threshold": (Schema(classes=("a", "b"), threshold=1.5), "1.5"),
    "many tags": (Schema(classes=("a", "b"), tags={str(i): "x" for i in range(65)}), "65 tags"),
    "an empty tag": (Schema(classes=("a", "b"), tags={"zone": ""}), "zone"),
    "hashes of a number": (Schema("regression", (), ("x",), ("numeric",), hashed=("x",)), "hashed names 'x'"),
    "hashes of booleans": (Schema("regression", (), ("x",), ("boolean",), hashed=("x",)), "hashed names 'x'"),
    "hashes of no column": (Schema(classes=("a", "b"), hashed=("x",)), "hashed names 'x'"),
    "a hashed column twice": (
        Schema("regression", (), ("x",), ("categorical",), hashed=("x", "x")),
        "hashed repeat the name 'x'",
    ),
    "a segment twice": (Schema(classes=("a", "b"), segments=("s", "s")), "segments repeat the name 's'"),
}


@pytest.mark.parametrize(("schema", "what"), WRONG_SCHEMAS.values(), ids=WRONG_SCHEMAS.keys())
def test_a_refused_schema_is_named(schema: Schema, what: str) -> None:
    with pytest.raises(WireError) as error:
        checks.check_schema(schema)
    assert what in error.value.detail


def test_the_classes_of_a_multilabel_model() -> None:
    checks.check_schema(MULTI)
    checks.check_schema(Schema("multilabel", ("only",)))


# --- columns --------------------------------------------------------------------------------------------------------

SCHEMAS = (
    BINARY,
    TERNARY,
    MULTI,
    Schema("regression"),
    Schema("regression", (), ("x", "y", "c", "t"), ("numeric", "numeric", "categorical", "text"), 0.5, {}, ("s",)),
    Schema("regression", (), ("c",), ("categorical",), hashed=("c",)),
)
floats = st.floats(-0.1, 1.1) | st.floats(-2e-6, 2e-6) | st.floats(1 - 2e-6, 1 + 2e-6)


@st.composite
def any_columns(draw: st.DrawFn, kind: str) -> tuple[dict[str, Array], Schema]:
    """Columns that nearly fit a schema, or fit it."""
    schema = draw(st.sampled_from(SCHEMAS))
    rows = draw(st.integers(1, 3))
    float_types = st.sampled_from([np.float16, np.float32, np.float64]).map(np.dtype)
    int_types = st.sampled_from([np.int8, np.int32, np.int64]).map(np.dtype)
    width = draw(st.sampled_from([len(schema.classes) or 2] * 3 + [1, 3]))

    def numbers(shape: Any, values: Any, dtypes: Any) -> Array:
        dtype = draw(dtypes)
        return np.array(draw(hnp.arrays(np.float64, shape, elements=values))).astype(dtype)

    matrix, column = (rows, width), (rows,)
    whole = st.integers(-2, 4).map(float)
    choices: dict[str, Any] = {
        "probabilities": lambda: numbers(draw(st.sampled_from([matrix, matrix, column])), floats, float_types),
        "predictions": lambda: numbers(column, whole, st.one_of(int_types, float_types)),
        "labels": lambda: numbers(draw(st.sampled_from([matrix, column])), whole, st.one_of(int_types, float_types)),
        "inputs": lambda: numbers((rows, draw(st.sampled_from([2, 2, 1]))), floats, float_types),
        "codes": lambda: numbers((rows, 1), whole.map(lambda x: max(x, -1.0)), int_types),
        "segments": lambda: numbers((rows, 1), whole.map(lambda x: max(x, -1.0)), int_types),
        "hashes": lambda: np.ones((rows, draw(st.sampled_from([1, 1, 2]))), np.uint64),
        "lengths": lambda: numbers((rows, draw(st.sampled_from([1, 1, 2]))), whole, int_types),
        "timestamps": lambda: numbers(column, whole, st.just(np.dtype(np.int64))),
        "ids": lambda: np.array([b"a"] * rows),
    }
    names = draw(st.sets(st.sampled_from(sorted(choices)), min_size=1))
    if kind == "labels":
        names = {*names & {"timestamps"}, "ids", "labels"}
    return {name: choices[name]() for name in sorted(names)}, schema


@given(any_columns("batch"))
def test_columns_are_accepted_on_both_sides_or_on_none(case: tuple[dict[str, Array], Schema]) -> None:
    columns, schema = case
    try:
        checked = dict(checks.check_columns(columns, schema))
    except WireError as refused:
        assert refused.reason
        assert refused.detail
        return
    batch = validation.check_batch(sent(checked, schema), schema)
    assert batch.rows == len(next(iter(columns.values())))
    if "probabilities" in columns:
        assert batch.probabilities.min() >= 0
        assert batch.probabilities.max() <= 1
        np.testing.assert_allclose(batch.probabilities[:, -1], columns["probabilities"].reshape(batch.rows, -1)[:, -1],
                                   rtol=0, atol=2e-4)  # fmt: skip


@given(any_columns("labels"))
def test_labels_are_accepted_on_both_sides_or_on_none(case: tuple[dict[str, Array], Schema]) -> None:
    columns, schema = case
    try:
        checks.check_labels(columns, schema)
    except WireError as refused:
        assert refused.detail
        return
    _, labels = validation.check_labels(sent(columns, schema, "labels"), schema)
    np.testing.assert_array_equal(labels, columns["labels"])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_is_clipped(dtype: Any) -> None:
    p = np.array([[-9e-7, 1 + 9e-7], [0.5, 0.5]], dtype)
    given_p = p.copy()
    clipped = checks.check_columns({"probabilities": p}, BINARY)["probabilities"]
    assert clipped.tolist() == [[0.0, 1.0], [0.5, 0.5]]
    assert clipped.dtype == dtype
    np.testing.assert_array_equal(p, given_p, "the caller's array is not changed")
    clean = {"probabilities": P.astype(dtype)}
    assert checks.check_columns(clean, BINARY) is clean, "nothing is copied without need"


WRONG = {
    "beyond rounding": ("probabilities_range", BINARY, {"probabilities": P - 0.1001}, "-0.0001"),
    "above 1": ("probabilities_range", BINARY, {"probabilities": np.array([[0.0, 1.0001]])}, "1.0001"),
    "logits": ("probabilities_range", BINARY, {"probabilities": P * 30}, "27"),
    "NaN": ("probabilities_range", BINARY, {"probabilities": np.array([[np.nan, 1.0]])}, "nan"),
    "of a regression": ("probabilities_task", Schema("regression"), {"probabilities": P, "predictions": P[:, 0]}, ""),
    "one column": ("probabilities_shape", MULTI, {"probabilities": P[:, 0]}, "3 classes"),
    "multilabel predictions": (
        "predictions_shape", MULTI, {"probabilities": P3, "predictions": np.array([0, 1])}, "multilabel"),
    "multilabel labels as indices": (
        "labels_shape", MULTI, {"probabilities": P3, "labels": np.zeros(2, np.int8)}, "(2,)"),
    "multilabel labels of int64": (
        "labels_dtype", MULTI, {"probabilities": P3, "labels": np.zeros((2, 3), np.int64)}, "int64"),
    "multilabel labels of 2": (
        "labels_index", MULTI, {"probabilities": P3, "labels": np.full((2, 3), 2, np.int8)}, "0, 1"),
    "labels of a classification as rows": (
        "labels_shape", TERNARY, {"probabilities": P3, "labels": np.zeros((2, 3), np.int8)}, "(2, 3)"),
    "a label beyond": ("labels_index", BINARY, {"probabilities": P, "labels": np.array([0, 2])}, "index 2"),
    "before 1970": ("timestamp_invalid", BINARY, {"probabilities": P, "timestamps": np.array([1, -1])}, "1970"),
}  # fmt: skip


@pytest.mark.parametrize(("reason", "schema", "columns", "what"), WRONG.values(), ids=WRONG.keys())
def test_refused_columns_say_what_is_wrong(reason: str, schema: Schema, columns: dict[str, Array], what: str) -> None:
    with pytest.raises(WireError) as error:
        checks.check_columns(columns, schema)
    assert error.value.reason == reason
    assert what in error.value.detail


def test_multilabel_rows_pass() -> None:
    labels = np.array([[1, 0, -1], [0, 0, 1]], np.int8)
    batch = validation.check_batch(sent({"probabilities": P3, "labels": labels}, MULTI), MULTI)
    np.testing.assert_array_equal(batch.labels, labels)
    assert "predicted" not in batch.columns
    late = sent({"ids": np.array([b"a", b"b"]), "labels": labels}, MULTI, "labels")
    np.testing.assert_array_equal(validation.check_labels(late, MULTI)[1], labels)


def test_columns_of_kinds_that_are_not_read_are_ignored() -> None:
    schema = Schema(classes=("no", "yes"), features=("e", "t"), kinds=("vector", "text"))
    columns = {"probabilities": P, "vector:0": np.ones((2, 8), np.float32), "texts": np.zeros((2, 1), np.int8)}
    message = sent(columns, schema)
    assert set(message.columns) == {"probabilities"}


def test_a_detail_is_short_and_printable() -> None:
    assert checks.short_detail("a\x1b[31m\n\u202e") == "a�[31m��"
    assert len(checks.short_detail("x" * 1000)) == checks.MAX_DETAIL
