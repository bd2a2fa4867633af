"""What else must not raise: odd timeouts, and a logging set-up that is broken."""

from __future__ import annotations

import pytest

from tests.host.conftest import Start
from tests.support.collectors import Collector

NOBODY = "tcp://127.0.0.1:59996"

TIMEOUTS = """
import decimal, fractions
from datetime import timedelta

class Odd:
    def __float__(self):
        raise ValueError("of the argument's own")

    def __lt__(self, other):
        raise KeyboardInterrupt

GIVEN = {"none": None, "nan": float("nan"), "negative": -1, "text": "1", "no number": "soon", "true": True,
         "minus infinity": -float("inf"), "array": np.array([1.0, 2.0]), "scalar": np.float32(0.1), "complex": 1j,
         "odd": Odd(), "list": [], "timedelta": timedelta(seconds=1), "decimal": decimal.Decimal("0.1"),
         "fraction": fractions.Fraction(1, 10), "bytes": b"1"}
ENDLESS = {"infinity": float("inf"), "huge": 10**400, "beyond the clock": 1e308, "2**63": 2**63}
there = sys.argv[2] == "there"
raised, answers, closed, longest = [], {}, 0, 0.0
for name, value in [*GIVEN.items(), *(ENDLESS.items() if there else ())]:
    one = publisher()
    for attempt in (lambda: one.flush(value), lambda: one.close(value)):
        one.publish(TEN)
        began = time.monotonic()
        try:
            answer = attempt()
            if answer is not None:
                answers[name] = answer
        except BaseException as error:
            raised.append(f"{name}: {type(error).__name__} {error}")
        longest = max(longest, time.monotonic() - began)
    before = accounted(one.stats)
    one.publish(ONE)
    closed += accounted(one.stats) - before == one.stats.dropped.get("closed", 0) > 0
    one.close()
for value in ENDLESS.values():  # nothing is there to wait for: close is over at once
    one = publisher()
    try:
        one.flush(value)
        one.close(value)
    except BaseException as error:
        raised.append(f"without rows: {type(error).__name__} {error}")
report(raised=raised, answers=answers, longest=longest)
"""


def test_timeouts_of_any_kind_with_a_collector(collector: Collector, child: Start) -> None:
    result = child(collector.data, TIMEOUTS, "there").result()
    assert result["raised"] == []
    assert all(isinstance(answer, bool) for answer in result["answers"].values())
    for name in ("infinity", "huge", "beyond the clock", "2**63", "true", "text"):
        assert result["answers"][name], name


def test_timeouts_of_any_kind_without_a_collector(child: Start) -> None:
    result = child(NOBODY, TIMEOUTS, "away").result()
    assert result["raised"] == []
    assert not any(result["answers"].values())
    assert result["longest"] < 30, "a timeout that says nothing is the default"


LOGGING = """
import logging

class Broken(logging.Handler):
    def emit(self, record):
        global emitted
        emitted += 1
        raise ERROR("no space left on the device")

    def filter(self, record):
        if sys.argv[2] == "filter":
            self.emit(record)
        return True

def broken_factory(*_, **__):
    Broken().emit(None)

ERROR = {"error": OSError, "base": BaseException, "exit": SystemExit}.get(sys.argv[3], OSError)
emitted = 0
logger = logging.getLogger("zmon")
logger.setLevel(logging.DEBUG)
logger.addHandler(Broken())
if sys.argv[2] == "root":
    logging.getLogger().addHandler(Broken())
if sys.argv[2] == "factory":
    logging.setLogRecordFactory(broken_factory)
raised = []
one = publisher()
for call in (
    lambda: one.publish([[7.0, 3.0]]),
    lambda: one.publish("nonsense"),
    lambda: one.reject("of_my_own", "in the caller's thread", 2),
    lambda: one.publish_labels([1], ["maybe"]),
    lambda: one.publish(TEN),
    lambda: one.flush(60),
    lambda: one.stats,
):
    try:
        call()
    except BaseException as error:
        raised.append(f"{type(error).__name__} {error}")
flushed = one.flush(60)
stats = one.stats
one.close()
one.publish(TEN)
report(raised=raised, emitted=emitted, flushed=flushed, stats=stats)
"""


@pytest.mark.parametrize("error", ["error", "base", "exit"])
@pytest.mark.parametrize("how", ["handler", "filter", "root", "factory"])
def test_a_logging_handler_that_raises(how: str, error: str, collector: Collector, child: Start) -> None:
    """In the caller's thread and in the one that sends."""
    result = child(collector.data, LOGGING, how, error).result()
    assert result["raised"] == []
    assert result["emitted"] > 0, "there was something to log"
    assert result["flushed"], result
    assert result["stats"]["failed"] == ""
    assert result["stats"]["acknowledged"] >= 10


DISABLED = """
import os
os.environ["ZMON_ENABLED"] = sys.argv[2]
before, files = tasks(), descriptors()

class Model:
    classes_ = np.array([0, 1])

    def predict_proba(self, rows):
        return np.full((len(rows), 2), 0.5)

one = publisher()
watched = zmon.watch(Model(), one)
for _ in range(100):
    one.publish(TEN)
    one.publish("nonsense")
    one.publish_labels([1], [1])
    one.reject("mine", "nothing", 1)
    watched.predict_proba([[1.0], [2.0]])
threads, opened = tasks() - before, descriptors() - files
flushed = one.flush(1)
stats = one.stats
one.close()
report(threads=threads, opened=opened, flushed=flushed, stats=stats)
"""


@pytest.mark.parametrize("value", ["0", "false", "no", "off"])
def test_turned_off_there_is_no_thread(value: str, child: Start) -> None:
    result = child(NOBODY, DISABLED, value).result()
    assert result["threads"] == result["opened"] == 0
    assert result["flushed"]
    assert result["stats"]["sum"] == result["stats"]["published"] == 0


def test_turned_on_there_is_one(collector: Collector, child: Start) -> None:
    result = child(collector.data, DISABLED, "1").result()
    assert result["threads"] > 0
    assert result["stats"]["sum"] > 0
