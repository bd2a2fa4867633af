"""What a watched call cannot know of its rows, and which watched calls are running: both follow thread and task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zmon.publisher import Publisher

_NOTHING: Mapping[str, Any] = {}
_known: ContextVar[Mapping[Publisher, Mapping[str, Any]]] = ContextVar("zmon_known", default=_NOTHING)  # type: ignore[arg-type]
running: ContextVar[tuple[Publisher, ...]] = ContextVar("zmon_running", default=())
"""The publishers of the watched calls around this one: an inner call of the same publisher is part of the outer."""


@contextmanager
def context(publisher: Publisher, given: Mapping[str, Any]) -> Iterator[None]:
    """Until the block ends, watched calls of `publisher` made here also publish what is given and not None."""
    outer = _known.get()
    token = _known.set(
        {**outer, publisher: {**outer.get(publisher, _NOTHING), **{k: v for k, v in given.items() if v is not None}}}
    )
    try:
        yield
    finally:
        leave(_known, token)


def leave(variable: ContextVar[Any], token: Token[Any]) -> None:
    """Take back what was set, where that can be.

    A block may end in another context than it began, as when a half-run coroutine is collected; then there is nothing
    to take back, and no reason to raise into the model.
    """
    with suppress(ValueError):
        variable.reset(token)


def known(publisher: Publisher) -> Mapping[str, Any]:
    """Arguments of `publish` that the block around this call gives."""
    return _known.get().get(publisher, _NOTHING)
