"""A watched call as its adapter reads it, and the two ways of not publishing one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

OUTPUTS = ("proba", "logits", "label", "value")
RAW = ("raw_score", "output_margin")  # arguments that make boosting libraries return scores
EXPLANATIONS = ("pred_leaf", "pred_contrib", "pred_contribs", "approx_contribs", "pred_interactions")  # or leaves
Arguments = tuple[Any, ...]
Keywords = Mapping[str, Any]


class Reading(NamedTuple):
    """Outputs and inputs of one call.

    Attributes
    ----------
    output : str
        What `result` is: one of `OUTPUTS`, or ``"log_proba"``.
    result : Any
        The part of the call's result that is published.
    given : Any
        The call's inputs.
    one_row : bool
        The call was of a single row, without an axis for rows.
    """

    output: str
    result: Any
    given: Any = None
    one_row: bool = False


class Adapter(Protocol):
    """Knows one kind of model: which of its methods to watch, and how to read their calls."""

    @property
    def methods(self) -> frozenset[str]:
        """Names of the methods to watch; ``__call__`` may be among them."""
        ...

    def read(self, name: str, result: Any, args: Arguments, kwargs: Keywords) -> Reading | None:
        """Read a call of the method `name`; None if nothing of it is published, by the user's choice.

        Raises
        ------
        Rejected
            If the rows cannot be published, and are counted as such.
        Unpublished
            If the call publishes nothing; its rows are unknown, or may be published by another call.
        """
        ...


class Unpublished(Exception):  # noqa: N818 - a verdict on a call, not a fault of the program
    """A call that publishes nothing. The message names the remedy, and is logged once for each model and method."""
