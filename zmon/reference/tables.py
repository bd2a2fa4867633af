"""The content of a reference profile: tables of numeric columns, categorical columns, calibration. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from zmon.batch import Array, Schema
from zmon.reference import bins
from zmon.reference.calibration import Knots


@dataclass(frozen=True, eq=False)
class Numeric:
    """Numeric columns side by side.

    Attributes
    ----------
    names : tuple of str
    edges : ndarray, (most edges, columns)
        Inner edges of each column's bins, filled up with ∞.
    counts : ndarray, (most edges + 2, columns)
        Rows in each bin, the last for missing values.
    quantiles : ndarray, (256, columns)
        At the middle of 256 equal parts; NaN for columns without a finite value.
    mean, std, low, high : ndarray, (columns,)
        Of the finite values; NaN if there are none.
    """

    names: tuple[str, ...]
    edges: Array
    counts: Array
    quantiles: Array
    mean: Array
    std: Array
    low: Array
    high: Array

    @cached_property
    def bins(self) -> Array:
        """The counts, with −1 for bins that a column does not have."""
        return bins.masked(self.counts, self.edges)

    @cached_property
    def place(self) -> dict[str, int]:
        """Index of each column by its name."""
        return {name: i for i, name in enumerate(self.names)}


@dataclass(frozen=True, eq=False)
class Categorical:
    """A categorical or boolean column: its categories, the most frequent first, and the rows of each.

    `other` rows had a category that is not named, `missing` rows had none.
    """

    name: str
    categories: tuple[str, ...]
    counts: Array
    other: int
    missing: int

    @cached_property
    def place(self) -> dict[str, int]:
        """Index of each category by its name."""
        return {name: i for i, name in enumerate(self.categories)}


@dataclass(frozen=True, eq=False)
class Own:
    """The distance of the reference's own windows from the whole: mean and σ of their PSI, by column."""

    windows: int
    rows: float  # of a window, on average
    mean: dict[str, float]
    std: dict[str, float]


@dataclass(frozen=True, eq=False)
class Content:
    """Everything that a profile's file holds; `Profile` documents the fields."""

    schema: Schema
    rows: int
    numeric: Numeric
    categorical: tuple[Categorical, ...]
    score: Numeric | None = None
    predicted: Array | None = None
    labels: Array | None = None
    calibration: tuple[Knots | None, ...] | None = None
    own: Own | None = None
    error: float = 0.0
