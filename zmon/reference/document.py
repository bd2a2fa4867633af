"""A reference profile: a model's inputs, predictions and labels while it was sound. Holds no rows of the data. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from os import PathLike
from pathlib import Path

from zmon._files import read_bounded
from zmon.batch import Schema
from zmon.errors import ConfigurationError
from zmon.reference import codec
from zmon.reference.tables import Content

NAMED = 5  # columns in a message


@dataclass(frozen=True, eq=False)
class Profile(Content):
    """The distributions of a model's rows while it was sound; made by `zmon.profile` or ``zmon profile``.

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
        By class, the map that calibrates its probability; None for a class whose probabilities are best as they are.
        None as a whole without enough labels: performance is then not estimated.
    own : Own or None
    error : float
        Standard error of a quantile's rank: 0 if quantiles are of all rows, otherwise that of a sample.
    """

    @cached_property
    def digest(self) -> str:
        """A hash of the content: counts made against a profile with another digest cannot be compared with this."""
        return blake2b(self.to_bytes(), digest_size=8).hexdigest()

    def to_bytes(self) -> bytes:
        """Return the content of a ``.zmon`` file."""
        return codec.encode(self)

    @staticmethod
    def from_bytes(data: bytes, name: str = "the profile") -> Profile:
        """Read the result of `to_bytes`; ConfigurationError naming `name` for anything else, or a newer version."""
        return Profile(**vars(codec.decode(data, name)))

    def save(self, path: str | PathLike[str]) -> None:
        """Write a ``.zmon`` file."""
        Path(path).write_bytes(self.to_bytes())

    @staticmethod
    def load(path: str | PathLike[str]) -> Profile:
        """Read a ``.zmon`` file; ConfigurationError if it is not one."""
        try:
            data = read_bounded(path, codec.LIMIT)
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise ConfigurationError(f"{path} is not a reference profile: {error}") from None
        return Profile.from_bytes(data, str(path))

    def conflict(self, schema: Schema) -> str:
        """Return why rows of this schema cannot be compared with the profile; empty if they can.

        Columns that the profile lacks are not a reason, and neither is a schema without any inputs.
        """
        if schema.task != self.schema.task:
            return f"the task is {schema.task!r}, the profile's {self.schema.task!r}"
        if schema.classes != self.schema.classes:
            given, expected = (", ".join(side.classes[:NAMED]) for side in (schema, self.schema))
            counts = len(schema.classes), len(self.schema.classes)
            return f"the classes are {given} ({counts[0]}), the profile's {expected} ({counts[1]})"
        if not schema.features:
            return ""
        reasons = list(self._differences(dict(zip(schema.features, schema.kinds, strict=True))))
        if not reasons:
            return ""
        more = f" and {len(reasons) - NAMED} more" if len(reasons) > NAMED else ""
        return f"columns differ from the profile's: {', '.join(reasons[:NAMED])}{more}"

    def _differences(self, kinds: dict[str, str]) -> Iterator[str]:
        for feature, kind in zip(self.schema.features, self.schema.kinds, strict=True):
            if feature not in kinds:
                yield f"{feature!r} is missing"
            elif kinds[feature] != kind:
                yield f"{feature!r} is {kinds[feature]}, not {kind}"
