"""Finds the adapter of a model by what the model offers. No framework is imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zmon._watch.boosters import Booster
from zmon._watch.callables import CallableModel
from zmon._watch.catboost import CatBoost
from zmon._watch.estimators import Estimator
from zmon._watch.huggingface import Classifier, Pipeline
from zmon._watch.mlflow import PyFunc
from zmon._watch.onnx import Session
from zmon._watch.reading import OUTPUTS, Adapter
from zmon._watch.recorder import Recorder
from zmon.errors import ConfigurationError


def adapter_for(model: Any, publisher: Recorder, output: str | None) -> Adapter:
    """Return the adapter of a model.

    Parameters
    ----------
    model : object
        The bare model, or a function.
    publisher : Recorder
    output : str or None
        What calls return; None derives it from the model's kind and the publisher's task.

    Raises
    ------
    ConfigurationError
        If the model cannot be watched, or if `output` does not fit the model or the publisher.
    """
    if isinstance(model, type):
        raise ConfigurationError(f"{model.__name__} is a class; watch an instance of it")
    if output is not None and output not in OUTPUTS:
        raise ConfigurationError(f"output is {output!r}; it must be one of {', '.join(map(repr, OUTPUTS))}")
    task = publisher.task
    misfit = (task == "regression") != (output == "value") or (task == "multilabel" and output == "label")
    if output is not None and misfit:
        raise ConfigurationError(f"output={output!r} does not fit a publisher whose task is {task!r}")
    return _kind(model)(model, publisher, output)


def _kind(model: Any) -> Callable[[Any, Recorder, str | None], Adapter]:
    def offers(*names: str) -> bool:
        return all(hasattr(model, name) for name in names)

    if offers("run", "get_inputs", "get_outputs"):
        return Session
    if offers("preprocess", "postprocess", "task"):
        return Pipeline
    if offers("config", "forward") and hasattr(model.config, "id2label"):
        return Classifier
    if offers("predict", "unwrap_python_model"):
        return PyFunc
    if offers("predict", "virtual_ensembles_predict"):
        return CatBoost
    if offers("predict_proba") or offers("predict", "get_params"):
        return Estimator
    if offers("predict") and not offers("predict_on_batch") and not offers("forward"):
        return Booster
    return CallableModel
