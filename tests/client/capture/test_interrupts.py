"""Exceptions from outside reach the model; those of an argument's own methods do not."""

from __future__ import annotations

import signal
from typing import Any

import numpy as np
import pytest

from zmon._capture.interrupts import is_asynchronous
from zmon._capture.snapshot import Unusable, own


class TimeLimitError(Exception):
    """As celery's SoftTimeLimitErrorExceeded."""


class Stop(BaseException):
    pass


RAISED = [ValueError("a"), TimeLimitError(), Stop(), SystemExit(3), KeyboardInterrupt()]


class Raising:
    """An argument whose method raises."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise self.error


class Slow:
    """An argument during whose method a signal comes."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        signal.raise_signal(signal.SIGUSR1)
        return np.ones(3)


@pytest.mark.parametrize(
    "error", [ValueError("a"), TimeLimitError(), Stop(), SystemExit(3), KeyboardInterrupt()], ids=repr
)
def test_what_an_argument_raises_costs_the_argument(error: BaseException) -> None:
    copy, _ = own(Raising(error))
    assert isinstance(copy, Unusable)
    assert type(error).__name__ in copy.detail


@pytest.mark.parametrize(
    "error", [ValueError("a"), TimeLimitError(), Stop(), SystemExit(3), KeyboardInterrupt()], ids=repr
)
def test_what_a_signal_handler_raises_passes_even_within_an_argument(error: BaseException) -> None:
    def handler(*_: Any) -> None:
        raise error

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(type(error)):
            own(Slow())
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_ctrl_c_passes() -> None:
    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)  # written in C: it has no frame
    try:
        with pytest.raises(KeyboardInterrupt):
            own(Slow())
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_in_a_frame_of_this_package_only_built_in_exceptions_are_its_own() -> None:
    for error, expected in ((TypeError(), False), (MemoryError(), False), (TimeLimitError(), True), (Stop(), True)):
        try:
            exec(compile("raise error", "zmon", "exec"), {"__name__": "zmon.publisher", "error": error})
        except BaseException as raised:
            assert is_asynchronous(raised) is expected, error
