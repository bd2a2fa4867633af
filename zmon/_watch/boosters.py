"""Boosters of xgboost and LightGBM, and other models with a ``predict`` whose result must be declared."""

from __future__ import annotations

import inspect
from typing import Any

from zmon._watch import call
from zmon._watch.reading import EXPLANATIONS, RAW, Arguments, Keywords, Reading, Unpublished
from zmon._watch.recorder import Recorder
from zmon.errors import ConfigurationError


class Booster:
    """Reads the calls of ``predict``, and of xgboost's ``inplace_predict``."""

    methods = frozenset(("predict", "inplace_predict"))

    def __init__(self, model: Any, publisher: Recorder, output: str | None) -> None:
        if output is None and publisher.task != "regression":
            raise ConfigurationError(
                f"cannot tell what {type(model).__name__}.predict returns; pass output='proba', 'logits', "
                "'label' or 'value'"
            )
        self.output = output or "value"
        self._model = model

    def read(self, name: str, result: Any, args: Arguments, kwargs: Keywords) -> Reading | None:
        """Read a call; see `Adapter`."""
        given = call.argument(args, kwargs)
        if len(args) > 1:
            kwargs = inspect.signature(getattr(self._model, name)).bind(*args, **kwargs).arguments
        if any(kwargs.get(option) is True for option in EXPLANATIONS):
            raise Unpublished("leaves and contributions are not predictions; call it without these options")
        if kwargs.get("predict_type") == "margin":
            kwargs = {"output_margin": True}
        raw = self.output == "proba" and any(kwargs.get(option) is True for option in RAW)
        return Reading("logits" if raw else self.output, result, given)
