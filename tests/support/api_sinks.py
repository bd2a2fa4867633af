"""Reports for the API sinks, and what they need beside the stand-in: a clock that skips waits, a ledger."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from zmon_plugins.api.target import ApiTarget
from zmon_plugins.sinks.anodot import Anodot

from tests.support.standin import StandIn
from zmon.contract import Point, Refused, Report, Value, Window
from zmon.errors import RetryLater

OLD = 1_000_000_020


class SkippedClock:
    """The machine's clock, which a test moves forward past the waits after failures."""

    ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def skip(self) -> None:
        self.ahead += 3600.0


CLOCK = SkippedClock()


class Ledger:
    """What a sink noted down."""

    def __init__(self) -> None:
        self.done: dict[int, int] = {}
        self.refused: list[Refused] = []

    def settled(self, sequence: int) -> int:
        return self.done.get(sequence, 0)

    def settle(self, sequence: int, samples: int, refused: Sequence[Refused] = ()) -> None:
        assert samples >= self.done.get(sequence, 0)
        self.done[sequence] = samples
        self.refused += refused


def target(api: StandIn, **options: Any) -> ApiTarget:
    quick = {"requests_per_second": 1e6, "samples_per_second": 1e9, "read_timeout": 10.0, "connect_timeout": 0.3}
    return ApiTarget(**{"url": api.url, **quick, **options})


def report(sequence: int, points: int = 10, model: str = "m", bad: Callable[[int], bool] = lambda i: False) -> Report:
    values = [Value("bad" if bad(i) else "accuracy", i + sequence / 7, class_name=f"c{i}") for i in range(points)]
    start = OLD + 60 * sequence
    return Report(sequence, model, "", Window(start, start + 60), [Point(None, value) for value in values])


def deliver(sink: Anodot, given: Report, timeout: float = 20.0) -> None:
    """As the collector's thread does."""
    until = time.monotonic() + timeout
    while True:
        try:
            return sink.write(given)
        except RetryLater as error:
            assert time.monotonic() < until, error
            CLOCK.skip()
            time.sleep(min(error.after, 0.01))


def all_of(error: BaseException) -> list[str]:
    """Whatever a handler could print of an exception and of those it hangs on to."""
    told = []
    seen: BaseException | None = error
    while seen is not None:
        told += [repr(seen), str(seen), *traceback.format_exception(seen, chain=True)]
        seen = seen.__cause__ or seen.__context__
    return told
