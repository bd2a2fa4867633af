"""What of a watched call is published: once per outermost call, after it returned, and never at the model's expense."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from types import CoroutineType
from typing import TYPE_CHECKING, Any

import numpy as np

from zmon._watch import call
from zmon._watch.call_context import known, leave, running
from zmon.errors import ConfigurationError, Rejected

if TYPE_CHECKING:
    from zmon.publisher import Publisher

_ESTIMATOR = ("predict_proba", "predict_log_proba", "predict", "decision_function")


class Watcher:
    """How the calls of one model reach one publisher.

    Parameters
    ----------
    model : object
        The bare model, or a function.
    publisher : Publisher
    output : str or None
        What calls return; None: as the model's kind and the publisher's task have it.
    inputs : bool
        Publish the inputs too.

    Attributes
    ----------
    methods : frozenset of str
        Names of the methods to watch; ``__call__`` may be among them.
    output : str
        What they return.
    """

    __slots__ = ("_checked", "_estimator", "_inputs", "_model", "_publisher", "methods", "output")

    def __init__(self, model: Any, publisher: Publisher, output: str | None, inputs: bool) -> None:
        if isinstance(model, type):
            raise ConfigurationError(f"{model.__name__} is a class; watch an instance of it")
        if output is not None and output not in call.OUTPUTS:
            raise ConfigurationError(f"output is {output!r}; it must be one of {', '.join(map(repr, call.OUTPUTS))}")
        regression = publisher._capture.task == "regression"
        if output is not None and regression != (output == "value"):
            task = publisher._capture.task
            raise ConfigurationError(f"output={output!r} does not fit a publisher whose task is {task!r}")
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
                    f"what {type(model).__name__}.predict returns is not known: say output='proba', 'logits', "
                    "'label' or 'value'"
                )

    def _check_estimator(self, output: str | None) -> None:
        name = type(self._model).__name__
        if output == "logits":
            raise ConfigurationError(f"{name} gives no logits: leave output out, or say output='proba' or 'label'")
        if output == "proba" and not hasattr(self._model, "predict_proba"):
            raise ConfigurationError(
                f"{name} has no predict_proba: say output='label', or watch a CalibratedClassifierCV of it"
            )
        if self.output != "value" and _is_regressor(self._model):
            raise ConfigurationError(f"{name} is a regressor: construct the publisher with task='regression'")
        try:
            self._check_classes()
        except Rejected as error:
            raise ConfigurationError(str(error)) from None

    # --- a call ------------------------------------------------------------------------------------------------------

    def run(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call `function`, publish what it took and gave, return what it returned."""
        inside = running.get()
        if self._publisher in inside:
            return function(*args, **kwargs)
        token = running.set((*inside, self._publisher))
        try:
            result = function(*args, **kwargs)
        finally:
            running.reset(token)
        if type(result) is CoroutineType:
            return self._later(name, result, args, kwargs)
        self._record(name, result, args, kwargs)
        return result

    async def _later(
        self, name: str, coroutine: Coroutine[Any, Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        token = running.set((*running.get(), self._publisher))
        try:
            result = await coroutine
        finally:
            leave(running, token)
        self._record(name, result, args, kwargs)
        return result

    def _record(self, name: str, result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self._publisher._enabled:
            return
        try:
            output = self._output_of(name)
            if output is not None:
                if kwargs.get("training") is True or getattr(self._model, "training", False) is True:
                    raise Rejected("training_mode", "the model is in training mode; call its eval() before serving")
                self.publish(output, result, call.argument(args, kwargs), known(self._publisher))
        except Rejected as error:
            self._publisher._reject(error.reason, str(error), rows_of(result))
        except Exception as error:  # noqa: BLE001 - the model must not notice, whatever it was
            self._publisher._reject("internal", f"{type(error).__name__}: {error}", rows_of(result))

    def _output_of(self, name: str) -> str | None:
        """What a method's result is; None where it is not to be published."""
        if not self._estimator:
            return self.output
        if name == "decision_function":
            raise Rejected(
                "decision_function", "scores are no probabilities: watch a CalibratedClassifierCV, or serve predict"
            )
        if self.output != "proba":
            return self.output if name == "predict" else None
        if name == "predict":
            return None if hasattr(self._model, "predict_proba") else "label"
        return "proba" if name == "predict_proba" else "log_proba"

    def publish(self, output: str, result: Any, given: Any, extra: Mapping[str, Any]) -> None:
        """Publish one batch: what a call returned, what it was given, and what else is known of its rows."""
        if self._estimator:
            self._check_classes()
        column, values = call.column(output, result)
        one_row = values.ndim == 0
        inputs = call.inputs(given, one_row=one_row) if self._inputs else None
        if one_row:
            values = values.reshape(1)
        if output == "label":
            values = self._named(values)
        self._publisher.publish(**{column: values}, inputs=inputs, **extra)

    # --- classes of an estimator -------------------------------------------------------------------------------------

    def _check_classes(self) -> None:
        """The publisher's class names stand in the order of the estimator's columns."""
        classes = getattr(self._model, "classes_", None)
        if classes is None or classes is self._checked or self.output == "value":
            return
        if isinstance(classes, list) or getattr(self._model, "multilabel_", False) is True:
            raise Rejected("multi_output", f"{type(self._model).__name__} has several targets; watch one model each")
        own = np.asarray(classes).tolist()
        names = self._publisher._classes(own)
        if len(names) != len(own):
            raise Rejected("classes_order", f"the publisher names {len(names)} classes, the model has {len(own)}")
        if isinstance(own[0], str) == isinstance(names[0], str) and names != own:
            raise Rejected(
                "classes_order",
                f"the publisher's classes are {names[:5]}, the model's columns {own[:5]}: give classes=model.classes_",
            )
        self._checked = classes

    def _named(self, values: Any) -> Any:
        """Predicted labels as the publisher knows them: its own names, or positions where those are other names."""
        classes = self._checked
        if classes is None or isinstance(self._publisher._classes(classes)[0], str) == (classes.dtype.kind in "USO"):
            return values
        return np.searchsorted(classes, values)


def rows_of(result: Any) -> int:
    """How many rows a result that cannot be published has, as far as one can tell; at least 1."""
    try:
        return max(1, len(result))
    except Exception:  # noqa: BLE001 - a model may return anything
        return 1


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
    except Exception:  # noqa: BLE001 - an estimator that cannot tell is taken at its word
        return False
    return bool(kind == "regressor")
