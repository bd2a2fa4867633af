"""Drop-in monitoring: a model or function that behaves as the original while every call is published."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from zmon._watch.proxy import proxy_for
from zmon._watch.recorder import Recorder
from zmon._watch.watcher import Watcher

Model = TypeVar("Model")


def watch(model: Model, publisher: Recorder, output: str | None = None, *, inputs: bool = True) -> Model:
    """Return a proxy for `model` with the same API that publishes every prediction.

    Parameters
    ----------
    model : object
        A scikit-learn estimator or anything with its API, a booster, a Keras model, a PyTorch module, an ONNX Runtime
        session, a Hugging Face pipeline or model, an MLflow model, a ``tf.function``, a SavedModel's signature, or any
        callable.
    publisher : Publisher
        Where the batches go.
    output : {"proba", "logits", "label", "value"}, optional
        What calls return: probabilities, logits (converted to probabilities for publishing only), predicted classes,
        or the values of a regression. Default: probabilities, or the result of ``predict`` for an estimator without
        ``predict_proba``; the logits of a result that has ``logits``; for a regression, its values. Boosters and MLflow
        models need it.
    inputs : bool
        Publish the inputs of the calls as well, if they have columns.

    Returns
    -------
    object
        Behaves as the model. ``clone``, ``deepcopy`` and ``pickle`` return the bare model; ``__wrapped__`` is the
        bare model.

    Raises
    ------
    ConfigurationError
        If `output` does not fit the model or the publisher.

    Examples
    --------
    >>> import numpy as np, zmon
    >>> with zmon.Publisher("coin", classes=["tails", "heads"], collector="tcp://127.0.0.1:59999") as publisher:
    ...     score = watch(lambda rows: np.full((len(rows), 2), 0.5), publisher)
    ...     score([[1.0], [2.0]]).tolist(), publisher.stats.published
    ([[0.5, 0.5], [0.5, 0.5]], 2)
    """
    proxy: Model = proxy_for(model, Watcher(model, publisher, output, inputs))
    return proxy


def captured(function: Callable[..., Any], publisher: Recorder, output: str | None, inputs: bool) -> Callable[..., Any]:
    """Wrap a function, or a method in its class, for `Publisher.capture`."""
    watcher = Watcher(function, publisher, output, inputs)
    code = getattr(inspect.unwrap(function), "__code__", None)
    method = code is not None and code.co_varnames[:1] in (("self",), ("cls",))

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if method:
            return watcher.run("__call__", functools.partial(function, args[0]), args[1:], kwargs)
        return watcher.run("__call__", function, args, kwargs)

    if inspect.iscoroutinefunction(function):
        # Servers check whether a handler is a coroutine function before they call it.
        @functools.wraps(function)
        async def call_later(*args: Any, **kwargs: Any) -> Any:
            return await call(*args, **kwargs)

        return call_later
    return call
