"""Estimators with scikit-learn's API: which of their calls are published, and whether their classes fit."""

from __future__ import annotations

from typing import Any

import numpy as np

from zmon._watch import call
from zmon._watch.reading import EXPLANATIONS, RAW, Arguments, Keywords, Reading, Unpublished
from zmon._watch.recorder import Recorder, columns_in_order
from zmon.errors import ConfigurationError, Rejected


class Estimator:
    """Reads the calls of an estimator.

    Attributes
    ----------
    methods : frozenset of str
    output : str
        What is published: ``"proba"``, ``"label"`` or ``"value"``.
    """

    methods = frozenset(("predict_proba", "predict_log_proba", "predict", "decision_function"))

    def __init__(self, model: Any, publisher: Recorder, output: str | None) -> None:
        self.output = output or ("value" if publisher.task == "regression" else "proba")
        self.model = model
        self._publisher = publisher
        self._name = type(model).__name__
        self._checked: Any = None
        self._probabilities_seen = False
        self._check_output(output)
        if self.output != "value" and _is_regressor(model):
            raise ConfigurationError(f"{self._name} is a regressor; construct the publisher with task='regression'")
        try:
            self._check_classes()
        except Rejected as error:
            raise ConfigurationError(str(error)) from None

    def read(self, name: str, result: Any, args: Arguments, kwargs: Keywords) -> Reading | None:
        """Read a call; see `Adapter`."""
        if kwargs and any(kwargs.get(option) is True for option in (*RAW, *EXPLANATIONS)):
            raise Unpublished("scores, leaves and contributions are not predictions; call it without these options")
        output = self._output_of(name, args, kwargs)
        if output is None:
            return None
        self._check_classes()
        if output == "label":
            result = self._as_published(call.column(output, result)[1])
        elif self._publisher.task == "multilabel":
            result = self._each_label(result)
        return Reading(output, result, call.argument(args, kwargs))

    def _check_output(self, output: str | None) -> None:
        if output == "logits":
            raise ConfigurationError(
                f"{self._name} returns no logits; leave output out, or pass output='proba' or 'label'"
            )
        if output == "proba" and not hasattr(self.model, "predict_proba"):
            raise ConfigurationError(
                f"{self._name} has no predict_proba; pass output='label', or watch a CalibratedClassifierCV of it"
            )

    def _output_of(self, name: str, args: Arguments, kwargs: Keywords) -> str | None:
        """Return what a method's result is; None if it must not be published."""
        if name == "decision_function":
            raise Rejected(
                "decision_function", "scores are not probabilities; watch a CalibratedClassifierCV, or serve predict"
            )
        if self.output != "proba":
            return self.output if name == "predict" else None
        if name != "predict":
            self._probabilities_seen = True
            return "proba" if name == "predict_proba" else "log_proba"
        if not hasattr(self.model, "predict_proba"):
            return "label"
        if self._probabilities_seen:
            return None
        # A service may call both for the same rows, and they must be counted once.
        raise Unpublished("call predict_proba, or watch the model with output='label' to publish what predict returns")

    # --- classes -----------------------------------------------------------------------------------------------------

    def _check_classes(self) -> None:
        """Check that the publisher's class names have the order of the estimator's columns."""
        classes = getattr(self.model, "classes_", None)
        if classes is None or classes is self._checked or self.output == "value":
            return
        if self._publisher.task != "multilabel":
            if isinstance(classes, list) or _is_multilabel(self.model):
                raise Rejected(
                    "multi_output",
                    f"{self._name} has several targets; construct the publisher with task='multilabel' if each is "
                    "yes or no, or watch one model each",
                )
            self._require_order(np.asarray(classes).tolist())
        elif _is_multilabel(self.model) and not isinstance(classes, list):
            self._require_order(np.asarray(classes).tolist())
        self._checked = classes

    def _require_order(self, columns: list[object]) -> None:
        if columns_in_order(self._publisher, columns) is not None:
            names = self._publisher.class_names(columns)
            raise Rejected(
                "classes_order",
                f"the publisher's classes are {names[:5]}, the model's {columns[:5]}; pass classes=model.classes_",
            )

    def _as_published(self, values: Any) -> Any:
        """Return predicted labels under the publisher's class names, or as positions if those are other names."""
        classes = self._checked
        if classes is None or isinstance(self._publisher.class_names(classes)[0], str) == (classes.dtype.kind in "USO"):
            return values
        return np.searchsorted(classes, values)

    def _each_label(self, result: Any) -> Any:
        """Return the probability of each label; some estimators return those of 0 and 1, label by label."""
        if not isinstance(result, list):
            return result
        classes = self.model.classes_
        if any(not set(np.asarray(each).tolist()) <= {0, 1} for each in classes):
            raise Rejected("multi_output", f"{self._name} has targets that are not 0 or 1; watch one model each")
        ones = [np.asarray(each) == 1 for each in classes]
        return np.column_stack([np.asarray(p)[:, one].sum(axis=1) for p, one in zip(result, ones, strict=True)])


def _is_multilabel(model: Any) -> bool:
    """Return whether an estimator, at the end of pipelines and searches, predicts several labels per row."""
    while inner := getattr(model, "best_estimator_", None) or _last_step(model):
        model = inner
    if getattr(model, "multilabel_", False) is True:
        return True
    return getattr(model, "out_activation_", None) == "logistic" and getattr(model, "n_outputs_", 1) > 1


def _last_step(model: Any) -> Any:
    steps = getattr(model, "steps", None)
    return steps[-1][1] if isinstance(steps, list) and steps and isinstance(steps[-1], tuple) else None


def _is_regressor(model: Any) -> bool:
    tags = getattr(model, "__sklearn_tags__", None)
    try:
        kind = tags().estimator_type if tags is not None else getattr(model, "_estimator_type", None)
    except Exception:  # noqa: BLE001 - an estimator whose tags cannot be read is not refused for it
        return False
    return bool(kind == "regressor")
