"""From arrays and frames, as a model's owner has them, to batches; read in the same way as by `publish`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zmon._capture.assembler import Assembler
from zmon._capture.snapshot import Arguments, take
from zmon._transport.conversion import Conversion
from zmon._wire.frames import Topic, decode, decode_schema, encode_batch
from zmon.batch import Batch, concat
from zmon.errors import ConfigurationError, Rejected
from zmon.reference import build
from zmon.reference.document import Profile

log = logging.getLogger("zmon")

_TOPIC = Topic("profile", "", "profile").encode()


class Reader:
    """Turns arguments like those of `Publisher.publish` into batches of one schema, over any number of calls.

    The parameters are those of `Publisher`.
    """

    def __init__(
        self,
        *,
        classes: Sequence[object] | int | None = None,
        features: Sequence[str] | None = None,
        kinds: Mapping[str, str] | None = None,
        threshold: float = 0.5,
        task: str = "classification",
    ) -> None:
        self._assembler = Assembler(task=task, classes=classes, features=features, threshold=threshold, kinds=kinds)
        self._logged: set[str] = set()  # reasons

    def batches(
        self, probabilities: Any = None, inputs: Any = None, labels: Any = None, predictions: Any = None
    ) -> list[Batch]:
        """Return the rows as batches; ConfigurationError if any part of them is invalid."""
        given = Arguments(probabilities, inputs, labels, predictions)
        made = self._convert(given)
        for reason, _, detail in (*made.rejected, *made.degraded):
            if reason != "probabilities_sum":  # legitimate for independent classes
                raise ConfigurationError(f"{detail} ({reason})")
        return self._batches(made)

    def capture(
        self, probabilities: Any = None, inputs: Any = None, labels: Any = None, predictions: Any = None, **kwargs: Any
    ) -> list[Batch]:
        """Return the rows as batches; Rejected with the reason that a publisher would count if rows cannot be taken.

        Parts that a publisher would leave out are left out, and logged once a reason. The arguments are those of
        `batches`, and the others of `Publisher.publish` by name.
        """
        made = self._convert(Arguments(probabilities, inputs, labels, predictions, **kwargs))
        for loss in made.rejected:
            raise Rejected(loss.reason, loss.detail)
        for loss in made.degraded:
            if loss.reason not in self._logged:
                self._logged.add(loss.reason)
                log.warning("zmon: rows are read without a part that is invalid (%s): %s", loss.reason, loss.detail)
        return self._batches(made)

    def _convert(self, given: Arguments) -> Conversion:
        return self._assembler.convert([take("batch", 0, given, self._assembler.selection, ())])

    def _batches(self, made: Conversion) -> list[Batch]:
        batches = []
        for layout, piece, _ in made.pieces:
            arrays = layout.of_rows(piece.rows)
            frames = encode_batch(_TOPIC, stream=b"\0" * 16, schema=layout.schema, first=1, rows=piece.rows, base=1,
                                  ts=piece.ts, arrays=arrays, buffers=piece.buffers)  # fmt: skip
            message = decode([bytes(frame) for frame in frames])
            schema = decode_schema(self._assembler.schemas[layout.schema], layout.schema)
            columns = dict(message.columns)
            p = columns.get("probabilities")
            if p is not None and p.ndim == 1:
                columns["probabilities"] = np.column_stack([1.0 - p, p])
            batches.append(Batch(schema, columns, message.rows, message.dictionaries))
        return batches


def profile(
    probabilities: Any = None,
    inputs: Any = None,
    labels: Any = None,
    *,
    predictions: Any = None,
    classes: Sequence[object] | int | None = None,
    features: Sequence[str] | None = None,
    kinds: Mapping[str, str] | None = None,
    threshold: float = 0.5,
    task: str = "classification",
    window_rows: int = build.WINDOW_ROWS,
) -> Profile:
    """Make the reference profile of rows in memory; ``zmon profile`` makes one from files larger than memory.

    Parameters
    ----------
    probabilities, inputs, labels, predictions
        As in `Publisher.publish`. Use rows like those in production that the model was not fitted on: it is more
        confident on its training rows than it will ever be again.
    classes, features, kinds, threshold, task
        As in `Publisher`.
    window_rows : int
        Rows per window of the reference itself; the windows serve to learn thresholds.

    Returns
    -------
    Profile
        Its ``save(path)`` writes the file that ``reference = "…"`` in zmon.toml names.

    Raises
    ------
    ConfigurationError
        The rows could not be published.

    Examples
    --------
    >>> import numpy as np, zmon
    >>> random = np.random.default_rng(0)
    >>> profile = zmon.profile(random.dirichlet((1, 1), 500), random.normal(40, 9, (500, 1)), features=["age"])
    >>> profile.rows, profile.numeric.names, profile.numeric.counts.sum()
    (500, ('age',), np.int64(500))
    """
    reader = Reader(classes=classes, features=features, kinds=kinds, threshold=threshold, task=task)
    batches = reader.batches(probabilities, inputs, labels, predictions)
    if not batches:
        raise ConfigurationError("a profile needs rows; none were given")
    widest = batches[-1].schema  # later schemas have all columns of earlier ones
    whole = concat(widest, [batch.aligned(widest) for batch in batches])
    return build.from_batches(lambda: [whole], window_rows=window_rows)
