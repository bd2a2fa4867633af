"""Hugging Face: classification pipelines, and models whose outputs have ``logits``."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from zmon._watch.callables import check_mode
from zmon._watch.reading import Arguments, Keywords, Reading, Unpublished
from zmon._watch.recorder import Recorder, columns_in_order
from zmon.errors import ConfigurationError, Rejected

_PLACEHOLDER = re.compile(r"LABEL_\d+")  # the label of a class that the configuration does not name


class Pipeline:
    """Reads the results of a classification pipeline: labels with scores. Its inputs have no columns.

    The scores are published if all classes are among them (``top_k=None``), else the label of the highest score.
    """

    methods = frozenset(("__call__", "predict", "transform"))

    def __init__(self, model: Any, publisher: Recorder, output: str | None) -> None:
        config = getattr(getattr(model, "model", None), "config", None)
        _check_task(config, publisher)
        self.output = output or ("value" if publisher.task == "regression" else "proba")
        self._classes = _Classes(publisher, config)
        self._defaults = getattr(model, "_postprocess_params", {})
        self._multilabel = publisher.task == "multilabel"
        self._task = getattr(model, "task", "this task")

    def read(self, name: str, result: Any, args: Arguments, kwargs: Keywords) -> Reading | None:
        """Read a call; see `Adapter`."""
        rows = self._rows(result, args[0] if args else kwargs.get("inputs", kwargs.get("images")))
        labels = self._classes.labels or sorted(rows[0])
        complete = all(len(row) == len(labels) for row in rows)
        if self.output == "value":
            return Reading("value", [next(iter(row.values())) for row in rows])
        if complete and self.output != "label":
            function = kwargs.get("function_to_apply", self._defaults.get("function_to_apply"))
            output = "logits" if getattr(function, "value", function) == "none" else self.output
            return Reading(output, self._classes.in_order(np.array([[row[name] for name in labels] for row in rows])))
        if self._multilabel:
            raise Rejected("output_missing", "scores of some labels are missing; call the pipeline with top_k=None")
        return Reading("label", self._classes.published([max(row, key=row.__getitem__) for row in rows]))

    def _rows(self, result: Any, given: Any) -> list[dict[str, float]]:
        """Return the scores by label, row by row."""
        if not isinstance(result, list | dict):
            raise Unpublished("it returns its results one by one; pass it a list, or watch a function that does")
        # A pipeline given one text or image returns a list as well, of its highest scores.
        rows = result if isinstance(given, list | tuple) and isinstance(result, list) else [result]
        try:
            parts = ([row] if isinstance(row, dict) else row for row in rows)
            return [{str(each["label"]): float(each["score"]) for each in row} for row in parts]
        except (KeyError, TypeError):
            raise Rejected(
                "output_missing",
                f"a pipeline for {self._task} returns no scores of labels; watch a function that returns probabilities",
            ) from None


class Classifier:
    """Reads calls of a model whose output has ``logits``. Tokens and images have no columns."""

    methods = frozenset(("__call__",))

    def __init__(self, model: Any, publisher: Recorder, output: str | None) -> None:
        _check_task(model.config, publisher)
        if output in ("proba", "label"):
            name = type(model).__name__
            raise ConfigurationError(f"{name} returns logits; leave output out, or pass output='logits'")
        self.output = output or ("value" if publisher.task == "regression" else "logits")
        self._model = model
        self._classes = _Classes(publisher, model.config)

    def read(self, name: str, result: Any, args: Arguments, kwargs: Keywords) -> Reading | None:
        """Read a call; see `Adapter`."""
        check_mode(self._model, kwargs)
        logits = getattr(result, "logits", None)
        if logits is None and isinstance(result, tuple):  # return_dict=False; a loss may stand in front
            logits = next((part for part in result if getattr(part, "ndim", 0) == 2), None)
        if logits is None:
            name = type(self._model).__name__
            raise Rejected("output_missing", f"{name} returned no logits; watch a function that returns them")
        if self.output == "logits" and logits.shape[-1] == len(self._classes.labels) > 1:
            logits = self._classes.in_order(logits)
        return Reading(self.output, logits)


class _Classes:
    """The labels of a model's configuration, and the publisher's classes."""

    def __init__(self, publisher: Recorder, config: Any) -> None:
        self._publisher = publisher
        named = getattr(config, "id2label", None) or {}
        self.labels = [str(named[i]) for i in sorted(named)]
        self._named = not all(map(_PLACEHOLDER.fullmatch, self.labels))

    def in_order(self, columns: Any) -> Any:
        """Put the columns of an array or a tensor into the order of the publisher's classes."""
        if len(self.labels) != columns.shape[1] or len(self.labels) < 2:
            return columns
        order = columns_in_order(self._publisher, self.labels, named=self._named)
        return columns if order is None else columns[:, order]

    def published(self, labels: list[str]) -> list[Any]:
        """Return labels under the publisher's names of classes."""
        if len(self.labels) < 2 or columns_in_order(self._publisher, self.labels, named=self._named) is not None:
            return labels
        names = dict(zip(self.labels, self._publisher.class_names(self.labels), strict=True))
        return [names[label] for label in labels]


def _check_task(config: Any, publisher: Recorder) -> None:
    problem = getattr(config, "problem_type", None)
    task = {"multi_label_classification": "multilabel", "regression": "regression"}.get(problem or "", publisher.task)
    if task != publisher.task:
        raise ConfigurationError(f"the model's problem_type is {problem!r}; construct the publisher with task={task!r}")
