"""Exceptions that come from outside at any instant: time limits, Ctrl-C, exits. All reach whom they are meant for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.host.conftest import Start
from tests.support.collectors import Collector, delivered

LIMITS = """
class SoftTimeLimitExceeded(Exception):
    pass

class Abandoned(BaseException):
    pass

KIND = {"limit": SoftTimeLimitExceeded, "base": Abandoned, "ctrl-c": KeyboardInterrupt, "exit": SystemExit,
        "timeout": TimeoutError, "value": ValueError}[sys.argv[2]]
ROUNDS = 2000 if FULL else 300
PLACES = {
    "array": lambda one: one.publish(ONE, ids=["x"], labels=[1]),
    "mapping": lambda one: one.publish(ONE, [{"age": 3, "country": "de"}], segments={"kind": ["a"]}),
    "labels": lambda one: one.publish_labels([7], [1]),
    "list": lambda one: one.publish([0.5], [[1, 2]]),
}
CALL = PLACES[sys.argv[3]]
"""

ALARM = """
one = publisher(buffer_bytes=65_536)
raised = caught = 0
begun = done = 0

def limit(*_):
    global raised
    raised += 1
    raise KIND("time is up")

signal.signal(signal.SIGALRM, limit)
chance = random.Random(4)
for number in range(ROUNDS):
    before = raised
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-5 + chance.random() * 0.002)
        while raised == before:
            begun += 1
            CALL(one)
            done += 1
            if number % 4 == 0:
                one.stats
            if number % 7 == 0:
                one.flush(0)
    except KIND:
        caught += 1
signal.signal(signal.SIGALRM, signal.SIG_IGN)
begun += 1
done += 1
one.publish(ONE)
settled = wait_for(lambda: one.stats.queued + one.stats.underway == 0) if sys.argv[4] == "there" else True
flushed = one.flush(60) if sys.argv[4] == "there" else None
report(raised=raised, caught=caught, begun=begun, done=done, settled=settled, flushed=flushed, stats=one.stats)
"""


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("limit", "array"), ("limit", "mapping"), ("limit", "labels"), ("limit", "list"),
        ("base", "array"), ("ctrl-c", "mapping"), ("exit", "labels"), ("value", "list"),
    ],
)  # fmt: skip
def test_a_signal_handler_that_raises(kind: str, place: str, collector: Collector, child: Start) -> None:
    """As celery's soft time limit does: the ring is small, and overflows."""
    result = child(collector.data, LIMITS + ALARM, kind, place, "there").result()
    whole(result)
    assert result["raised"] >= 300


@pytest.mark.parametrize("kind", ["limit", "ctrl-c"])
def test_a_signal_handler_that_raises_while_the_ring_is_full(kind: str, child: Start) -> None:
    result = child("tcp://127.0.0.1:59996", LIMITS + ALARM, kind, "array", "away").result()
    whole(result)
    assert result["stats"]["dropped"]["buffer_full"] > 0, "the ring was full"


def whole(result: dict[str, Any]) -> None:
    """Every exception arrived, and every row is counted; a call that was interrupted may have passed its row."""
    assert result["caught"] == result["raised"], "exceptions were swallowed"
    assert result["settled"]
    assert result["done"] <= result["stats"]["sum"] <= result["begun"], result
    assert result["begun"] > result["done"] > 100, "calls were interrupted"


THREADED = """
import ctypes
one = publisher(buffer_bytes=65_536)
counts = {"begun": 0, "done": 0, "caught": 0}
stop = False

def serve():
    while not stop:
        try:
            while not stop:
                counts["begun"] += 1
                CALL(one)
                counts["done"] += 1
                one.stats
        except KIND:
            counts["caught"] += 1

thread = threading.Thread(target=serve)
thread.start()
raised = eaten = 0
for _ in range(ROUNDS):
    before = counts["caught"]
    if ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(KIND)) != 1:
        break
    raised += 1
    eaten += not wait_for(lambda: counts["caught"] > before, 5.0)
    time.sleep(random.random() * 0.0005)
stop = True
thread.join()
settled = wait_for(lambda: one.stats.queued + one.stats.underway == 0)
one.publish(ONE)
report(raised=raised, caught=raised - eaten, begun=counts["begun"] + 1, done=counts["done"] + 1, settled=settled,
       flushed=one.flush(60), stats=one.stats)
"""


@pytest.mark.parametrize(("kind", "place"), [("limit", "array"), ("base", "mapping"), ("exit", "array")])
def test_an_exception_set_from_another_thread(kind: str, place: str, collector: Collector, child: Start) -> None:
    """As watchdogs and notebooks end a thread's work: `PyThreadState_SetAsyncExc`."""
    whole(child(collector.data, LIMITS + THREADED, kind, place).result())


