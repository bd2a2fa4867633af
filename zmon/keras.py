"""A Keras callback that publishes evaluation data with their labels when an evaluation ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zmon._capture.columns import rejection
from zmon._watch.recorder import Recorder
from zmon._watch.watcher import Watcher


class EvaluationCallback:
    """Publishes a model's predictions for evaluation data together with the labels, batch by batch.

    It runs after each ``evaluate``, and after each epoch of a ``fit`` with validation data. Keras passes neither the
    rows nor the predictions to callbacks, so the data are given here and predicted once more.

    Parameters
    ----------
    publisher : Publisher
    x, y : array_like
        Rows and their labels: indices, names or one-hot.
    output : {"proba", "logits", "value"}, optional
        What the model returns, as in `zmon.watch`.
    batch_size : int
        Rows per batch.

    Examples
    --------
    ::

        model.evaluate(x_test, y_test, callbacks=[EvaluationCallback(publisher, x_test, y_test)])
    """

    async_safe = True  # does nothing per batch of Keras

    def __init__(self, publisher: Recorder, x: Any, y: Any, output: str | None = None, batch_size: int = 256) -> None:
        self.model: Any = None
        self.params: Any = None
        self._publisher = publisher
        self._x, self._y = x, y
        self._output = output
        self._batch_size = batch_size

    def set_model(self, model: Any) -> None:
        """Remember the model; Keras calls this."""
        self.model = getattr(model, "__wrapped__", model)

    def set_params(self, params: Any) -> None:
        """Remember the parameters of the run; Keras calls this."""
        self.params = params

    def on_test_end(self, logs: Any = None) -> None:
        """Publish the evaluation data; Keras calls this when an evaluation ends."""
        try:
            watcher = Watcher(self.model, self._publisher, self._output, True)
            for start in range(0, len(self._x), self._batch_size):
                rows = slice(start, start + self._batch_size)
                x = self._x[rows]
                watcher.record("predict_on_batch", self.model.predict_on_batch(x), (x,), {}, {"labels": self._y[rows]})
        except Exception as error:  # noqa: BLE001 - a training run must not end because of this
            self._publisher.reject(*rejection(error, self._y))

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("on_"):  # all other moments of a run
            return lambda *args, **kwargs: None
        raise AttributeError(name)
