"""The bins of a window's reference, matched to the window's columns, in which its rows are counted. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from zmon.batch import Array, Schema
from zmon.categories import OTHER
from zmon.contract import Context
from zmon.reference import Categorical, Profile
from zmon.reference.bins import SLACK
from zmon.reference.build import BINNED

EQUAL = np.linspace(0, 1, 21)[1:-1, np.newaxis]  # edges for the highest probability, without a reference


@dataclass(frozen=True, eq=False, slots=True)
class ReferenceColumn:
    """Bins of a categorical feature: its most frequent categories, all others, and missing values."""

    name: str
    at: int  # index among the batch's columns of codes
    places: dict[str, int]  # of categories that the reference names
    binned: int
    reference: Array
    complete: bool  # the reference names all of its categories

    def count(self, codes: Array, names: Sequence[str]) -> tuple[Array, int]:
        """Return the rows in each bin, and the rows of categories that the reference does not name."""
        places = [self.places.get(name, -1) for name in names]
        bins = np.array([*(at if 0 <= at < self.binned else self.binned for at in places), self.binned + 1])
        rows = np.bincount(codes + 1, minlength=len(names) + 1)
        counts = np.zeros(self.binned + 2, dtype=np.int64)
        np.add.at(counts, bins, np.append(rows[1:], rows[0]))
        return counts, sum(int(n) for n, at in zip(rows[1:], places, strict=True) if at < 0)


class ReferenceBins:
    """Bins of a reference for windows of one schema; without a reference, only bins of the predictions."""

    def __init__(self, profile: Profile | None, schema: Schema) -> None:
        self.digest = "" if profile is None else profile.digest
        self.classes = len(schema.classes)
        self.numeric: tuple[str, ...] = ()
        self.categorical: list[ReferenceColumn] = []
        self.edges = np.empty((0, 0))
        self.bins = np.empty((2, 0), dtype=np.int64)
        self.score: Array | None = EQUAL if profile is None and schema.classes else None
        self.score_name = "max_prediction_proba"
        self.score_bins = np.zeros((len(EQUAL) + 2, 1), dtype=np.int64)
        if profile is None:
            return
        if profile.score is not None:
            score = profile.score
            self.score, self.score_name, self.score_bins = score.edges, score.names[0], score.bins
        if not schema.features:
            return
        table = profile.numeric
        self.numeric, self.edges, self.bins = table.names, table.edges, table.bins
        self._where = None if table.names == schema.numeric else [schema.numeric.index(name) for name in table.names]
        self.low = table.low - np.abs(table.low) * SLACK
        self.high = table.high + np.abs(table.high) * SLACK
        place = {name: i for i, name in enumerate(schema.categorical)}
        # Values that are hashed here or there have no names to be compared.
        self.categorical = [
            _column(feature, place[feature.name])
            for feature in profile.categorical
            if feature.name not in schema.hashed and feature.categories != (OTHER,)
        ]

    def inputs(self, values: Array) -> Array:
        """Return the columns of a batch's inputs that the reference has."""
        return values if self._where is None else values[:, self._where]

    def empty(self) -> dict[str, Any]:
        """Return empty counts."""
        score = 0 if self.score is None else len(self.score) + 2
        return {
            "of": self.digest,
            "predicted": np.zeros((self.classes, 1), dtype=np.int64),
            "labels": np.zeros((self.classes, 1), dtype=np.int64),
            "score": np.zeros((score, 1), dtype=np.int64),
            "numeric": np.zeros((len(self.edges) + 2, len(self.numeric)), dtype=np.int64),
            "outside": np.zeros(len(self.numeric), dtype=np.int64),
            "codes": [np.zeros(column.binned + 2, dtype=np.int64) for column in self.categorical],
            "new": np.zeros(len(self.categorical), dtype=np.int64),
        }


def _column(feature: Categorical, at: int) -> ReferenceColumn:
    binned = min(BINNED, len(feature.categories))
    rest = int(feature.counts[binned:].sum()) + feature.other
    reference = np.concatenate([feature.counts[:binned], [rest, feature.missing]])[:, np.newaxis]
    return ReferenceColumn(feature.name, at, feature.place, binned, reference, not feature.other)


def bins_for(ctx: Context) -> ReferenceBins:
    """Return the bins for a context. They are built once for each reference and schema."""
    return _build(ctx.reference, _SchemaKey(ctx.schema))


class _SchemaKey:
    """Key of the cache: a schema by identity, because comparing schemas costs more and a window has one object."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema

    def __hash__(self) -> int:
        return id(self.schema)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _SchemaKey) and other.schema is self.schema


@lru_cache(maxsize=64)
def _build(profile: Profile | None, key: _SchemaKey) -> ReferenceBins:
    return ReferenceBins(profile, key.schema)
