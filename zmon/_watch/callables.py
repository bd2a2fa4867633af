"""Keras models, PyTorch modules, compiled functions, and any other callable."""

from __future__ import annotations

from typing import Any

from zmon._watch import call
from zmon._watch.reading import Arguments, Keywords, Reading
from zmon._watch.recorder import Recorder
from zmon.errors import ConfigurationError, Rejected


class CallableModel:
    """Reads calls of the model itself, and those of ``predict`` if the model is Keras's."""

    def __init__(self, model: Any, publisher: Recorder, output: str | None) -> None:
        self.output = output or ("value" if publisher.task == "regression" else "proba")
        self._model = model
        if hasattr(model, "predict_on_batch"):
            self.methods = frozenset(("predict", "predict_on_batch", "__call__"))
        elif callable(model):
            self.methods = frozenset(("__call__",))
        else:
            hint = "; watch one of its signatures" if hasattr(model, "signatures") else ""
            raise ConfigurationError(
                f"{type(model).__name__} has no predict_proba, no predict, and cannot be called{hint}"
            )
        self._declared = output is not None

    def read(self, name: str, result: Any, args: Arguments, kwargs: Keywords) -> Reading | None:
        """Read a call; see `Adapter`."""
        check_mode(self._model, kwargs)
        given = call.argument(args, kwargs)
        if not hasattr(result, "logits") or call.is_frame(result):
            return Reading(self.output, result, given)
        if self.output == "proba" and self._declared:
            raise Rejected("probabilities_range", "the call returns logits; watch the model with output='logits'")
        return Reading("logits" if self.output == "proba" else self.output, result.logits, given)


def check_mode(model: Any, kwargs: Keywords) -> None:
    """Reject a call in training mode."""
    if kwargs.get("training") is True or getattr(model, "training", False) is True:
        raise Rejected("training_mode", "the model is in training mode; call its eval() before serving")
