"""Calls that are converted together give the rows that they give one by one; a bad one costs its own rows only."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pytest

from tests.support.capture import NOW, capture, columns, proba, read_back, snapshot
from tests.support.frameworks import require
from zmon._capture.assembler import Assembler
from zmon._capture.bundle import bundles
from zmon._transport.conversion import Conversion
from zmon._transport.intake import Snapshot
from zmon._transport.ring import Ring

BINARY = ["no", "yes"]
N = 60


def mixed(i: int) -> dict[str, Any]:
    return {"n": i / 2, "whole": i, "s": f"v{i % 7}", "flag": i % 2 == 0, "gap": None if i % 3 else "g"}


def forms() -> dict[str, list[dict[str, Any]]]:
    """Arguments of many calls, by form."""
    pandas, polars, pyarrow = require("pandas"), require("polars"), require("pyarrow")
    p = proba(N, 2)
    one = [p[i : i + 1] for i in range(N)]
    time = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    return {
        "arrays": [{"probabilities": each, "inputs": np.full((1, 3), float(i))} for i, each in enumerate(one)],
        "several rows": [{"probabilities": p[: i % 4 + 1], "inputs": np.ones((i % 4 + 1, 2))} for i in range(N)],
        "one column": [{"probabilities": each[:, 1]} for each in one],
        "lists": [{"probabilities": each.tolist(), "labels": [i % 2], "ids": [i]} for i, each in enumerate(one)],
        "dicts": [{"probabilities": each, "inputs": [mixed(i)]} for i, each in enumerate(one)],
        "bare dicts": [{"probabilities": each, "inputs": mixed(i)} for i, each in enumerate(one)],
        "dicts with gaps": [
            {"probabilities": each, "inputs": [{k: v for k, v in mixed(i).items() if v is not None}]}
            for i, each in enumerate(one)
        ],
        "dicts of columns": [
            {"probabilities": p[:2], "inputs": {"a": [i, 2.0], "b": np.array([1, i]), "c": ["x", None]}}
            for i in range(N)
        ],
        "pandas": [{"probabilities": each, "inputs": pandas.DataFrame([mixed(i)])} for i, each in enumerate(one)],
        "polars": [{"probabilities": each, "inputs": polars.DataFrame([mixed(i)])} for i, each in enumerate(one)],
        "arrow": [
            {"probabilities": each, "inputs": pyarrow.Table.from_pylist([mixed(i)])} for i, each in enumerate(one)
        ],
        "by class": [{"probabilities": {"yes": float(q), "no": 1 - float(q)}} for q in p[:, 1]],
        "frames of probabilities": [{"probabilities": pandas.DataFrame(each, columns=BINARY)} for each in one],
        "everything": [
            {"probabilities": each, "inputs": [mixed(i)], "labels": ["yes"], "ids": [f"id{i}"],
             "segments": {"c": ["de" if i % 2 else None]}, "timestamps": time + dt.timedelta(seconds=i)}
            for i, each in enumerate(one)
        ],
        "segments of one value": [{"probabilities": each, "segments": {"c": "de"}} for each in one],
        "series": [
            {"probabilities": each, "labels": pandas.Series(["yes"]), "ids": pandas.Series([i])}
            for i, each in enumerate(one)
        ],
        "predictions": [{"predictions": ["yes" if i % 3 else "no"], "timestamps": 1.7e9 + i} for i in range(N)],
    }  # fmt: skip


def snapshots(calls: list[dict[str, Any]]) -> list[Snapshot]:
    return [snapshot(now=NOW + i, **call) for i, call in enumerate(calls)]


def rows_of(one: Assembler, made: Conversion) -> list[dict[str, Any]]:
    """All rows as plain values by column and feature, with their times."""
    rows = []
    for piece in made.pieces:
        found, schema, ts = read_back(one, made._replace(pieces=[piece]))
        count = piece[1].rows
        found.setdefault("timestamps", np.full(count, ts))
        for i in range(count):
            row: dict[str, Any] = {}
            for name, column in found.items():
                if isinstance(column, dict):
                    row |= {key: values[i] for key, values in column.items() if values[i] is not None}
                elif name == "inputs":
                    row |= {k: v for k, v in zip(schema.numeric, column[i].tolist(), strict=True) if v == v}
                else:
                    row[name] = column[i].tolist()
            rows.append(row)
    return rows


@pytest.mark.parametrize("form", forms())
def test_rows_are_those_of_calls_one_by_one(form: str) -> None:
    taken = snapshots(forms()[form])
    together, apart = capture(BINARY), capture(BINARY)
    made = together.convert(taken)
    assert not made.rejected
    assert not made.degraded
    expected = [row for each in taken for row in rows_of(apart, apart.convert([each]))]
    assert rows_of(together, made) == expected
    assert len(made.pieces) <= 3, "calls are converted together"


BAD: dict[str, dict[str, Any]] = {
    "label": {"labels": ["maybe"]},
    "ids": {"ids": [0.5]},
    "id of another length": {"ids": ["a", "b"]},
    "kind": {"inputs": [{"n": "text"}]},
    "object": {"inputs": [{"n": object()}]},
    "time": {"timestamps": -1.0},
    "width": {"probabilities": [[0.2, 0.3, 0.5]]},
    "NaN": {"probabilities": [[float("nan"), 0.5]]},
    "logits": {"probabilities": [[-3.0, 5.0]]},
    "sum": {"probabilities": [[0.1, 0.1]]},
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_call_costs_its_own_rows(what: str) -> None:
    sound = {
        "probabilities": [[0.25, 0.75]],
        "inputs": [{"n": 1.5}],
        "labels": ["yes"],
        "ids": ["a"],
        "timestamps": 1.7e9,
    }
    calls = [{**sound, "ids": [f"a{i}"]} for i in range(20)]
    calls[7] = {**sound, **BAD[what]}
    one = capture(BINARY)
    made = one.convert(snapshots(calls))
    lost = [*made.rejected, *made.degraded]
    assert [loss.rows for loss in lost] == [1]
    rows = rows_of(one, made)
    assert len(rows) == 20 - len(made.rejected)
    assert sum(row.get("n") == 1.5 and row.get("labels") == 1 and row.get("ids", b"")[:1] == b"a" for row in rows) >= 19


def test_an_unexpected_error_costs_the_call_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    one = capture(BINARY)
    read = one._features.read

    def fails(table: Any, *args: Any, **kwargs: Any) -> Any:
        if 13.0 in table.column(0).values:
            raise KeyError("unforeseen")
        return read(table, *args, **kwargs)

    monkeypatch.setattr(one._features, "read", fails)
    calls = [{"probabilities": [[0.25, 0.75]], "inputs": [{"n": float(i)}]} for i in range(20)]
    made = one.convert(snapshots(calls))
    assert [tuple(loss)[:2] for loss in made.degraded] == [("internal", 1)]
    assert "KeyError" in made.degraded[0].detail
    assert [row["n"] for row in rows_of(one, made) if "n" in row] == [float(i) for i in range(20) if i != 13]


def test_a_kind_does_not_depend_on_what_is_converted_together() -> None:
    values = [None, True, 1, 0, "x", False]
    calls = [{"probabilities": [[0.25, 0.75]], "inputs": [{"a": value}]} for value in values]
    together, apart = capture(BINARY), capture(BINARY)
    made = together.convert(snapshots(calls))
    alone = [apart.convert([each]) for each in snapshots(calls)]
    assert columns(together, proba(1, 2))[1] == columns(apart, proba(1, 2))[1]
    assert sum(loss.rows for loss in made.degraded) == sum(loss.rows for each in alone for loss in each.degraded) == 1


def test_single_rows_with_ids_of_varying_length_travel_in_few_messages() -> None:
    one, ring = capture(BINARY), Ring(64 * 2**20)
    random = np.random.default_rng(0)
    p = np.array([[0.25, 0.75]])
    for start in range(0, 20_000, 256):
        taken = [
            snapshot(now=NOW + i, probabilities=p, ids=["x" * int(random.integers(1, 200))], labels=["yes"])
            for i in range(start, min(start + 256, 20_000))
        ]
        for layout, piece, nbytes in one.convert(taken).pieces:
            ring.append(layout, piece, nbytes)
    assert ring.issued == 20_000
    assert ring.tail - ring.head <= 150


def test_arrays_of_many_calls_are_one_bundle_and_lists_are_several() -> None:
    p = np.full((32, 2), 0.5)
    arrays = [{"probabilities": p, "inputs": np.zeros((32, 3))}] * 200
    assert [len(calls) for calls in bundles(snapshots(arrays))] == [200]
    with_lists = [{"probabilities": p, "ids": list(range(32))}] * 200
    assert {len(calls) for calls in bundles(snapshots(with_lists))} == {16, 8}
    other = [{"probabilities": p, "inputs": np.zeros((32, 3), dtype)} for dtype in ("f4", "f4", "f8", "f4")]
    assert [len(calls) for calls in bundles(snapshots(other))] == [2, 1, 1]


def test_calls_of_other_forms_keep_their_order() -> None:
    p = np.array([[0.25, 0.75]])
    calls: list[dict[str, Any]] = [
        {"probabilities": p, "ids": [i]} | ({"inputs": [[1.0]]} if i % 2 else {}) for i in range(10)
    ]
    one = capture(BINARY)
    assert [row["ids"] for row in rows_of(one, one.convert(snapshots(calls)))] == list(range(10))
    assert len(list(bundles(snapshots(calls)))) == 10


def test_labels_that_come_later_are_converted_together() -> None:
    one = capture(BINARY)
    taken = [snapshot("labels", now=NOW + i, ids=[i], labels=["yes" if i % 2 else "no"]) for i in range(50)]
    made = one.convert(taken)
    ((layout, piece, _),) = made.pieces
    assert layout.kind == "labels"
    assert piece.rows == 50
    assert [row["labels"] for row in rows_of(one, made)] == [i % 2 for i in range(50)]
