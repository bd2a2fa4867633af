"""Tells exceptions of a caller's arguments from asynchronous ones, which belong to the model and must reach it. Pure.

While `publish` runs, a signal handler may raise (a soft time limit, Ctrl-C, ``sys.exit`` on SIGTERM), or another thread
may inject an exception. These must pass. What an argument's own methods raise must not.
"""

from __future__ import annotations

import dis
import inspect
from collections.abc import Iterator
from types import FrameType

_RAISE = dis.opmap["RAISE_VARARGS"]
_PACKAGE = __name__.partition(".")[0]


def is_asynchronous(error: BaseException) -> bool:
    """Return whether an exception caught in the model's thread came from outside the statement that it interrupted.

    An exception is asynchronous if a signal handler or a trace function is among the frames of its traceback; if it is
    not an `Exception` and no argument's code raised it; or if it surfaced in a frame of this package without being a
    built-in exception, because this package raises only `zmon.errors.Rejected` there and C code raises built-in ones.
    """
    frames = list(_frames(error))
    if any(_is_handler(frame) for frame, _ in frames):
        return True
    innermost, at = frames[-1]
    ours = innermost.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE
    if not isinstance(error, Exception):
        return ours or innermost.f_code.co_code[at] != _RAISE
    return ours and type(error).__module__ not in ("builtins", "zmon.errors")


def _frames(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame, trace.tb_lasti
        trace = trace.tb_next


def _is_handler(frame: FrameType) -> bool:
    """Return whether a function was called with a frame, as signal handlers and trace functions are."""
    code = frame.f_code
    count = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & inspect.CO_VARARGS)
    for name in code.co_varnames[:count]:
        value = frame.f_locals.get(name)
        if any(isinstance(each, FrameType) for each in (value if type(value) is tuple else (value,))):
            return True
    return False
