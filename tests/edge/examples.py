"""Random calls of `publish()`: what the rows truly are, and the arguments that say so in some form.

The truth is drawn first and then written in a form that users pass, so nothing here reads arguments.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import numpy as np
from hypothesis import strategies as st

from tests.edge import breaks
from tests.edge.columns import inputs_of, pool
from tests.edge.forms import FRAMES, MATRICES, NAMED
from tests.edge.harness import OLD
from tests.support.frameworks import require

CLASSES: list[tuple[Any, ...]] = [("no", "yes"), ("a", "b", "c"), ("0", "1", "10", "2"), (False, True), (3, 7, 5)]
ROWS = [0, 1, 1, 2, 5, 17]
SERIES = {
    "list": list,
    "object": lambda values: np.array([*values, None], dtype=object)[:-1],
    "pandas": lambda values: require("pandas").Series(values, dtype=object),
    "polars": lambda values: require("polars").Series(values),
    "arrow": lambda values: require("pyarrow").array(values),
}


@dataclass
class Call:
    """Rows as they are, what is wrong with them, and the arguments that are passed.

    `lost` rows are in no point, by reason; the reason ``"?"`` stands for any one.
    """

    n: int
    p: np.ndarray | None = None
    said: list[Any] | None = None
    labels: list[Any] | None = None
    inputs: dict[str, list[Any]] | None = None
    segments: dict[str, list[Any]] | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    lost: dict[int, str] = field(default_factory=dict)
    degraded: dict[str, set[int]] = field(default_factory=dict)

    def degrade(self, reason: str, *rows: int) -> None:
        """Note rows, by default all, that are used without a part."""
        self.degraded.setdefault(reason, set()).update(rows or range(self.n))

    def lose(self, reason: str, *rows: int) -> None:
        """Note rows, by default all, that are in no point."""
        for row in rows or range(self.n):
            self.lost.setdefault(row, reason)

    @property
    def counted(self) -> tuple[Counter[str], Counter[str]]:
        """Rejected and degraded rows by reason."""
        kept = set(range(self.n)) - self.lost.keys()
        degraded = {reason: len(rows & kept) for reason, rows in self.degraded.items() if rows & kept}
        return Counter(self.lost.values()), Counter(degraded)


@dataclass
class Example:
    """A publisher's options, and what is passed to it. With `warm`, its columns are known before the calls."""

    task: str
    classes: tuple[str, ...]
    options: dict[str, Any]
    calls: list[Call]
    columns: dict[str, str]
    warm: dict[str, Any] | None


@st.composite
def examples(draw: st.DrawFn) -> Example:
    """Draw an example."""
    task = draw(st.sampled_from(["classification", "classification", "classification", "regression", "multilabel"]))
    classes = () if task == "regression" else draw(st.sampled_from(CLASSES))
    named = task != "regression" and draw(st.booleans())
    given = task == "regression" or draw(st.booleans()) or (not named and not isinstance(classes[0], str))
    if not given and not named:
        classes = tuple(f"class_{i}" for i in range(len(classes)))
    matrix = draw(st.booleans())
    columns = draw(pool(matrix))
    seed = draw(st.integers(0, 2**32 - 1))
    warm = draw(st.booleans())
    random = np.random.default_rng(seed)
    writer = Writer(draw, random, task, classes, named=named, given=given)
    calls = []
    for _ in range(draw(st.integers(1, 4))):
        call = Call(draw(st.sampled_from(ROWS)))
        writer.outputs(call)
        writer.labels(call)
        inputs_of(draw, random, call, columns, matrix=matrix, known=warm)
        writer.rest(call)
        breaks.apply(draw, call, breaks.Setting(task, len(classes), given, given or not named))
        calls.append(call)
    first = None
    if warm:
        whole = Call(8)
        writer.sound = True
        writer.outputs(whole)
        inputs_of(draw, random, whole, columns, matrix=matrix, known=True, sound=True)
        first = whole.arguments | {"segments": {"s": ["de", "fr"] * 4, "t": ["x"] * 8}}
    options: dict[str, Any] = {"task": task}
    if given and classes:
        options["classes"] = list(classes)
    return Example(task, tuple(map(str, classes)), options, calls, columns, first)


