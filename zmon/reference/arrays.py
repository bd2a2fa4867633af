"""From arrays and frames, as a model's owner has them, to batches; read in the same way as by `publish`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zmon._capture.assembler import Assembler
from zmon._wire.frames import Topic, decode, decode_schema, encode_batch
from zmon.batch import SLACK, Batch, concat
from zmon.errors import ConfigurationError, Rejected
from zmon.reference import build
from zmon.reference.document import Profile

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

    def batches(
        self, probabilities: Any = None, inputs: Any = None, labels: Any = None, predictions: Any = None
    ) -> list[Batch]:
        """Return the rows as batches; ConfigurationError if they are invalid."""
        try:
            return self.capture(probabilities, inputs, labels, predictions)
        except Rejected as error:
            raise ConfigurationError(f"{error} ({error.reason})") from None

    def capture(self, *args: Any, **kwargs: Any) -> list[Batch]:
        """Return the rows as batches; Rejected with the reason that a publisher or collector would count.

        The arguments are those of `batches`, and the others of `Publisher.publish` by name.
        """
        pieces, _ = self._assembler.assemble(0, *args, **kwargs)
        batches = []
        for layout, piece, _ in pieces:
            arrays = layout.of_rows(piece.rows)
            frames = encode_batch(_TOPIC, stream=b"\0" * 16, schema=layout.schema, first=1, rows=piece.rows, base=1,
                                  ts=piece.ts, arrays=arrays, buffers=piece.buffers)  # fmt: skip
            message = decode([bytes(frame) for frame in frames])
            schema = decode_schema(self._assembler.schemas[layout.schema], layout.schema)
            columns = dict(message.columns)
            p = columns.get("probabilities")
            if p is not None:
                if not (p.min() >= 0.0 and p.max() <= SLACK):
                    raise Rejected("probabilities_range", f"probabilities from {p.min():.4g} to {p.max():.4g}")
                if p.ndim == 1:
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
