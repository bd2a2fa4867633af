"""Ways in which calls are wrong, and mutations of arguments after a call."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st


class Raising:
    """An argument whose methods raise; it has a length."""

    def __init__(self, n: int) -> None:
        self._n = n

    def __len__(self) -> int:
        return self._n

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise ValueError("no array today")

    def __iter__(self) -> Any:
        raise OSError("no rows today")

    def __getattr__(self, name: str) -> Any:
        raise KeyError(name) if not name.startswith("__") else AttributeError(name)


class Setting(NamedTuple):
    """The publisher that is called: its task, number of classes, whether they were given, and have a known order."""

    task: str
    classes: int
    given: bool
    ordered: bool


PARTS = [(), (), ("p",), ("labels",), ("inputs",), ("rest",), ("p", "labels"), ("inputs", "rest")]


def apply(draw: st.DrawFn, call: Any, setting: Setting) -> None:
    """Break none, one or two of the call's arguments."""
    if not call.n:
        return
    for part in draw(st.sampled_from(PARTS)):
        {"p": _outputs, "labels": _labels, "inputs": _inputs, "rest": _rest}[part](draw, call, setting)


def _row(draw: st.DrawFn, call: Any) -> int:
    return draw(st.integers(0, call.n - 1))


def _outputs(draw: st.DrawFn, call: Any, setting: Setting) -> None:
    arguments, n = call.arguments, call.n
    task, classes, given, ordered = setting
    if task == "regression":
        row = _row(draw, call)
        values = np.array(call.said, dtype="f8")
        values[row] = draw(st.sampled_from([np.nan, np.inf]))
        arguments["predictions"] = values if draw(st.booleans()) else values.tolist()
        call.lose("predictions_nan", row)
        return
    if call.p is None:
        arguments["predictions"] = ["unheard of"] * n
        call.lose("prediction_unknown")
        return
    hows = ["logits", "text", "raises", "dimensions", "length"]
    how = draw(st.sampled_from([*hows, *["width", "names"] * given, *["nan", "sum"] * ordered]))
    if how == "nan":
        row = _row(draw, call)
        p = call.p.copy()
        p[row] = np.nan
        arguments["probabilities"] = p
        call.lose("probabilities_nan", row)
    elif how == "sum" and task == "classification":
        call.p = call.p / 2
        arguments["probabilities"] = call.p.copy()
        call.degrade("probabilities_sum")
    elif how == "length" and "predictions" in arguments:
        arguments["predictions"] = [0] * (n + 1)
        call.lose("length_mismatch")
    elif how in ("logits", "width", "text", "raises", "names", "dimensions"):
        arguments["probabilities"] = {
            "logits": lambda: np.full((n, classes), 3.5),
            "width": lambda: np.full((n, classes + 1), 1 / (classes + 1)),
            "text": lambda: [["x"] * classes] * n,
            "raises": lambda: Raising(n),
            "names": lambda: {f"other {i}": [1 / classes] * n for i in range(classes)},
            "dimensions": lambda: np.zeros((n, 2, 2)),
        }[how]()
        reason = {"logits": "probabilities_range", "width": "probabilities_shape"}.get(how, "?")
        call.lose(reason)


def _labels(draw: st.DrawFn, call: Any, setting: Setting) -> None:
    if call.labels is None:
        return
    arguments, n = call.arguments, call.n
    how = draw(st.sampled_from(["length", "raises", "unknown", *["one-hot"] * setting.ordered]))
    if how in ("length", "raises"):
        arguments["labels"] = Raising(n) if how == "raises" else [None] * (n + 1)
        call.labels = None
        call.degrade("?" if how == "raises" else "length_mismatch")
    elif setting.task == "classification":
        row = _row(draw, call)
        if how == "one-hot":
            given = np.array([np.eye(setting.classes)[0 if y is None else y] for y in call.labels])
            call.labels = [0 if y is None else y for y in call.labels]
            given[row] = draw(st.sampled_from([0.0, 1.0]))
            arguments["labels"] = given
            call.degrade("label_one_hot", row)
        else:
            given = _list(arguments["labels"], n)
            if given is None or not any(isinstance(y, str) for y in given):
                return
            given[row] = "unheard of"
            arguments["labels"] = given
            call.degrade("label_unknown", row)
        call.labels[row] = None


def _list(given: Any, n: int) -> list[Any] | None:
    if hasattr(given, "columns"):  # a frame
        return None
    values: list[Any] = given.tolist() if hasattr(given, "tolist") else list(given)
    return values if len(values) == n and not any(isinstance(value, list) for value in values) else None


def _inputs(draw: st.DrawFn, call: Any, setting: Setting) -> None:
    how = draw(st.sampled_from(["length", "raises", "dimensions", "complex"]))
    n = call.n
    call.arguments["inputs"] = {
        "length": lambda: np.ones((n + 2, 1)),
        "raises": lambda: Raising(n),
        "dimensions": lambda: np.ones((n, 2, 2)),
        "complex": lambda: np.full((n, 1), 1j),
    }[how]()
    call.inputs = None
    call.degraded.pop("inputs_kind", None)
    call.degrade("length_mismatch" if how == "length" else "?")


def _rest(draw: st.DrawFn, call: Any, setting: Setting) -> None:
    arguments, n = call.arguments, call.n
    how = draw(st.sampled_from(["ids", "id", "time", "unit", "times", "segment", "segments"]))
    row = _row(draw, call)
    if how == "ids":
        arguments["ids"] = list(range(n + 1))
        call.degrade("length_mismatch")
    elif how == "id":
        arguments["ids"] = [object() if i == row else f"id {i}" for i in range(n)]
        call.degrade("ids_invalid", *([row] if n > 1 else []))
    elif how == "time":
        times = np.full(n, 1_700_006_400, "M8[s]")
        times[row] = draw(st.sampled_from(["NaT", "2600-01-01", "1960-01-01"]))
        arguments["timestamps"] = times
        call.lose("timestamp_invalid", row)
    elif how in ("unit", "times"):
        arguments["timestamps"] = 1_700_006_400_000 if how == "unit" else [1_700_006_400] * (n + 1)
        call.lose("timestamp_unit" if how == "unit" else "length_mismatch")
    else:
        arguments["segments"] = {"s": ["de"] * (n + 1)} if how == "segment" else 7
        call.segments = None
        call.degrade("length_mismatch" if how == "segment" else "segments_invalid")


def mutate(value: Any) -> None:
    """Change an argument in place, as a model that uses its buffers again does."""
    if isinstance(value, Raising):
        return
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "O":
            for each in value.ravel():
                mutate(each)
            value[...] = "mutated"
        elif value.flags.writeable and value.dtype.names is None:
            value[...] = np.zeros((), dtype=value.dtype) if value.dtype.kind in "MmUS" else 1
    elif isinstance(value, dict):
        for each in value.values():
            mutate(each)
        value.clear()
    elif isinstance(value, list):
        for each in value:
            mutate(each)
        value[:] = ["mutated"] * 3
    elif hasattr(value, "detach"):
        value.detach().zero_()
    elif hasattr(value, "nnz"):
        value.data[:] = 77
    elif type(value).__module__.startswith("pandas"):
        value.iloc[:] = value.iloc[::-1].to_numpy()
        for name in getattr(value, "columns", [])[::-1]:
            value.pop(name)