OPCODES = """
one = publisher()
package = os.path.dirname(zmon.__file__)
point = reached = raised = caught = begun = done = 0

def trace(frame, event, _):
    global reached, raised
    if not frame.f_code.co_filename.startswith(package):
        return None
    frame.f_trace_opcodes = True
    frame.f_trace_lines = False
    if event == "opcode":
        reached += 1
        if reached == point:
            raised += 1
            raise KIND("now")
    return trace

def again():  # the engine may be busy with what came before: what a call does differs from one to the next
    global point, reached, caught, begun, done
    complete = 0
    while complete < 3:
        point += 1
        reached = 0
        begun += 1
        before = raised
        sys.settrace(trace)
        try:
            CALL(one)
            done += 1
        except KIND:
            caught += 1
        finally:
            sys.settrace(None)
        complete = complete + 1 if raised == before else 0

again()
points = point
flushed = one.flush(60)
first = states(one.stats)
one.publish(ONE)
begun, done = begun + 1, done + 1
flushed = one.flush(60)
report(raised=raised, caught=caught, begun=begun, done=done, settled=True, flushed=flushed, points=points,
       stats=one.stats)
"""


@pytest.mark.parametrize(
    ("kind", "place"),
    [("limit", "array"), ("limit", "mapping"), ("limit", "labels"), ("limit", "list"), ("ctrl-c", "mapping")],
)
def test_an_exception_at_each_instruction(kind: str, place: str, collector: Collector, child: Start) -> None:
    """Of the publisher's own code, one after the other, in the calling thread."""
    result = child(collector.data, LIMITS + OPCODES, kind, place).result()
    assert result["raised"] >= result["points"] - 20 > 20, "instructions were interrupted"
    assert result["caught"] == result["raised"], "exceptions were swallowed"
    assert result["done"] <= result["stats"]["sum"] <= result["begun"], result
    assert result["flushed"], result


ARGUMENTS = """
class Own(BaseException):
    pass

class Argument:
    def __init__(self, error):
        self.error = error

    def __array__(self, *_, **__):
        raise self.error

    def __len__(self):
        raise self.error

    def __iter__(self):
        raise self.error

KINDS = [Exception, ValueError, SystemExit, KeyboardInterrupt, Own, MemoryError, RecursionError, GeneratorExit,
         StopIteration]
one = publisher()
reached, passed = [], 0
for kind in KINDS:
    for name in ("probabilities", "inputs", "labels", "ids", "timestamps", "segments"):
        arguments = {"probabilities": ONE, name: Argument(kind("of the argument's own"))}
        try:
            one.publish(**arguments)
        except BaseException as error:
            reached.append(f"{kind.__name__} of {name}")
        passed += 1
    try:
        one.publish_labels(Argument(kind("of the argument's own")), [1])
    except BaseException as error:
        reached.append(f"{kind.__name__} of late ids")
    passed += 1
one.publish(TEN)
settled = wait_for(lambda: one.flush(1.0) or not one.stats.queued)
report(reached=reached, passed=passed + 10, flushed=one.flush(60), stats=one.stats)
"""


def test_what_an_argument_raises_does_not_reach_the_model(collector: Collector, child: Start) -> None:
    result = child(collector.data, ARGUMENTS).result()
    assert result["reached"] == []
    assert result["flushed"], result
    assert result["stats"]["sum"] == result["passed"], result
    assert result["stats"]["acknowledged"] >= 10
    collector.stop()


INSIDE = """
class SoftTimeLimitExceeded(Exception):
    pass

class Slow:
    def __init__(self, tries):
        self.tries = tries

    def __len__(self):
        return 1

    def __array__(self, *_, **__):
        until_ = time.monotonic() + 20
        while time.monotonic() < until_:
            self.tries = self.tries + 1
        return ONE

one = publisher()
raised = caught = 0

def limit(*_):
    global raised
    raised += 1
    raise SoftTimeLimitExceeded

signal.signal(signal.SIGALRM, limit)
for _ in range(10):
    signal.setitimer(signal.ITIMER_REAL, 0.03)
    try:
        one.publish(Slow(0))
    except SoftTimeLimitExceeded:
        caught += 1
one.publish(ONE)
report(raised=raised, caught=caught, flushed=one.flush(60), stats=one.stats)
"""


def test_a_time_limit_inside_an_argument(collector: Collector, child: Start) -> None:
    """A tensor that is copied from a device is where a call takes longest."""
    result = child(collector.data, INSIDE).result()
    assert result["caught"] == result["raised"] == 10, result
    assert result["flushed"]
    assert result["stats"]["acknowledged"] == 1
    delivered(collector, 1)
