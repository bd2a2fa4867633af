"""A reference profile: what a model's inputs, predictions and labels looked like when sound. No raw rows. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from os import PathLike
from pathlib import Path

from zmon.batch import Array, Schema
from zmon.errors import ConfigurationError
from zmon.reference import bins, codec
from zmon.reference.calibration import Knots

NAMED = 5  # columns in a message


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
        At the middle of 256 equal parts; NaN for a column without a finite value.
    mean, std, low, high : ndarray, (columns,)
        Over finite values; NaN where there are none.
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
        """The counts, −1 in the place of bins that a column does not have."""
        return bins.masked(self.counts, self.edges)

    @cached_property
    def place(self) -> dict[str, int]:
        """Index of each column by its name."""
        return {name: i for i, name in enumerate(self.names)}


@dataclass(frozen=True, eq=False)
class Categorical:
    """A categorical or boolean column: its categories, the most frequent first, and how many rows had each.

    `other` rows had a category that is not named, `missing` ones none.
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
    """How far the reference's own windows lie from the whole: mean and σ of their PSI, by column."""

    windows: int
    rows: float  # of a window, on average
    mean: dict[str, float]
    std: dict[str, float]


@dataclass(frozen=True, eq=False)
class Profile:
    """What a model's rows looked like when it was sound; made by `zmon.profile` or ``zmon profile``.

    Attributes
    ----------
    schema : Schema
        Task, classes, features and their kinds.
    rows : int
    numeric : Numeric
        The numeric inputs.
    categorical : tuple of Categorical
    score : Numeric or None
        One column: ``max_prediction_proba``, or ``prediction_value`` of a regression.
    predicted, labels : ndarray or None
        Rows by class, predicted and labelled.
    calibration : tuple of Knots or None, or None
        By class, how its probability is to be read; None for a class whose probabilities are best as they are; None
        for all without enough labels, and then nothing is said of performance.
    own : Own or None
    error : float
        Standard error of a quantile's rank: 0 while quantiles are of all rows, else of a sample.
    """

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

    @cached_property
    def digest(self) -> str:
        """Names this profile's content: counts made against another cannot be compared with it."""
        return blake2b(self.to_bytes(), digest_size=8).hexdigest()

    def to_bytes(self) -> bytes:
        """The content of a ``.zmon`` file."""
        return codec.encode(self)

    @staticmethod
    def from_bytes(data: bytes, name: str = "the profile") -> Profile:
        """Read what `to_bytes` gave; ConfigurationError naming `name` for anything else, or a newer version."""
        return codec.decode(data, name)

    def save(self, path: str | PathLike[str]) -> None:
        """Write a ``.zmon`` file."""
        Path(path).write_bytes(self.to_bytes())

    @staticmethod
    def load(path: str | PathLike[str]) -> Profile:
        """Read a ``.zmon`` file; ConfigurationError when it is none."""
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
        return codec.decode(data, str(path))

    def conflict(self, schema: Schema) -> str:
        """Why rows of this schema cannot be compared with the profile; empty when they can.

        Columns that the profile does not know are no reason; neither is a schema without any inputs.
        """
        if schema.task != self.schema.task:
            return f"the task is {schema.task!r}, the profile's {self.schema.task!r}"
        if schema.classes != self.schema.classes:
            theirs, own = (", ".join(each.classes[:NAMED]) for each in (schema, self.schema))
            return f"the classes are {theirs} ({len(schema.classes)}), the profile's {own} ({len(self.schema.classes)})"
        if not schema.features:
            return ""
        there = dict(zip(schema.features, schema.kinds, strict=True))
        reasons = list(self._differing(there))
        if not reasons:
            return ""
        more = f" and {len(reasons) - NAMED} more" if len(reasons) > NAMED else ""
        return f"columns differ from the profile's: {', '.join(reasons[:NAMED])}{more}"

    def _differing(self, there: dict[str, str]) -> Iterator[str]:
        for feature, kind in zip(self.schema.features, self.schema.kinds, strict=True):
            if feature not in there:
                yield f"{feature!r} is not there"
            elif there[feature] != kind:
                yield f"{feature!r} is {there[feature]}, not {kind}"
