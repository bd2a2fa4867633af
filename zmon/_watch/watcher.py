"""Publishes a watched model's calls: once per outermost call, after it returned, never at the model's expense."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import CoroutineType
from typing import Any, Protocol

import numpy as np

from zmon._capture.columns import rejection
from zmon._watch import call
from zmon._watch.call_context import arguments_for, reset, running
from zmon.errors import ConfigurationError, Rejected

_ESTIMATOR = ("predict_proba", "predict_log_proba", "predict", "decision_function")


class Recorder(Protocol):
    """The publisher as watched calls see it."""

    @property
    def task(self) -> str: ...

    @property
    def enabled(self) -> bool: ...

    @property
    def publish(self) -> Callable[..., None]: ...

    def reject(self, reason: str, detail: str, rows: int) -> None: ...

    def class_names(self, default: Sequence[object]) -> list[object]: ...


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
    output : str
        What they return.
    """

    __slots__ = ("_checked", "_estimator", "_inputs", "_model", "_publisher", "methods", "output")

    def __init__(self, model: Any, publisher: Recorder, output: str | None, inputs: bool) -> None:
        if isinstance(model, type):
            raise ConfigurationError(f"{model.__name__} is a class; watch an instance of it")
        if output is not None and output not in call.OUTPUTS:
            raise ConfigurationError(f"output is {output!r}; it must be one of {', '.join(map(repr, call.OUTPUTS))}")
        regression = publisher.task == "regression"
        if output is not None and regression != (output == "value"):
            raise ConfigurationError(f"output={output!r} does not fit a publisher whose task is {publisher.task!r}")
        self._model = model
        self._publisher = publisher
        self._inputs = inputs
        self._estimator = hasattr(model, "predict_proba") or (
            hasattr(model, "get_params") and hasattr(model, "predict")
        )
        self.output = output or ("value" if regression else "proba")
        self._checked: Any = None
        if self._estimator:
            self.methods = frozenset(_ESTIMATOR)
            self._check_estimator(output)
        else:
            self.methods = _methods(model)
            if "predict" in self.methods and "predict_on_batch" not in self.methods and output is None:
                raise ConfigurationError(
                    f"cannot tell what {type(model).__name__}.predict returns; pass output='proba', 'logits', "
                    "'label' or 'value'"
                )

    def _check_estimator(self, output: str | None) -> None:
        name = type(self._model).__name__
        if output == "logits":
            raise ConfigurationError(f"{name} returns no logits; leave output out, or pass output='proba' or 'label'")
        if output == "proba" and not hasattr(self._model, "predict_proba"):
            raise ConfigurationError(
                f"{name} has no predict_proba; pass output='label', or watch a CalibratedClassifierCV of it"
            )
        if self.output != "value" and _is_regressor(self._model):
            raise ConfigurationError(f"{name} is a regressor; construct the publisher with task='regression'")
        try:
            self._check_classes()
        except Rejected as error:
            raise ConfigurationError(str(error)) from None

    # --- a call ------------------------------------------------------------------------------------------------------

    def run(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call `function`, publish its inputs and its result, and return the result."""
        inside = running.get()
        if self._publisher in inside:
            return function(*args, **kwargs)
        token = running.set((*inside, self._publisher))
        try:
            result = function(*args, **kwargs)
        finally:
            running.reset(token)
        if type(result) is CoroutineType:
            return self._run_later(name, result, args, kwargs)
        self._record(name, result, args, kwargs)
        return result

    async def _run_later(
        self, name: str, coroutine: Coroutine[Any, Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        token = running.set((*running.get(), self._publisher))
        try:
            result = await coroutine
        finally:
            reset(running, token)
        self._record(name, result, args, kwargs)
        return result

    def _record(self, name: str, result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self._publisher.enabled:
            return
        try:
            output = self._output_of(name)
            if output is not None:
                if kwargs.get("training") is True or getattr(self._model, "training", False) is True:
                    raise Rejected("training_mode", "the model is in training mode; call its eval() before serving")
                self.publish(output, result, call.argument(args, kwargs), arguments_for(self._publisher))
        except Exception as error:  # noqa: BLE001 - no error of ours may reach the model
            self._publisher.reject(*rejection(error, result))

    def _output_of(self, name: str) -> str | None:
        """Return what a method's result is; None if it must not be published."""
        if not self._estimator:
            return self.output
        if name == "decision_function":
            raise Rejected(
                "decision_function", "scores are not probabilities; watch a CalibratedClassifierCV, or serve predict"
            )
        if self.output != "proba":
            return self.output if name == "predict" else None
        if name == "predict":
            return None if hasattr(self._model, "predict_proba") else "label"
        return "proba" if name == "predict_proba" else "log_proba"

    def publish(self, output: str, result: Any, given: Any, extra: Mapping[str, Any]) -> None:
        """Publish one batch: a call's result, its inputs, and further arguments of `publish` for its rows."""
        if self._estimator:
            self._check_classes()
        column, values = call.column(output, result)
        one_row = values.ndim == 0
        inputs = call.inputs(given, one_row=one_row) if self._inputs else None
        if one_row:
            values = values.reshape(1)
        if output == "label":
            values = self._as_published(values)
        self._publisher.publish(**{column: values}, inputs=inputs, **extra)

    # --- classes of an estimator -------------------------------------------------------------------------------------

    def _check_classes(self) -> None:
        """Check that the publisher's class names have the order of the estimator's columns."""
        classes = getattr(self._model, "classes_", None)
        if classes is None or classes is self._checked or self.output == "value":
            return
        if isinstance(classes, list) or getattr(self._model, "multilabel_", False) is True:
            raise Rejected("multi_output", f"{type(self._model).__name__} has several targets; watch one model each")
        columns = np.asarray(classes).tolist()
        names = self._publisher.class_names(columns)
        if len(names) != len(columns):
            raise Rejected("classes_order", f"the publisher names {len(names)} classes, the model has {len(columns)}")
        if isinstance(columns[0], str) == isinstance(names[0], str) and names != columns:
            raise Rejected(
                "classes_order",
                f"the publisher's classes are {names[:5]}, the model's {columns[:5]}; pass classes=model.classes_",
            )
        self._checked = classes

    def _as_published(self, values: Any) -> Any:
        """Return predicted labels under the publisher's class names, or as positions if those are other names."""
        classes = self._checked
        if classes is None or isinstance(self._publisher.class_names(classes)[0], str) == (classes.dtype.kind in "USO"):
            return values
        return np.searchsorted(classes, values)


def _methods(model: Any) -> frozenset[str]:
    if hasattr(model, "predict_on_batch"):  # Keras
        return frozenset(("predict", "predict_on_batch", "__call__"))
    if hasattr(model, "predict") and not hasattr(model, "forward"):  # a booster
        return frozenset(("predict",))
    if callable(model):
        return frozenset(("__call__",))
    hint = "; watch one of its signatures" if hasattr(model, "signatures") else ""
    raise ConfigurationError(f"{type(model).__name__} has no predict_proba, no predict, and cannot be called{hint}")


def _is_regressor(model: Any) -> bool:
    tags = getattr(model, "__sklearn_tags__", None)
    try:
        kind = tags().estimator_type if tags is not None else getattr(model, "_estimator_type", None)
    except Exception:  # noqa: BLE001 - an estimator whose tags cannot be read is not refused for it
        return False
    return bool(kind == "regressor")
