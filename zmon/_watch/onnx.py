"""ONNX Runtime sessions: ``run`` with names of outputs and inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from zmon._watch.reading import Arguments, Keywords, Reading, Unpublished
from zmon._watch.recorder import Recorder, columns_in_order
from zmon.batch import Array
from zmon.errors import Rejected

_REMEDY = "call run, or watch a function that returns arrays"


class Session:
    """Reads calls of ``run``. Of several outputs it takes the probabilities: the maps of a ZipMap, or (n, k) floats."""

    methods = frozenset(("run", "run_with_ort_values", "run_with_iobinding", "run_with_ortvaluevector", "run_async"))

    def __init__(self, model: Any, publisher: Recorder, output: str | None) -> None:
        self.output = output or ("value" if publisher.task == "regression" else "proba")
        self._publisher = publisher
        self._names = [each.name for each in model.get_outputs()]

    def read(self, name: str, result: Any, args: Arguments, kwargs: Keywords) -> Reading | None:
        """Read a call; see `Adapter`."""
        if name != "run":
            if name == "run_with_ort_values" and result:
                raise Rejected("output_missing", f"{name} returns no arrays; {_REMEDY}")
            raise Unpublished(_REMEDY)
        names, feed = (*args, None, None)[:2]
        names = names or kwargs.get("output_names") or self._names
        feed = feed if feed is not None else kwargs.get("input_feed", {})
        return Reading(self.output, self._chosen(dict(zip(names, result, strict=True))), _inputs(feed))

    def _chosen(self, outputs: Mapping[str, Any]) -> Any:
        """Return the output to publish."""
        found = {name: value for name, value in outputs.items() if self._fits(value)}
        if len(found) > 1:  # their names may tell
            found = {name: value for name, value in found.items() if "prob" in name.lower()} or found
        if len(found) == 1:
            value = next(iter(found.values()))
            return self._matrix(value) if isinstance(value, list) else value
        names = ", ".join(outputs)
        if found:
            raise Rejected("multi_output", f"run returned {names}; request the one to publish by output_names")
        wanted = "labels" if self.output == "label" else "probabilities" if self.output == "proba" else self.output
        raise Rejected("output_missing", f"run returned {names}, without {wanted}; request them by output_names")

    def _fits(self, value: Any) -> bool:
        if isinstance(value, list):  # of a ZipMap, {class: probability} for each row
            return self.output == "proba" and bool(value) and isinstance(value[0], Mapping)
        if not isinstance(value, np.ndarray):
            return False
        if self.output == "label":
            return bool(value.dtype.kind in "iuOUSb" and value.size == len(value))
        return bool(value.dtype.kind == "f" or value.dtype.name == "bfloat16")

    def _matrix(self, rows: Sequence[Mapping[Any, float]]) -> Array:
        classes = list(rows[0])
        order = columns_in_order(self._publisher, classes) if len(classes) > 1 else None
        pick = itemgetter(*(classes if order is None else [classes[i] for i in order]))
        return np.array([pick(row) for row in rows], dtype=np.float32)


def _inputs(feed: Mapping[str, Any]) -> Any:
    """Return the one matrix of inputs, or the inputs by name."""
    value = next(iter(feed.values())) if len(feed) == 1 else None
    return feed if value is None or np.ndim(value) < 2 or np.shape(value)[1] == 1 else value
