"""From arrays and frames, as a model's owner has them, to batches: read as `publish` reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zmon._capture.assembler import Assembler
from zmon._wire.frames import Topic, decode, decode_schema, encode_batch
from zmon.batch import SLACK, Batch, Schema, concat
from zmon.errors import ConfigurationError, Rejected
from zmon.reference import build
from zmon.reference.document import Profile

_TOPIC = Topic("profile", "", "profile").encode()


class Reader:
    """Turns arguments like those of `Publisher.publish` into batches of one schema, however many calls they come in.

    Parameters are those of `Publisher`.
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
        self._assembler = Assembler(
            task=task,
            classes=classes,
            features=features,
            include=None,
            exclude=None,
            threshold=threshold,
            tags={},
            sample_rate=1.0,
            kinds=kinds,
        )

    def batches(
        self,
        probabilities: Any = None,
        inputs: Any = None,
        labels: Any = None,
        predictions: Any = None,
    ) -> list[Batch]:
        """The rows; ConfigurationError says what is wrong with them."""
        try:
            return self.capture(probabilities, inputs, labels, predictions)
        except Rejected as error:
            raise ConfigurationError(f"{error} ({error.reason})") from None

    def capture(
        self,
        probabilities: Any = None,
        inputs: Any = None,
        labels: Any = None,
        predictions: Any = None,
        ids: Any = None,
        timestamps: Any = None,
        segments: Any = None,
    ) -> list[Batch]:
        """The rows; Rejected with the reason under which a publisher or its collector would count them."""
        pieces, _ = self._assembler.assemble(
            0, probabilities, inputs, labels, predictions, ids=ids, timestamps=timestamps, segments=segments
        )
        found = []
        for layout, piece, _ in pieces:
            arrays = [[name, dtype, [piece.rows] if width is None else [piece.rows, width]]
                      for name, dtype, width in layout.arrays]  # fmt: skip
            frames = encode_batch(_TOPIC, stream=b"\0" * 16, schema=layout.schema, first=1, rows=piece.rows, base=1,
                                  ts=piece.ts, arrays=arrays, buffers=piece.buffers)  # type: ignore[arg-type] # fmt: skip
            message = decode([bytes(frame) for frame in frames])
            schema = decode_schema(self._assembler.schemas[layout.schema], layout.schema)
            columns = dict(message.columns)
            p = columns.get("probabilities")
            if p is not None:
                if not (p.min() >= 0.0 and p.max() <= SLACK):
                    raise Rejected("probabilities_range", f"probabilities from {p.min():.4g} to {p.max():.4g}")
                if p.ndim == 1:
                    columns["probabilities"] = np.column_stack([1.0 - p, p])
            found.append(Batch(schema, columns, message.rows, message.dictionaries))
        return found


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
    """The reference profile of rows that are at hand; ``zmon profile`` makes it of files larger than memory.

    Parameters
    ----------
    probabilities, inputs, labels, predictions
        As in `Publisher.publish`. Use rows that the model was not fitted on, as it will see in production: on its
        training rows it is surer than it will ever be.
    classes, features, kinds, threshold, task
        As in `Publisher`.
    window_rows : int
        Rows of the reference's own windows, from which thresholds can be learned.

    Returns
    -------
    Profile
        Its ``save(path)`` writes the file that ``reference = "…"`` in zmon.toml names.

    Raises
    ------
    ConfigurationError
        The rows are none that could be published.

    Examples
    --------
    >>> import numpy as np, zmon
    >>> random = np.random.default_rng(0)
    >>> made = zmon.profile(random.dirichlet((1, 1), 500), random.normal(40, 9, (500, 1)), features=["age"])
    >>> made.rows, made.numeric.names, made.numeric.counts.sum()
    (500, ('age',), np.int64(500))
    """
    reader = Reader(classes=classes, features=features, kinds=kinds, threshold=threshold, task=task)
    batches = reader.batches(probabilities, inputs, labels, predictions)
    if not batches:
        raise ConfigurationError("a profile needs rows; none were given")
    whole = concat(_widest(batches), [batch.aligned(_widest(batches)) for batch in batches])
    return build.from_batches(lambda: [whole], window_rows=window_rows)


def _widest(batches: Sequence[Batch]) -> Schema:
    """The schema of the last batch: later ones know all columns of earlier ones."""
    return batches[-1].schema
