"""CatBoost: the type of a prediction is an argument of ``predict``, and a single row may be given without its axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from zmon._watch.estimators import Estimator
from zmon._watch.reading import Arguments, Keywords, Reading
from zmon.errors import Rejected

_PROBABILITIES = {"Probability": "proba", "LogProbability": "log_proba"}


class CatBoost(Estimator):
    """Reads the calls of CatBoost's classifiers, regressors, and of its class ``CatBoost``."""

    def _check_output(self, output: str | None) -> None:
        """Accept every output: `prediction_type` decides what is returned."""

    def read(self, name: str, result: Any, args: Arguments, kwargs: Keywords) -> Reading | None:
        """Read a call; see `Adapter`."""
        read = super().read(name, result, args, kwargs)
        if read is None or not _is_one_row(read.given):
            return read
        values = np.reshape(read.result, (1, -1) if read.output in ("proba", "log_proba") else -1)
        return read._replace(result=values, one_row=True)

    def _output_of(self, name: str, args: Arguments, kwargs: Keywords) -> str | None:
        if name != "predict" or self.output == "value":
            return super()._output_of(name, args, kwargs)
        default = "Class" if hasattr(self.model, "predict_proba") else "RawFormulaVal"
        kind = args[1] if len(args) > 1 else kwargs.get("prediction_type", default)
        if kind == "Class":
            return "label" if default != "Class" else super()._output_of(name, args, kwargs)
        if self.output == "label":
            return None
        if kind in _PROBABILITIES:
            self._probabilities_seen = True
            return _PROBABILITIES[kind]
        if kind == "RawFormulaVal" and self.output == "logits":
            return "logits"
        raise Rejected(
            "decision_function",
            f"predictions of type {kind} are not probabilities; pass prediction_type='Probability', or watch the model "
            "with output='logits' if these are logits",
        )


def _is_one_row(given: Any) -> bool:
    if isinstance(given, list | tuple):
        return bool(given) and np.isscalar(given[0])
    return getattr(given, "ndim", 0) == 1
