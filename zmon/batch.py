"""A batch: equal-length columns of one model's rows, and the schema that names them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from sys import getsizeof
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmon import categories
from zmon.categories import Dictionaries

Array = NDArray[Any]
Names = tuple[str, ...]
SCHEMA_OVERHEAD = 1024  # bytes of the objects of a schema next to its names
TASKS = ("classification", "regression", "multilabel")
SLACK = 1.0001  # the largest probability: a float16 softmax may exceed 1 by this much
CODED_KINDS = ("boolean", "categorical")  # columns of codes; numeric columns are a matrix of numbers
SKIPPED_KINDS = ("text", "vector")  # columns that are named, but not captured
KINDS = ("numeric", *CODED_KINDS, *SKIPPED_KINDS)
CODED = ("codes", "segments")  # columns of codes, which have dictionaries


@dataclass(frozen=True, slots=True)
class Schema:
    """The description that all rows of a batch share.

    Attributes
    ----------
    task : str
        ``"classification"``, ``"regression"`` or ``"multilabel"`` (every class is true or false by itself).
    classes : tuple of str
        Class names in the order of the probabilities' columns; empty for regression.
    features : tuple of str
        Names of the input columns; empty while no inputs were published.
    kinds : tuple of str
        Kind of every feature: ``"numeric"``, ``"boolean"`` or ``"categorical"``; ``"text"`` and ``"vector"`` are
        reserved: such columns are named here, but their values are not captured.
    threshold : float
        Binary classification: class 1 is predicted if ``p[1] > threshold``. Multilabel: every class is, by its own p.
    tags : mapping of str to str
        The publisher's free tags; they describe series but are not part of their identity.
    segments : tuple of str
        Names of the columns by whose values series are split.
    hashed : tuple of str
        Categorical features in which nearly every row has a value of its own: their values are counted by hashes and
        lengths, and have no names.
    numeric : tuple of str
        Derived: the features that are columns of `Batch.inputs`, in order.
    categorical : tuple of str
        Derived: the features that are columns of `Batch.codes`, boolean ones included, in order.
    nbytes : int
        Derived: about how many bytes of memory it takes.
    """

    task: str = "classification"
    classes: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    threshold: float = 0.5
    tags: Mapping[str, str] = field(default_factory=dict)
    segments: tuple[str, ...] = ()
    hashed: tuple[str, ...] = ()
    numeric: tuple[str, ...] = field(init=False, repr=False, compare=False)
    categorical: tuple[str, ...] = field(init=False, repr=False, compare=False)
    nbytes: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        numeric, categorical = self.features, self.features[:0]
        if set(self.kinds) - {"numeric"}:
            named = list(zip(self.features, self.kinds, strict=True))
            numeric = tuple(name for name, kind in named if kind == "numeric")
            categorical = tuple(name for name, kind in named if kind in CODED_KINDS)
        object.__setattr__(self, "numeric", numeric)
        object.__setattr__(self, "categorical", categorical)
        names = (self.classes, self.features, self.segments, self.tags, self.tags.values())  # kinds are few strings
        places = 5 * len(self.features) + len(self.classes)  # in these tuples, and in those derived of them
        nbytes = SCHEMA_OVERHEAD + 8 * places + sum(sum(map(getsizeof, each)) for each in names)
        object.__setattr__(self, "nbytes", nbytes)

    def conflict(self, other: Schema) -> str:
        """Return why rows of `other` cannot be combined with rows of this schema; empty if they can."""
        if self.task != other.task:
            return f"task {other.task!r}, not {self.task!r}"
        if self.classes != other.classes:
            return f"classes {_short(other.classes)}, not {_short(self.classes)}"
        kinds = dict(zip(self.features, self.kinds, strict=True))
        for feature, kind in zip(other.features, other.kinds, strict=True):
            if kinds.get(feature, kind) != kind:
                return f"feature {feature!r} is {kind}, not {kinds[feature]}"
        return ""

    def union(self, other: Schema) -> Schema:
        """Return this schema, extended by the columns that only `other` has."""
        features = set(self.features)
        new = [i for i, feature in enumerate(other.features) if feature not in features]
        segments = tuple(name for name in other.segments if name not in self.segments)
        unknown = set(self.hashed) | (features - set(self.categorical)) if other.hashed else set()
        hashed = tuple(name for name in other.hashed if name not in unknown)
        if not new and not segments and not hashed:
            return self
        return replace(
            self,
            features=self.features + tuple(other.features[i] for i in new),
            kinds=self.kinds + tuple(other.kinds[i] for i in new),
            segments=self.segments + segments,
            hashed=self.hashed + hashed,
        )


class Batch:
    """Equal-length columns and their schema. Treat the arrays as read-only: other metrics see the same arrays.

    Parameters
    ----------
    schema : Schema
    columns : mapping of str to ndarray
        Any of ``probabilities`` (n, n_classes), ``predictions`` (n,) class indices or regression values,
        ``labels`` (n,) class indices with −1 where unlabelled, or regression targets with NaN where unlabelled, or of a
        multilabel model (n, n_classes) 0 and 1 with −1 where unlabelled,
        ``inputs`` (n, n_numeric), ``codes`` (n, n_categorical), ``hashes`` and ``lengths`` (n, n_hashed),
        ``segments`` (n, n_segments), ``ids`` (n,),
        ``timestamps`` (n,) int64 nanoseconds since the epoch. A batch with ``label_outcomes`` holds labels that
        arrived after their predictions, which are not rows of the window: only metrics that need ``labels`` see it,
        with ``predictions``, ``labels``, ``probabilities``, ``label_delays`` (ns) and ``label_own`` (whether the
        prediction belongs to this window).
    rows : int, optional
        Number of rows, if there are no columns.
    dictionaries : mapping of str to tuple of tuple of str, optional
        For ``codes`` and ``segments``, if present: the names behind the codes, column by column.

    Examples
    --------
    >>> batch = Batch(Schema(classes=("no", "yes")), {"probabilities": np.array([[0.9, 0.1], [0.2, 0.8]])})
    >>> batch.rows, sorted(batch.columns), batch.predicted.tolist()
    (2, ['predicted', 'probabilities'], [0, 1])
    """

    __slots__ = ("_columns", "dictionaries", "rows", "schema")

    def __init__(
        self,
        schema: Schema,
        columns: Mapping[str, Array],
        rows: int | None = None,
        dictionaries: Mapping[str, Dictionaries] | None = None,
    ) -> None:
        self.schema = schema
        self._columns = dict(columns)
        self.dictionaries = dictionaries or {}
        for name in CODED:
            if name in columns and name not in self.dictionaries:
                raise ValueError("codes and segments need dictionaries; pass dictionaries=, or use Batch.having()")
        self.rows = len(next(iter(columns.values()))) if rows is None else rows

    @property
    def columns(self) -> frozenset[str]:
        """Names of the columns present; ``predicted`` is among them if a class can be derived."""
        present = frozenset(self._columns)
        classes = self.schema.task == "classification"
        return present | {"predicted"} if classes and present & {"probabilities", "predictions"} else present

    @property
    def probabilities(self) -> Array:
        """(n, n_classes) floats in [0, 1]."""
        return self._columns["probabilities"]

    @property
    def predictions(self) -> Array:
        """(n,) the model's own predictions: class indices, or the values of a regression."""
        return self._columns["predictions"]

    @property
    def labels(self) -> Array:
        """(n,) ground truth: class indices, −1 where unlabelled; regression: floats, NaN where unlabelled.

        Multilabel: (n, n_classes) of 1, 0, and −1 where unlabelled.
        """
        return self._columns["labels"]

    @property
    def inputs(self) -> Array:
        """(n, n_numeric) numbers, NaN where missing; the columns are ``schema.numeric``."""
        return self._columns["inputs"]

    @property
    def codes(self) -> Array:
        """(n, n_categorical) indices into `categories`, −1 where missing; the columns are ``schema.categorical``."""
        return self._columns["codes"]

    @property
    def hashes(self) -> Array:
        """(n, n_hashed) hashes of values, 64 bits; the columns are ``schema.hashed``."""
        return self._columns["hashes"]

    @property
    def lengths(self) -> Array:
        """(n, n_hashed) characters of these values, −1 where missing."""
        return self._columns["lengths"]

    @property
    def categories(self) -> Dictionaries:
        """The names behind `codes`, column by column; a name may occur in no row."""
        return self.dictionaries["codes"]

    @property
    def segments(self) -> Array:
        """(n, n_segments) indices into ``dictionaries["segments"]``, −1 where missing."""
        return self._columns["segments"]

    @property
    def ids(self) -> Array:
        """(n,) integers or UTF-8 bytes."""
        return self._columns["ids"]

    @property
    def timestamps(self) -> Array:
        """(n,) int64 nanoseconds since the epoch."""
        return self._columns["timestamps"]

    @property
    def predicted(self) -> Array:
        """(n,) index of the predicted class: the model's own prediction, else argmax; binary: ``p[1] > threshold``."""
        predicted = self._columns.get("predicted")
        if predicted is None:
            predicted = self._columns.get("predictions")
        if predicted is None:
            p = self.probabilities
            predicted = (p[:, 1] > self.schema.threshold).astype(np.intp) if p.shape[1] == 2 else p.argmax(axis=1)
        self._columns["predicted"] = predicted
        return predicted

    def raw(self) -> Mapping[str, Array]:
        """Return the columns held, including derived ones that were used."""
        return self._columns

    @property
    def nbytes(self) -> int:
        """Bytes of the columns held, and of the names behind codes."""
        total = 0
        for column in self._columns.values():
            total += column.nbytes
        for names in self.dictionaries.values():
            total += categories.nbytes(names, self.rows)
        return total

    def having(self, **columns: Array) -> Batch:
        """Return the same rows with these columns added or replaced."""
        return Batch(self.schema, {**self._columns, **columns}, self.rows, self.dictionaries)

    def only(self, names: Collection[str]) -> Batch:
        """Return the same rows with these columns only."""
        columns = {name: column for name, column in self._columns.items() if name in names}
        return Batch(self.schema, columns, self.rows, self.dictionaries)

    def take(self, index: Any) -> Batch:
        """Return the rows selected by a mask, a slice or an index array."""
        columns = {name: column[index] for name, column in self._columns.items()}
        rows = None if columns else len(np.arange(self.rows)[index])
        return Batch(self.schema, columns, rows, self.dictionaries)

    def compacted(self) -> Batch:
        """Return the same rows without names that no row has, where there are more names than rows."""
        columns, dictionaries = dict(self._columns), dict(self.dictionaries)
        for name in dictionaries.keys() & columns.keys():
            columns[name], dictionaries[name] = categories.compact(columns[name], dictionaries[name])
        return Batch(self.schema, columns, self.rows, dictionaries)

    def aligned(self, schema: Schema) -> Batch:
        """Return the same rows under another schema: features and segments by name, missing where this lacks one.

        Rows that have inputs have all columns of inputs: those of a kind that none of these rows has are missing.
        """
        columns, dictionaries = dict(self._columns), dict(self.dictionaries)
        groups = (("inputs", schema.numeric), ("codes", schema.categorical), ("lengths", schema.hashed))
        wanted = {name for name, features in groups if features}
        present = {"inputs", "codes", "lengths"} & columns.keys()
        if self.schema is schema and (not present or present == wanted):
            return self
        if "predicted" not in columns and "predicted" in self.columns:
            columns["predicted"] = self.predicted  # by the threshold of this schema
        own = self.schema
        if present and (present != wanted or (own.features, own.hashed) != (schema.features, schema.hashed)):
            if schema.numeric:
                inputs = columns.get("inputs", np.empty((self.rows, 0)))
                where = _places(self.schema.numeric if "inputs" in columns else (), schema.numeric)
                if (where < 0).any():
                    inputs = np.column_stack([inputs, np.full(self.rows, np.nan)])  # −1 then selects missing values
                columns["inputs"] = inputs[:, where]
            else:
                columns.pop("inputs", None)
            self._align(columns, dictionaries, "codes", self.schema.categorical, schema.categorical)
            self._align_hashes(columns, schema.hashed)
        if "segments" in columns and self.schema.segments != schema.segments:
            self._align(columns, dictionaries, "segments", self.schema.segments, schema.segments)
        return Batch(schema, columns, self.rows, dictionaries)

    def _align(
        self, columns: dict[str, Array], dictionaries: dict[str, Dictionaries], name: str, present: Names, wanted: Names
    ) -> None:
        if not wanted:
            columns.pop(name, None)
            return
        codes = columns.get(name, np.empty((self.rows, 0), dtype=np.int8))
        where = _places(present if name in columns else (), wanted)
        lacking = np.full(self.rows, categories.MISSING, dtype=codes.dtype)
        columns[name] = np.column_stack([codes, lacking])[:, where]  # −1 selects missing values, of no name
        dictionaries[name] = tuple((*dictionaries.get(name, ()), ())[i] for i in where.tolist())

    def _align_hashes(self, columns: dict[str, Array], wanted: Names) -> None:
        where = _places(self.schema.hashed if "lengths" in columns else (), wanted)
        for name, dtype, missing in (("hashes", np.uint64, 0), ("lengths", np.int16, categories.MISSING)):
            column = columns.pop(name, np.empty((self.rows, 0), dtype=dtype))
            if wanted:
                lacking = np.full(self.rows, missing, dtype=dtype)
                columns[name] = np.column_stack([column, lacking])[:, where]


