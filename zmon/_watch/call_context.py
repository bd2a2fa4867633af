"""Context of a watched call: extra arguments for its rows, and which calls are running. Follows thread and task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from typing import Any

_NOTHING: Mapping[str, Any] = {}
_arguments: ContextVar[Mapping[object, Mapping[str, Any]]] = ContextVar("zmon_arguments", default=_NOTHING)  # type: ignore[arg-type]
running: ContextVar[tuple[object, ...]] = ContextVar("zmon_running", default=())
"""The publishers of the watched calls around this one: an inner call of the same publisher is part of the outer."""


@contextmanager
def context(publisher: object, arguments: Mapping[str, Any]) -> Iterator[None]:
    """Until the block ends, watched calls of `publisher` also publish those `arguments` that are not None."""
    outer = _arguments.get()
    given = {name: value for name, value in arguments.items() if value is not None}
    token = _arguments.set({**outer, publisher: {**outer.get(publisher, _NOTHING), **given}})
    try:
        yield
    finally:
        reset(_arguments, token)


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
