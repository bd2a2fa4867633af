"""Features: sets of columns, kinds and forms."""

from __future__ import annotations

import enum
import random
import uuid
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zmon
from tests.edge.forms import FRAMES, NAMED, sharp
from tests.edge.harness import DAY, OLD, Edge
from tests.support.frameworks import require
from tests.support.waiting import until

N = 60
Y = [i % 2 for i in range(N)]
P = sharp(Y, 2)
NAMES = ["no", "yes"]
NUMBERS = [float(i) for i in range(N)]


# --- 6: sets of columns ----------------------------------------------------------------------------------------------

OPTIONAL = [f"o{i}" for i in range(8)]


@pytest.mark.parametrize("form", [*NAMED, "rows"])
def test_optional_columns(edge: Edge, form: str) -> None:
    """A missing key is a missing value, however many sets of keys there are."""
    draw = random.Random(1)
    rows = [{"a": 1.0, **{name: float(i) for name in OPTIONAL if draw.random() < 0.5}} for i in range(300)]
    model = edge.model(classes=NAMES)
    for start in (OLD, OLD + DAY):  # columns that are new join the windows that open later
        for row in rows:
            model.publish(P[:1], FRAMES[form]({name: [value] for name, value in row.items()}), Y[:1], timestamps=start)
        model.flush()
    found = model.end()
    assert (found.rows, found.rejected, found.degraded, found.log) == (600, {}, {}, [])
    found.points = found.windows[int(OLD + DAY) // DAY * DAY]
    assert (found.feature("a"), found["buffer_count"]) == (1.0, 300)
    for name in OPTIONAL:
        given = [row[name] for row in rows if name in row]
        assert found.feature(name) == pytest.approx(np.mean(given))
        assert found.get("feature_missing_freq", feat_name=name) == pytest.approx(1 - len(given) / 300)


def test_keys_that_only_some_rows_of_a_batch_have(edge: Edge) -> None:
    rows = [{"a": 1.0, **({"b": 2.0} if i % 3 else {}), **({"c": "x"} if i % 4 == 0 else {})} for i in range(N)]
    model = edge.model(classes=NAMES)
    model.publish(P, rows, Y)
    found = model.end()
    assert (found.rows, found.rejected, found.degraded) == (N, {}, {})
    assert found.get("feature_missing_freq", feat_name="b") == pytest.approx(1 / 3)
    assert found.categories("c") == {"x": N / 4}


@pytest.mark.parametrize("form", FRAMES)
def test_columns_in_any_order(edge: Edge, form: str) -> None:
    draw = random.Random(2)
    names = [f"c{i}" for i in range(12)]
    model = edge.model(classes=NAMES)
    for i in range(150):
        order = draw.sample(names, len(names))
        columns = {name: [names.index(name) + i * 1.0] for name in order}
        model.publish(P[:1], FRAMES[form](columns), Y[:1])
    found = model.end()
    assert (found.rows, found.rejected, found.degraded) == (150, {}, {})
    assert [found.feature(name) for name in names] == pytest.approx([at + 149 / 2 for at in range(12)])


def test_beyond_the_limit_new_columns_are_left_out_and_counted(tmp_path: Path) -> None:
    """Seen from the publisher alone: a window of 65,536 columns takes a collector its time."""
    with zmon.Publisher("wide", classes=NAMES, collector=f"ipc://{tmp_path}/nobody") as publisher:
        wide = require("pandas").DataFrame(np.ones((2, 65_530)), columns=[f"w{i}" for i in range(65_530)])
        publisher.publish(P[:2], wide, Y[:2])
        for _ in range(2):
            publisher.publish(P[:2], [{f"n{i}": 2.0 for i in range(20)} | {"w0": 1.0}] * 2, Y[:2])
        stats = until(lambda: publisher.stats.degraded and publisher.stats, what="degraded rows")
        stats = until(lambda: sum(publisher.stats.degraded.values()) == 4 and publisher.stats, what=f"four of {stats}")
        assert (stats.published, stats.rejected) == (6, {})


# --- 16, 18: categories ----------------------------------------------------------------------------------------------


class Colour(str, enum.Enum):  # noqa: UP042 - what people have written for years
    RED = "red"
    BLUE = "blue"


class Size(enum.StrEnum):
    SMALL = "small"
    LARGE = "large"


CATEGORIES: dict[str, Callable[[list[Any]], Any]] = {
    "column": lambda v: require("pandas").DataFrame({"c": require("pandas").Series(v).astype("category")}),
    "ordered": lambda v: require("pandas").DataFrame({"c": require("pandas").Categorical(v, ordered=True)}),
    "dict": lambda v: {"c": require("pandas").Series(v).astype("category")},
    "arrow": lambda v: require("pyarrow").table({"c": require("pyarrow").array(v).dictionary_encode()}),
    "pandas from arrow": lambda v: (
        require("pyarrow").table({"c": require("pyarrow").array(v).dictionary_encode()}).to_pandas()
    ),
}


@pytest.mark.parametrize("form", CATEGORIES)
@pytest.mark.parametrize("values", [[0, 1], [7, 12], [0.5, 1.5], [True, False], ["a", "b"]], ids=str)
@pytest.mark.parametrize("rows", [N, 1])
def test_declared_categories_are_categories(edge: Edge, form: str, values: list[Any], rows: int) -> None:
    given = (values * N)[:N]
    model = edge.model(classes=NAMES)
    for start in range(0, N, rows):
        model.publish(P[:rows], CATEGORIES[form](given[start : start + rows]), Y[:rows])
    found = model.end()
    assert (found.rows, found.rejected, found.degraded) == (N, {}, {})
    assert found.categories("c") == {str(value): N / 2 for value in values}


def test_polars_categories(edge: Edge) -> None:
    polars = require("polars")
    model = edge.model(classes=NAMES)
    given = ["7", "12"] * (N // 2)
    for kind in (polars.Categorical, polars.Enum(["7", "12"]), polars.String):
        model.publish(P, polars.DataFrame({"c": polars.Series(given, dtype=kind)}), Y)
    found = model.end()
    assert (found.rows, found.rejected, found.categories("c")) == (3 * N, {}, {"7": 1.5 * N, "12": 1.5 * N})


@pytest.mark.parametrize("form", ["rows", "columns", "pandas"])
@pytest.mark.parametrize("kind", [Colour, Size])
def test_members_of_a_text_enum_are_their_text(edge: Edge, form: str, kind: type[enum.Enum]) -> None:
    members = list(kind)
    given = [members[i % 2] if i % 4 < 2 else members[i % 2].value for i in range(N)]
    model = edge.model(classes=NAMES)
    model.publish(P, FRAMES[form]({"c": given}), Y, segments={"c": given})
    model.publish(P, FRAMES[form]({"c": [each.value for each in members] * (N // 2)}), Y)
    found = model.end()
    assert (found.rows, found.rejected, found.degraded) == (2 * N, {}, {})
    assert found.categories("c") == {each.value: N for each in members}
    assert found.get("buffer_count", segment_name="c", segment_value=members[0].value) == N / 2


def test_members_of_a_text_enum_are_classes_and_labels(edge: Edge) -> None:
    model = edge.model(classes=list(Colour))
    model.publish(P, labels=["red", Colour.BLUE] * (N // 2))
    model.publish(predictions=[Colour.RED, "blue"] * (N // 2), labels=["red", Colour.BLUE] * (N // 2))
    found = model.end()
    assert (found.rows, found.rejected, found["accuracy"]) == (2 * N, {}, 1.0)
    assert found.get("label_count", class_name="red") == N


# --- 17: forms -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "array"])
@pytest.mark.parametrize("rows", [N, 1])
def test_sparse_matrices_are_numeric_columns(edge: Edge, kind: str, rows: int) -> None:
    sparse = require("scipy.sparse")
    dense = np.zeros((N, 5))
    dense[::3, 1] = 3.0
    dense[:, 4] = NUMBERS
    make = sparse.csr_array if kind == "array" else getattr(sparse, f"{kind}_matrix")
    model = edge.model(classes=NAMES)
    for start in range(0, N, rows):
        model.publish(P[:rows], make(dense[start : start + rows]), Y[:rows])
    found = model.end()
    assert (found.rows, found.rejected, found.degraded) == (N, {}, {})
    assert [found.feature(f"feat_{i}") for i in range(5)] == pytest.approx(dense.mean(axis=0))


@pytest.mark.parametrize("form", FRAMES)
@pytest.mark.parametrize("rows", [N, 1])
def test_every_form_of_a_table(edge: Edge, form: str, rows: int) -> None:
    columns = {
        "number": [None if i % 10 == 3 else i / 4 for i in range(N)],
        "whole": list(range(N)),
        "text": [None if i % 10 == 4 else "abc"[i % 3] for i in range(N)],
        "flag": [i % 3 == 0 for i in range(N)],
    }
    model = edge.model(classes=NAMES)
    for start in range(0, N, rows):
        part = {name: values[start : start + rows] for name, values in columns.items()}
        model.publish(P[:rows], FRAMES[form](part), Y[:rows])
    found = model.end()
    assert (found.rows, found.rejected, found.degraded, found.log) == (N, {}, {}, [])
    number = [value for value in columns["number"] if value is not None]
    assert found.feature("number") == pytest.approx(np.mean(number))
    assert found.get("feature_missing_freq", feat_name="number") == pytest.approx(0.1)
    assert found.feature("whole") == pytest.approx((N - 1) / 2)
    assert found.categories("text") == {each: float(columns["text"].count(each)) for each in "abc"}
    assert found.get("feature_missing_freq", feat_name="text") == pytest.approx(0.1)
    assert found.categories("flag") == {"True": N / 3, "False": N * 2 / 3}


def test_a_lazy_frame_is_refused_with_the_remedy(edge: Edge) -> None:
    polars = require("polars")
    lazy = polars.DataFrame({"a": NUMBERS}).lazy()
    model = edge.model(classes=NAMES)
    model.publish(P, lazy, Y)
    model.publish(polars.DataFrame(P, schema=NAMES).lazy(), labels=Y)
    model.publish(P, labels=Y)
    found = model.end()
    assert found["accuracy"] == 1.0
    assert any("collect()" in line for line in found.log), found.log
    assert found.rows + found.rejected.total() >= 2 * N + 1


@pytest.mark.parametrize("form", ["rows", "object"])
def test_objects_that_are_small_integers_are_numbers(edge: Edge, form: str) -> None:
    model = edge.model(classes=NAMES)
    given: Any = [{"feat_0": np.int8(i)} for i in range(N)]
    if form == "object":
        given = np.array([[np.int8(i)] for i in range(N)], dtype=object)
    model.publish(P, given, Y)
    found = model.end()
    assert (found.rows, found.rejected, found.feature("feat_0")) == (N, {}, (N - 1) / 2)


@pytest.mark.parametrize("form", ["rows", "pandas", "columns"])
def test_integers_as_keys(edge: Edge, form: str) -> None:
    model = edge.model(classes=NAMES)
    columns: Any = {0: NUMBERS, 1: ["x"] * N}
    model.publish(P, FRAMES[form](columns), Y)
    found = model.end()
    assert (found.rows, found.rejected, len(found.features())) == (N, {}, 2)
    assert found.categories("1") == {"x": N}


TEXTS = ["a", "b"] * (N // 2)
MORE: dict[str, tuple[Callable[[], Any], Any]] = {
    "polars 128 bits": (lambda: frame("polars", NUMBERS, require("polars").Int128), sum(NUMBERS) / N),
    "polars 128 bits and nulls": (lambda: frame("polars", [None, 4], require("polars").UInt128), 4.0),
    "polars decimals": (lambda: frame("polars", [None, Decimal(4)], require("polars").Decimal(9, 2)), 4.0),
    "pandas, Arrow's dictionary": (lambda: frame("pandas", [1, 2], arrow_type("dictionary")), {"1": N / 2, "2": N / 2}),
    "pandas, Arrow's decimals": (lambda: frame("pandas", [None, Decimal(4)], arrow_type("decimal128")), 4.0),
    "pandas sparse": (lambda: frame("pandas", [0, 4], require("pandas").SparseDtype("i8", 0)), 2.0),
    "pandas sparse booleans": (
        lambda: frame("pandas", [False, True], require("pandas").SparseDtype(bool, False)),
        {"True": N / 2, "False": N / 2},
    ),
    "NumPy's strings": (lambda: np.array(TEXTS, np.dtypes.StringDType())[:, None], {"a": N / 2, "b": N / 2}),
    "arrow binary": (lambda: arrow().table({"feat_0": [b"a", b"b"] * (N // 2)}), {"a": N / 2, "b": N / 2}),
    "arrow batch of views": (
        lambda: arrow().RecordBatch.from_pydict({"feat_0": arrow().array(TEXTS, arrow().string_view())}),
        {"a": N / 2, "b": N / 2},
    ),
}  # fmt: skip


def arrow() -> Any:
    return require("pyarrow")


def arrow_type(name: str) -> Any:
    types = {"dictionary": (arrow().int8(), arrow().int64()), "decimal128": (9, 2)}
    return require("pandas").ArrowDtype(getattr(arrow(), name)(*types[name]))


def frame(library: str, values: list[Any], dtype: Any) -> Any:
    given = (values * N)[:N]
    if library == "polars":
        return require("polars").DataFrame({"feat_0": require("polars").Series(given, dtype=dtype, strict=False)})
    return require("pandas").DataFrame({"feat_0": require("pandas").Series(given, dtype=dtype)})


@pytest.mark.parametrize("form", MORE)
def test_columns_of_further_types(edge: Edge, form: str) -> None:
    make, expected = MORE[form]
    model = edge.model(classes=NAMES)
    model.publish(P, make(), Y)
    found = model.end()
    assert (found.rows, found.rejected, found.degraded) == (N, {}, {})
    assert (found.categories("feat_0") if isinstance(expected, dict) else found.feature("feat_0")) == expected


@pytest.mark.parametrize("rows", [N, 1])
def test_a_column_that_cannot_be_read_costs_itself(edge: Edge, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The types of libraries of frames have no end."""
    from zmon._capture import frames

    read = frames._of_polars

    def refuse(series: Any) -> Any:
        if series.name == "bad":
            raise NotImplementedError("no such type")
        return read(series)

    monkeypatch.setattr(frames, "_of_polars", refuse)
    model = edge.model(classes=NAMES)
    for start in range(0, N, rows):
        part = {"bad": ["x"] * rows, "good": NUMBERS[start : start + rows]}
        model.publish(P[:rows], require("polars").DataFrame(part), Y[:rows])
    found = model.end()
    assert (found.rows, found.rejected, found.degraded) == (N, {}, {"inputs_dtype": N})
    assert found.feature("good") == sum(NUMBERS) / N
    assert len([line for line in found.log if "'bad'" in line]) == 1, found.log


# --- 20: unique texts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1500, 100, 1])
@pytest.mark.parametrize("declared", [True, False], ids=["declared", "found"])
def test_a_column_of_identifiers_has_no_names(edge: Edge, rows: int, declared: bool) -> None:
    n = 1500
    ids = [None if i % 10 == 0 else str(uuid.UUID(int=i)) for i in range(n)]
    country = ["DE", "FR"] * (n // 2)
    model = edge.model(classes=NAMES, kinds={"customer_id": "id"} if declared else None)
    for start in range(0, n, rows):
        part = {"customer_id": ids[start : start + rows], "country": country[start : start + rows]}
        model.publish(P[:1].repeat(rows, 0), FRAMES["rows"](part))
    model.flush()
    for start in range(0, n, rows):
        part = {"customer_id": ids[start : start + rows], "country": country[start : start + rows]}
        model.publish(P[:1].repeat(rows, 0), FRAMES["rows"](part), timestamps=OLD + DAY)
    found = model.end()
    assert (found.rows, found.rejected, found.degraded) == (2 * n, {}, {})
    assert found.categories("country") == {"DE": n / 2, "FR": n / 2}
    if not declared and rows < n:  # once it is known
        assert found.get("feature_unique", feat_name="customer_id") in (None, 1350), "no other number"
        found.points = found.windows[int(OLD + DAY) // DAY * DAY]
    assert found.categories("customer_id") == {}
    assert found.get("feature_unique", feat_name="customer_id") == 1350
    assert found.get("feature_missing_freq", feat_name="customer_id") == pytest.approx(0.1)
    assert [found.get("feature_length", feat_name="customer_id", stat=stat) for stat in ("min", "max")] == [36, 36]
    assert len([line for line in found.log if "customer_id" in line]) == (0 if declared else 1), found.log


# --- 19, 21: what is declared ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FRAMES)
def test_include_and_exclude(edge: Edge, form: str) -> None:
    columns = {"v1": NUMBERS, "v2": ["a"] * N, "v3": NUMBERS, "w": NUMBERS}
    for options, features in (
        ({"include": ["v1", "v2"]}, {"v1", "v2"}),
        ({"exclude": ["v*"]}, {"w"}),
        ({"include": ["v*"], "exclude": ["v3"]}, {"v1", "v2"}),
    ):
        model = edge.model(classes=NAMES, **options)
        model.publish(P, FRAMES[form](columns), Y)
        found = model.end()
        assert (found.rows, found.rejected, found.degraded) == (N, {}, {}), options
        assert found.features() == features, options


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"kinds": {"ag": "categorical"}}, "age"),
        ({"kinds": {0: "categorical"}}, "0"),
        ({"exclude": ["agee"]}, "age"),
        ({"include": ["age", "incom"]}, "income"),
    ],
    ids=str,
)
def test_a_misspelt_declaration_is_said_once_with_the_nearest_name(
    edge: Edge, options: dict[str, Any], word: str
) -> None:
    model = edge.model(classes=NAMES, **options)
    for _ in range(3):
        model.publish(P, FRAMES["pandas"]({"age": NUMBERS, "income": NUMBERS}), Y)
    found = model.end()
    assert (found.rows, found.rejected) == (3 * N, {})
    assert len([line for line in found.log if word in line]) == 1, found.log


def test_brackets_in_names_can_be_escaped(edge: Edge) -> None:
    model = edge.model(classes=NAMES, exclude=["f[[]0]"])
    model.publish(P, FRAMES["pandas"]({"f[0]": NUMBERS, "f0": NUMBERS}), Y)
    found = model.end()
    assert (found.rows, found.features(), found.log) == (N, {"f0"}, [])


def test_kinds_by_number_are_those_of_columns_named_by_number(edge: Edge) -> None:
    model = edge.model(classes=NAMES, kinds={0: "categorical"})
    model.publish(P, require("pandas").DataFrame([[7], [8]] * (N // 2)), Y)
    found = model.end()
    assert (found.rows, found.rejected, found.categories("0")) == (N, {}, {"7": N / 2, "8": N / 2})