class Writer:
    """Draws outputs, labels and the rest of calls of one publisher."""

    def __init__(
        self, draw: st.DrawFn, random: np.random.Generator, task: str, classes: tuple[Any, ...], **how: bool
    ) -> None:
        self._draw, self._random, self._task, self._classes = draw, random, task, classes
        self._named, self._given = how["named"], how["given"]
        self._ordered = self._given or not self._named  # otherwise the first frame decides the order of classes
        self._digits = bool(classes) and str(classes[0]) in ("0", "False", "3")
        self._both = self._draw(st.sampled_from(["p", "p", "p+said", "said" if self._given else "p"]))
        self.sound = False

    def _pick(self, *choices: Any) -> Any:
        return choices[0] if self.sound else self._draw(st.sampled_from(choices))

    def outputs(self, call: Call) -> None:
        """Draw probabilities and predictions."""
        n, k = call.n, len(self._classes)
        if self._task == "regression":
            call.said = self._random.normal(50, 9, n).tolist()
            form = self._pick("array", "f4", "list", "pandas", "polars", "column")
            array = np.array(call.said)
            if form == "f4":
                call.said = array.astype("f4").astype("f8").tolist()
            call.arguments["predictions"] = {
                "array": lambda: array,
                "f4": lambda: array.astype("f4"),
                "list": lambda: list(call.said or ()),
                "pandas": lambda: require("pandas").Series(array),
                "polars": lambda: require("polars").Series(array),
                "column": lambda: array[:, None].copy(),
            }[form]()
            return
        if self._task == "multilabel":
            call.p = self._random.random((n, k))
        else:
            call.p = self._random.dirichlet(np.ones(k), n)
        if self._task == "multilabel" or "p" in self._both.split("+"):
            self._probabilities(call)
        else:
            call.p = None
        if self._task == "classification" and "said" in self._both:
            picked = self._random.integers(0, k, n).tolist()
            call.said = picked
            names = [self._classes[i] for i in picked]
            by_name = self._digits or not self._ordered or self._pick(True, False)
            if not by_name:
                call.arguments["predictions"] = np.array(picked, dtype="i8")
            else:
                call.arguments["predictions"] = names if self._given else [str(name) for name in names]

    def _probabilities(self, call: Call) -> None:
        assert call.p is not None
        kind = self._pick("f8", "f4")
        p = call.p.astype(kind)
        call.p = p.astype("f8")
        if self._named:
            form = self._pick(*FRAMES)
            if not call.n and form == "rows":
                form = "columns"
            order = [int(i) for i in self._random.permutation(len(self._classes))]
            given = FRAMES[form]({self._classes[i]: p[:, i].tolist() for i in order} if self._plain(form) else
                                 {str(self._classes[i]): p[:, i].tolist() for i in order})  # fmt: skip
        elif len(self._classes) == 2 and self._task == "classification" and self._pick(False, False, True):
            given = p[:, 1].copy() if self._pick(True, False) else p[:, 1:].copy()
            rest = p[:, 1].astype("f8")
            call.p = np.column_stack([1 - rest, rest])
        else:
            form = self._pick(*(name for name in MATRICES if name != "float32"))
            given = MATRICES[form](p.copy())
        call.arguments["probabilities"] = given

    def _plain(self, form: str) -> bool:
        return form not in ("polars", "arrow", "pandas-arrow")  # their names are strings

    def labels(self, call: Call) -> None:
        """Draw labels, some of them missing."""
        n, k = call.n, len(self._classes)
        if self._pick(False, False, True):
            return
        gaps = self._random.random(n) < self._pick(0.0, 0.3)
        if self._task == "regression":
            call.labels = [
                None if gap else float(v) for gap, v in zip(gaps, self._random.normal(50, 9, n), strict=True)
            ]
            form = self._pick("floats", *SERIES)
            floats = np.array([np.nan if v is None else v for v in call.labels], dtype="f8")
            call.arguments["labels"] = floats if form == "floats" else SERIES[form](list(call.labels))
            return
        if self._task == "multilabel":
            member = (self._random.random((n, k)) < 0.4).astype("i1")
            call.labels = member.tolist()
            as_names = [[self._classes[i] for i in range(k) if row[i]] for row in member.tolist()]
            call.arguments["labels"] = member.copy() if self._digits or self._pick(True, False) else as_names
            return
        truth = self._random.integers(0, k, n).tolist()
        call.labels = [None if gap else y for gap, y in zip(gaps, truth, strict=True)]
        call.arguments["labels"] = self._written(call.labels)

    def _written(self, labels: list[int | None]) -> Any:
        names = [None if y is None else self._classes[y] for y in labels]
        forms = [*SERIES, "text", "one-hot", "frame"]
        if not self._digits and self._ordered:
            forms += ["indices", "floats", "Int64"]
        form = self._pick(*forms)
        k = len(self._classes)
        one_hot = np.array([[np.nan] * k if y is None else np.eye(k)[y] for y in labels]).reshape(-1, k)
        if form == "one-hot" and self._ordered:
            return one_hot
        if form in ("frame", "one-hot"):
            order = self._random.permutation(k).tolist() if self._given or self._named else range(k)
            frame = self._pick(*NAMED)
            return FRAMES[frame]({str(self._classes[i]): one_hot[:, i].tolist() for i in order})
        if form == "floats":
            return np.array([np.nan if y is None else y for y in labels], dtype="f8")
        if form == "Int64":
            return require("pandas").Series(labels, dtype="Int64")
        if form == "indices":
            return list(labels) if None in labels else np.array(labels, dtype="i4")
        if form == "text" or form in ("polars", "arrow"):
            names = [None if name is None else str(name) for name in names]
        return SERIES["list" if form == "text" else form](names)

    def rest(self, call: Call) -> None:
        """Draw ids, times and segments."""
        n = call.n
        texts = [f"id-{self._random.integers(10**9)}" for _ in range(n)]
        ids: Any = {
            "none": lambda: None,
            "ints": lambda: self._random.integers(0, 10**9, n),
            "texts": lambda: texts,
            "array": lambda: np.array(texts, dtype=str),
            "pandas": lambda: require("pandas").Series(texts, dtype="string"),
            "uuids": lambda: [UUID(int=int(i)) for i in self._random.integers(0, 10**9, n)],
        }[self._pick("none", "ints", "texts", "array", "pandas", "uuids")]()
        if ids is not None:
            call.arguments["ids"] = ids
        seconds = (int(OLD) + self._random.integers(0, 3600, n)).astype("i8")
        unit = self._pick("ns", "us", "ms", "s")
        call.arguments["timestamps"] = {
            "one": lambda: OLD,
            "datetime64": lambda: seconds.astype("M8[s]").astype(f"M8[{unit}]"),
            "floats": lambda: seconds.astype("f8"),
            "ints": lambda: seconds.tolist(),
            "pandas": lambda: require("pandas").Series(seconds.astype("M8[s]").astype(f"M8[{unit}]")),
            "datetimes": lambda: seconds.astype("M8[s]").tolist(),
        }[self._pick("one", "datetime64", "floats", "ints", "pandas", "datetimes")]()
        if self._pick(False, True):
            segments = {"s": ["de", "fr", None], "t": ["x"]}
            names = self._pick(["s"], ["t"], ["s", "t"])
            call.segments = {name: [segments[name][i % len(segments[name])] for i in range(n)] for name in names}
            form = self._pick(*SERIES)
            call.arguments["segments"] = {name: SERIES[form](list(v)) for name, v in call.segments.items()}
