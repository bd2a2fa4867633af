"""How rows of one schema become rows of a window of another, as far as the two agree. Pure.

- Classes are matched by name. The window's order counts; rows whose classes are others than the window's do not fit.
- A column that is numeric here and boolean there is one of 0 and 1.
- A column that is hashed in the window has no names there: where rows give names, their hashes are taken. Where rows
  give hashes only and the window has names, they are counted as `__other__`.
- Another column whose kind differs is left out of the rows; everything else of them is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from zmon import categories
from zmon._wire.frames import encode_schema, schema_hash
from zmon.batch import Array, Batch, Names, Schema
from zmon.categories import MISSING

UNKNOWN = -2  # the place of a class that is not there
BOOLEANS = ("False", "True")
_AGREE = ({"numeric", "boolean"},)
_SHOWN = 5  # names in a detail
MAX_COLUMNS = 65_536  # features of a schema, as on the wire
SEGMENTS = 32  # of a window: each value of each has accumulators of its own, and a publisher has at most 8


class Fit:
    """How rows of the schema `own` fit into a window of the schema `window`.

    They must not conflict.

    Attributes
    ----------
    schema : Schema
        What `apply` returns follows this schema; it is `own` itself where nothing has to change.
    name, body : bytes
        The schema's hash and bytes, for the journal; empty where nothing has to change.
    """

    __slots__ = ("_left_out", "_order", "_own", "_place", "body", "name", "schema")

    def __init__(self, window: Schema, own: Schema) -> None:
        self._own = self.schema = own
        self._order: Array | None = None  # of the window's classes among the rows' own
        self._place: Array | None = None  # of the rows' own classes in the window's, and of −1
        self._left_out = ""
        self.name = self.body = b""
        if own.classes != window.classes:
            self._order = places(window.classes, own.classes)
            self._place = np.append(places(own.classes, window.classes), MISSING)
        kinds = dict(zip(window.features, window.kinds, strict=True))
        kept, left_out = [], []
        for feature, kind in zip(own.features, own.kinds, strict=True):
            wanted = kinds.get(feature, kind)
            if wanted == kind or {wanted, kind} in _AGREE:
                kept.append((feature, wanted))
            else:
                left_out.append(f"{feature!r} is {kind}, not {wanted}")
        self._left_out = _listed("feature", left_out)
        features, names = tuple(feature for feature, _ in kept), tuple(kind for _, kind in kept)
        # Columns that the window does not have stay as they are; they are left out when rows are aligned with it.
        wanted_hashed = {name for name, kind in kept if kind == "categorical"
                         and name in (window.hashed if name in kinds else own.hashed)}  # fmt: skip
        hashed = own.hashed
        if wanted_hashed != set(hashed):
            hashed = tuple(name for name in features if name in wanted_hashed)
        if (window.classes, features, names, hashed) != (own.classes, own.features, own.kinds, own.hashed):
            self.schema = replace(own, classes=window.classes, features=features, kinds=names, hashed=hashed)
            self.body = encode_schema(self.schema)
            self.name = schema_hash(self.body)

    def apply(self, batch: Batch) -> tuple[Batch, str]:
        """Return the rows as the window takes them, and which columns were left out of them; empty for none."""
        if self.schema is self._own:
            return batch, ""
        columns, dictionaries = dict(batch.raw()), dict(batch.dictionaries)
        if self._order is not None and self._place is not None:
            if "predicted" in batch.columns:
                columns["predicted"] = batch.predicted  # by the order and the threshold of the rows' own schema
            _reorder(columns, self._order, self._place)
        left_out = ""
        if "inputs" in columns or "codes" in columns:
            left_out = self._left_out
            if (self.schema.features, self.schema.kinds) != (self._own.features, self._own.kinds):
                unfit = self._convert(columns, dictionaries, batch.rows)
                more = _listed("feature", [f"{name!r} is boolean, and not all values are 0 or 1" for name in unfit])
                left_out = "; ".join(filter(None, (left_out, more)))
            if self.schema.hashed != self._own.hashed:
                self._rehash(columns, dictionaries)
        return Batch(self.schema, columns, batch.rows, dictionaries), left_out

    def _convert(self, columns: dict[str, Array], dictionaries: dict[str, tuple[Names, ...]], rows: int) -> list[str]:
        """Replace inputs and codes by the columns of the fitted schema; return the features that have no value."""
        inputs, codes = columns.pop("inputs", None), columns.pop("codes", None)
        names = dictionaries.pop("codes", ())
        numbers = {} if inputs is None else {name: inputs[:, i] for i, name in enumerate(self._own.numeric)}
        coded = {} if codes is None else {name: (codes[:, i], names[i]) for i, name in enumerate(self._own.categorical)}
        unfit = []
        numeric = []
        for feature in self.schema.numeric:
            if feature in coded:
                numeric.append(_as_numbers(*coded[feature]))
            else:
                numeric.append(numbers.get(feature, np.full(rows, np.nan)))
        pairs: list[tuple[Array, Names]] = []
        for feature in self.schema.categorical:
            if feature in numbers:
                booleans = _as_booleans(numbers[feature])
                if booleans is None:
                    unfit.append(feature)
                pairs.append((np.full(rows, MISSING, np.int8) if booleans is None else booleans, BOOLEANS))
            else:
                pairs.append(coded.get(feature, (np.full(rows, MISSING, np.int8), ())))
        if numeric:
            columns["inputs"] = np.column_stack(numeric)
        if pairs:
            columns["codes"] = np.column_stack([column for column, _ in pairs])
            dictionaries["codes"] = tuple(names for _, names in pairs)
        return unfit

    def _rehash(self, columns: dict[str, Array], dictionaries: dict[str, tuple[Names, ...]]) -> None:
        """Replace hashes and lengths by those of the fitted schema, and hash the names of columns that have none."""
        hashes, lengths = columns.pop("hashes", None), columns.pop("lengths", None)
        if not self.schema.hashed or "codes" not in columns:
            return
        codes, names = columns["codes"].copy(), list(dictionaries["codes"])
        found = []
        for feature in self.schema.hashed:
            if hashes is not None and lengths is not None and feature in self._own.hashed:
                at = self._own.hashed.index(feature)
                found.append((hashes[:, at], lengths[:, at]))
            else:
                at = self.schema.categorical.index(feature)
                codes[:, at], *pair = categories.hashed(codes[:, at], names[at])
                names[at] = (categories.OTHER,)
                found.append((pair[0], pair[1]))
        columns["codes"], dictionaries["codes"] = codes, tuple(names)
        columns["hashes"], columns["lengths"] = (np.column_stack(parts) for parts in zip(*found, strict=True))


def conflict(window: Schema, own: Schema) -> str:
    """Return why rows of `own` have no place in a window, whatever is left out of them; empty if they have one."""
    if own.task != window.task:
        return f"the task is {own.task!r}, and the window's is {window.task!r}"
    if own.classes == window.classes:
        return ""
    here, there = set(own.classes), set(window.classes)
    if here == there:
        return ""
    lacking = [repr(name) for name in own.classes if name not in there]
    more = [repr(name) for name in window.classes if name not in here]
    return "; ".join(filter(None, (
        _listed("the window's rows have no class", lacking),
        _listed("the window's rows also have the class", more),
    )))  # fmt: skip


def opening(first: Schema, seen: Schema | None, most: int = MAX_COLUMNS) -> Schema:
    """Return the schema of a window whose first rows have the schema `first`; `seen` is that of rows before it.

    The first rows decide on the kinds of their columns. The order of the classes stays what it was, and a column of
    numbers of which some publishers send booleans stays numeric. Beyond `most` columns, those of `seen` have no room.
    """
    return first if seen is None else combined(ordered(first, seen), seen, most)


def ordered(schema: Schema, seen: Schema | None) -> Schema:
    """Return a schema with its classes in the order in which they were seen before; itself if they are others."""
    if seen is None or schema.classes == seen.classes or conflict(schema, seen):
        return schema
    return replace(schema, classes=seen.classes)


def combined(schema: Schema, other: Schema, most: int = MAX_COLUMNS) -> Schema:
    """Return a schema with the columns that only `other` has, numeric where one of the two is; `schema` if they differ
    in their classes. There are at most `most` features, and SEGMENTS: the last ones of `other` are left out."""
    if other is schema or conflict(schema, other):
        return schema
    numeric = {name for name, kind in zip(other.features, other.kinds, strict=True) if kind == "numeric"}
    kinds = tuple(
        "numeric" if kind == "boolean" and name in numeric else kind
        for name, kind in zip(schema.features, schema.kinds, strict=True)
    )
    if kinds != schema.kinds:
        schema = replace(schema, kinds=kinds)
    whole = schema.union(other)
    segments = min(most, SEGMENTS)
    if len(whole.features) <= most and len(whole.segments) <= segments:
        return whole
    features = whole.features[: max(most, len(schema.features))]
    kept = set(features)
    return replace(
        whole,
        features=features,
        kinds=whole.kinds[: len(features)],
        segments=whole.segments[: max(segments, len(schema.segments))],
        hashed=tuple(name for name in whole.hashed if name in kept),
    )


def lacking(whole: Schema, schema: Schema) -> int:
    """Return how many columns of `schema` are not in `whole`."""
    return len(set(schema.features).difference(whole.features)) + len(set(schema.segments).difference(whole.segments))


def places(names: Names, among: Names) -> Array:
    """Return, for each of `names`, its index among others; UNKNOWN where it is not there."""
    place = {name: i for i, name in enumerate(among)}
    return np.array([place.get(name, UNKNOWN) for name in names], dtype=np.int64)


def reorder(columns: dict[str, Array], own: Names, wanted: Names) -> None:
    """Change the columns of classes from one order of the same classes to another, in place."""
    if own != wanted:
        _reorder(columns, places(wanted, own), np.append(places(own, wanted), MISSING))


def _reorder(columns: dict[str, Array], order: Array, place: Array) -> None:
    if "probabilities" in columns:
        columns["probabilities"] = columns["probabilities"][:, order]
    for name in ("predictions", "predicted", "labels"):
        column = columns.get(name)
        if column is not None:
            columns[name] = column[:, order] if column.ndim == 2 else place[column].astype(column.dtype)


def _as_numbers(codes: Array, names: Sequence[str]) -> Array:
    value = {"False": 0.0, "True": 1.0}
    table = np.array([*(value.get(name, np.nan) for name in names), np.nan])  # the last is that of −1
    return table[codes]


def _as_booleans(numbers: Array) -> Array | None:
    """Return numbers as codes of BOOLEANS; None if some are neither 0 nor 1."""
    missing = np.isnan(numbers)
    if not (missing | (numbers == 0) | (numbers == 1)).all():
        return None
    return np.where(missing, MISSING, numbers == 1).astype(np.int8)


def _listed(what: str, items: Sequence[str]) -> str:
    shown = ", ".join(items[:_SHOWN])
    return f"{what} {shown}{', …' if len(items) > _SHOWN else ''}" if items else ""
