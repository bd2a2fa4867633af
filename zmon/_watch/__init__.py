"""Drop-in: a model or a function whose every call is published, while it behaves as the original."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from zmon._watch.proxy import stand_in
from zmon._watch.watcher import Watcher

if TYPE_CHECKING:
    from zmon.publisher import Publisher

Model = TypeVar("Model")


def watch(model: Model, publisher: Publisher, output: str | None = None, *, inputs: bool = True) -> Model:
    """A stand-in for `model`: same API, every prediction published.

    Parameters
    ----------
    model : object
        A scikit-learn estimator or anything with its API, a Keras model, a PyTorch module, a ``tf.function``, a
        SavedModel's signature, any callable.
    publisher : Publisher
        Where the batches go.
    output : {"proba", "logits", "label", "value"}, optional
        What calls return: probabilities, logits (turned into probabilities for publishing only), predicted classes,
        or the values of a regression. Default: probabilities, and what ``predict`` gives where an estimator has no
        ``predict_proba``; for a regression, its values.
    inputs : bool
        Publish what the calls are given, where it has columns.

    Returns
    -------
    object
        Behaves as the model; ``clone``, ``deepcopy`` and ``pickle`` of it give the bare model, and ``__wrapped__`` is
        it.

    Raises
    ------
    ConfigurationError
        When `output` does not fit the model or the publisher.

    Examples
    --------
    >>> import numpy as np, zmon
    >>> with zmon.Publisher("coin", classes=["tails", "heads"], collector="tcp://127.0.0.1:59999") as publisher:
    ...     score = watch(lambda rows: np.full((len(rows), 2), 0.5), publisher)
    ...     score([[1.0], [2.0]]).tolist(), publisher.stats.published
    ([[0.5, 0.5], [0.5, 0.5]], 2)
    """
    made: Model = stand_in(model, Watcher(model, publisher, output, inputs))
    return made


def captured(
    function: Callable[..., Any], publisher: Publisher, output: str | None, inputs: bool
) -> Callable[..., Any]:
    """The function that `Publisher.capture` makes of another, or of a method in its class."""
    watcher = Watcher(function, publisher, output, inputs)
    code = getattr(inspect.unwrap(function), "__code__", None)
    method = code is not None and code.co_varnames[:1] in (("self",), ("cls",))

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if method:
            return watcher.run("__call__", functools.partial(function, args[0]), args[1:], kwargs)
        return watcher.run("__call__", function, args, kwargs)

    if inspect.iscoroutinefunction(function):
        # Servers ask this of a handler before they call it.
        @functools.wraps(function)
        async def later(*args: Any, **kwargs: Any) -> Any:
            return await call(*args, **kwargs)

        return later
    return call
