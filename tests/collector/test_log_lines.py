"""The log: bounded whatever floods it, and one line an event whatever is quoted in it."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest
from zmon_collector.log_lines import LINES, LINES_OF_A_PLACE, LONGEST, PERIOD, TRACE, LineLimit, SafeFormatter

HOSTILE = "name\x1b[2J\n2026-01-01 ERROR zmon: forged\r\x07\u202e\u2028\x85\udc80"


class Log:
    """A logger with a clock of the test's own, and what it wrote."""

    def __init__(self) -> None:
        self.now = 0.0
        self._out = io.StringIO()
        handler = logging.StreamHandler(self._out)
        handler.setFormatter(SafeFormatter("%(levelname)s %(name)s: %(message)s"))
        handler.addFilter(LineLimit(lambda: self.now))
        self.logger = logging.Logger("test")  # noqa: LOG001 - of no tree: a test run cannot report all that it quotes
        self.logger.addHandler(handler)

    @property
    def lines(self) -> list[str]:
        return self._out.getvalue().splitlines()

    def flood(self, times: int, place: int = 1, level: int = logging.WARNING) -> None:
        record = self.logger.makeRecord("test", level, "file.py", place, "sink %d failed", (place,), None)
        for _ in range(times):
            self.logger.handle(logging.makeLogRecord(record.__dict__))


@pytest.fixture
def log() -> Iterator[Log]:
    yield Log()


def test_one_place_has_so_many_lines_in_a_period_and_says_what_it_left_out(log: Log) -> None:
    log.flood(100_000)
    assert len(log.lines) == LINES_OF_A_PLACE
    log.flood(1, place=2)
    assert log.lines[-1] == "WARNING test: sink 2 failed", "another place has lines of its own"
    log.now += PERIOD
    log.flood(2)
    left = f"({100_000 - LINES_OF_A_PLACE:,} lines like this were left out)"
    assert log.lines[-2:] == [f"WARNING test: sink 1 failed {left}", "WARNING test: sink 1 failed"]


def test_all_places_together_have_so_many_and_errors_as_many_of_their_own(log: Log) -> None:
    for place in range(1000):
        log.flood(100, place)
    assert len(log.lines) == LINES
    for place in range(1000, 2000):
        log.flood(100, place, logging.ERROR)
    assert len(log.lines) == 2 * LINES


def test_stack_traces_count_as_several_lines(log: Log) -> None:
    for _ in range(1000):
        try:
            raise ValueError("x")
        except ValueError:
            log.logger.exception("failed")
    assert sum(line == "ERROR test: failed" for line in log.lines) == LINES_OF_A_PLACE // TRACE


def test_what_is_quoted_begins_no_line_and_controls_no_terminal(log: Log) -> None:
    log.logger.warning("model %r, path %s", HOSTILE, HOSTILE)
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        log.logger.exception("failed with %s", HOSTILE)
    assert all(line.isprintable() for line in log.lines)
    first, second, *trace = log.lines
    assert first.startswith("WARNING test: model 'name\\x1b[2J\\n2026-") and second.startswith(
        "ERROR test: failed with"
    )
    assert trace and all(line.startswith("    ") for line in trace)


def test_a_long_message_is_cut(log: Log) -> None:
    log.logger.warning("%s", "x" * 10**6)
    assert log.lines == [f"WARNING test: {'x' * LONGEST}… (1,000,000 characters)"]
