"""Context of a watched call: extra arguments for its rows, and which calls are running. Follows thread and task."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar, Token
from typing import Any

_NOTHING: Mapping[str, Any] = {}
_arguments: ContextVar[Mapping[object, Mapping[str, Any]]] = ContextVar("zmon_arguments", default=_NOTHING)  # type: ignore[arg-type]
running: ContextVar[tuple[object, ...]] = ContextVar("zmon_running", default=())
"""The publishers of the watched calls around this one: an inner call of the same publisher is part of the outer."""


class context:  # noqa: N801 - used as a function, and cheaper than a generator
    """Until the block ends, watched calls of `publisher` also publish those `arguments` that are not None."""

    __slots__ = ("_given", "_publisher", "_token")

    def __init__(self, publisher: object, arguments: Mapping[str, Any]) -> None:
        self._publisher = publisher
        self._given = {name: value for name, value in arguments.items() if value is not None}

    def __enter__(self) -> None:
        outer = _arguments.get()
        given = {**outer.get(self._publisher, _NOTHING), **self._given}
        self._token = _arguments.set({**outer, self._publisher: given})

    def __exit__(self, *error: object) -> None:
        reset(_arguments, self._token)


def reset(variable: ContextVar[Any], token: Token[Any]) -> None:
    """Restore the variable's earlier value if possible.

    A block may end in another context than it began, for instance when a half-run coroutine is collected. Then there
    is nothing to restore, and no reason to raise into the model.
    """
    with suppress(ValueError):
        variable.reset(token)


def arguments_for(publisher: object) -> Mapping[str, Any]:
    """Return the arguments of `publish` given by the blocks around this call."""
    return _arguments.get().get(publisher, _NOTHING)
