"""Publishes a watched model's calls: once per outermost call, after it returned, never at the model's expense."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from types import CoroutineType
from typing import Any

from zmon._capture.interrupts import is_asynchronous
from zmon._transport.notices import say
from zmon._watch import call
from zmon._watch.adapters import adapter_for
from zmon._watch.call_context import arguments_for, reset, running
from zmon._watch.reading import Arguments, Reading, Unpublished
from zmon._watch.recorder import Recorder
from zmon.errors import Rejected


class Watcher:
    """Passes the calls of one model on to one publisher.

    Parameters
    ----------
    model : object
        The bare model, or a function.
    publisher : Recorder
    output : str or None
        What calls return; None derives it from the model's kind and the publisher's task.
    inputs : bool
        Publish the inputs as well.

    Attributes
    ----------
    methods : frozenset of str
        Names of the methods to watch; ``__call__`` may be among them.
    """

    __slots__ = ("_adapter", "_explained", "_inputs", "_name", "_publisher", "methods")

    def __init__(self, model: Any, publisher: Recorder, output: str | None, inputs: bool) -> None:
        self._adapter = adapter_for(model, publisher, output)
        self.methods = self._adapter.methods
        self._publisher = publisher
        self._inputs = inputs
        self._name = type(model).__name__
        self._explained: set[str] = set()  # methods whose calls publish nothing, and of which this was said

    def run(self, name: str, function: Callable[..., Any], args: Arguments, kwargs: dict[str, Any]) -> Any:
        """Call `function`, publish its inputs and its result, and return the result."""
        inside = running.get()
        if self._publisher in inside:
            return function(*args, **kwargs)
        try:
            # Not a token of this call: an exception of a signal handler may come before it is kept.
            running.set((*inside, self._publisher))
            result = function(*args, **kwargs)
        finally:
            running.set(inside)
        if type(result) is CoroutineType:
            return self._run_later(name, result, args, kwargs)
        self.record(name, result, args, kwargs)
        return result

    async def _run_later(
        self, name: str, coroutine: Coroutine[Any, Any, Any], args: Arguments, kwargs: dict[str, Any]
    ) -> Any:
        token = running.set((*running.get(), self._publisher))
        try:
            result = await coroutine
        finally:
            reset(running, token)
        self.record(name, result, args, kwargs)
        return result

    def record(
        self, name: str, result: Any, args: Arguments, kwargs: Mapping[str, Any], extra: Mapping[str, Any] | None = None
    ) -> None:
        """Publish a call's result with its inputs, or count and explain why not. Never raise.

        Parameters
        ----------
        name : str
            Which of `methods` was called.
        extra : mapping, optional
            Further arguments of `publish`, next to those of the surrounding context.
        """
        if not self._publisher.enabled:
            return
        try:
            reading = self._adapter.read(name, result, args, kwargs)
            if reading is not None:
                given = arguments_for(self._publisher)
                self._publish(reading, {**given, **extra} if extra else given)
        except Unpublished as remedy:
            self._explain(name, str(remedy))
        except BaseException as error:
            if is_asynchronous(error):
                raise
            reason, detail = "internal", f"{type(error).__name__}: {error}"
            if isinstance(error, Rejected):
                reason, detail = error.reason, str(error)
            self._publisher.reject(reason, detail, call.rows_in(result))

    def _publish(self, reading: Reading, extra: Mapping[str, Any]) -> None:
        column, values = call.column(reading.output, reading.result, multilabel=self._publisher.task == "multilabel")
        one_row = reading.one_row or getattr(values, "ndim", 1) == 0
        inputs = call.inputs(reading.given, one_row=one_row) if self._inputs else None
        if one_row and values.ndim == 0:
            values = values.reshape(1)
        self._publisher.publish(**{column: values}, inputs=inputs, **extra)

    def _explain(self, name: str, remedy: str) -> None:
        """Log why the calls of a method publish nothing, once."""
        if name not in self._explained:
            self._explained.add(name)
            method = self._name if name == "__call__" else f"{self._name}.{name}"
            say("zmon: calls of %s publish nothing: %s", method, remedy)