def _places(present: Names, wanted: Names) -> Array:
    place = {name: i for i, name in enumerate(present)}
    return np.array([place.get(name, -1) for name in wanted], dtype=np.intp)


def concat(schema: Schema, batches: Sequence[Batch]) -> Batch:
    """Join all rows to one batch, in order; NaN or −1 stands for missing where batches lack a column."""
    if len(batches) == 1:
        return batches[0]
    rows = sum(batch.rows for batch in batches)
    if len({frozenset(batch.raw()) for batch in batches}) > 1:
        # Derive predictions now: none may be derived from values that are filled in below.
        for batch in batches:
            if "predicted" in batch.columns:
                batch.predicted  # noqa: B018 - reading it keeps it among the columns
    names = dict.fromkeys(name for batch in batches for name in batch.raw())
    columns: dict[str, Array] = {}
    dictionaries: dict[str, Dictionaries] = {}
    for name in names:
        present = next(batch.raw()[name] for batch in batches if name in batch.raw())
        parts = [_column(batch, name, present) for batch in batches]
        if name in CODED:
            lacking = ((),) * present.shape[1]
            names_of_codes = [batch.dictionaries[name] if name in batch.raw() else lacking for batch in batches]
            columns[name], dictionaries[name] = categories.join(list(zip(parts, names_of_codes, strict=True)))
        else:
            columns[name] = np.concatenate(parts)
    return Batch(schema, columns, rows, dictionaries)


def _column(batch: Batch, name: str, like: Array) -> Array:
    """Return a column of the batch; if it has none, missing values in the form of another batch's column."""
    if name in batch.raw():
        return batch.raw()[name]
    shape = (batch.rows, *like.shape[1:])
    if name in CODED or name == "lengths" or (like.dtype.kind in "iu" and (like.ndim == 1 or name == "labels")):
        return np.full(shape, -1, dtype=like.dtype)
    if like.dtype.kind == "S" or name == "hashes":
        return np.zeros(shape, dtype=like.dtype)
    return np.full(shape, np.nan, dtype=np.result_type(like.dtype, np.float16))


def _short(names: Names) -> str:
    return str(list(names[:5]))[:-1] + (", …]" if len(names) > 5 else "]")
