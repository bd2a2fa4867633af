"""MLflow's models in the flavor ``python_function``: ``predict`` takes and returns frames, arrays or series."""

from __future__ import annotations

from typing import Any

from zmon._watch import call
from zmon._watch.reading import Arguments, Keywords, Reading
from zmon._watch.recorder import Recorder
from zmon.errors import ConfigurationError, Rejected


class PyFunc:
    """Reads calls of ``predict``."""

    methods = frozenset(("predict",))

    def __init__(self, model: Any, publisher: Recorder, output: str | None) -> None:
        if output is None and publisher.task != "regression":
            raise ConfigurationError(
                "cannot tell what predict of an MLflow model returns, often labels; pass output='label', 'proba', "
                "'logits' or 'value'"
            )
        self.output = output or "value"

    def read(self, name: str, result: Any, args: Arguments, kwargs: Keywords) -> Reading | None:
        """Read a call; see `Adapter`."""
        width = len(getattr(result, "columns", ()))
        if width > 1 and self.output in ("label", "value"):
            raise Rejected(
                "multi_output",
                f"predict returns the columns {list(result.columns)[:5]}; watch a function that returns one of them",
            )
        return Reading(self.output, result, call.argument(args, kwargs))
