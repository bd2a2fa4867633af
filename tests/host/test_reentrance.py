"""Signal handlers, finalizers and the collector of garbage call the publisher in the middle of its own calls."""

from __future__ import annotations

import pytest

from tests.host.conftest import Start
from tests.support.collectors import Collector, delivered

SIGNALS = """
SECONDS = (60.0 if FULL else 4.0) / 6
one = publisher()
in_handler, in_main = itertools.count(), itertools.count()
handled, closed = 0, 0
victims = []

def publish(count):
    next(count)
    one.publish(ONE)

def label(count):
    next(count)
    one.publish_labels([7], [1])

def mapping(count):
    next(count)
    one.publish(ONE, [{"age": 3, "country": "de"}], ids=["x"], segments={"kind": ["a"]})

def close(count):
    if count is in_handler:
        for victim in victims[-1:]:
            victim.close(0)
        return
    victim = publisher(model="victim")
    victims.append(victim)
    victim.publish(ONE)
    victim.close(0.01)
    victim.publish(ONE)
    global closed
    closed += 1
    victims.remove(victim)

CALLS = [publish, label, mapping, lambda _: one.stats, lambda _: one.flush(0), close]
waiting = [*CALLS[:4], lambda _: one.flush(0.003), close]

def handle(*_):
    global handled
    handled += 1
    CALLS[handled % len(CALLS)](in_handler)

signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
rounds = []
for call in waiting:
    until_, done = time.monotonic() + SECONDS, 0
    while time.monotonic() < until_ or done < 20:
        call(in_main)
        done += 1
    rounds.append(done)
signal.setitimer(signal.ITIMER_REAL, 0)
passed = next(in_main) + next(in_handler)
flushed = one.flush(60)
report(handled=handled, closed=closed, rounds=rounds, passed=passed, flushed=flushed, stats=one.stats)
"""


def test_a_signal_every_millisecond_whose_handler_uses_the_publisher(collector: Collector, child: Start) -> None:
    """A lock that the interrupted call holds would stop the process for good."""
    result = child(collector.data, SIGNALS).result()
    assert result["handled"] > 300, "signals came"
    assert min(result["rounds"]) >= 20
    assert result["closed"] >= 20
    dropped = sum(result["stats"]["dropped"].values())  # by a machine that has no time for the sending thread
    assert result["flushed"] or dropped, result
    assert result["stats"]["sum"] == result["passed"], result["stats"]
    assert result["stats"]["acknowledged"] + dropped == result["passed"], result["stats"]


FINALIZERS = """
SECONDS = 20.0 if FULL else 2.0
one, other = publisher(), publisher(agent_id="other")
passed = itertools.count()
here = threading.get_ident()
elsewhere = made = ended = callbacks = 0
calling = threading.local()

def call():
    next(passed)
    one.publish(ONE)
    one.stats
    one.flush(0)
    other.publish_labels([1], [1])

class Trap:
    def __init__(self):
        global made
        made += 1
        self.cycle = self  # only the collector of garbage ends it

    def __del__(self):
        global ended, elsewhere
        ended += 1
        elsewhere += threading.get_ident() != here
        call()

def callback(phase, _):
    global callbacks
    if phase == "start" and not getattr(calling, "busy", False):
        calling.busy = True
        callbacks += 1
        call()
        calling.busy = False

gc.set_threshold(5, 2, 2)
if sys.argv[2] == "callbacks":
    gc.callbacks.append(callback)
until_, rounds = time.monotonic() + SECONDS, 0
while time.monotonic() < until_ or (elsewhere < 3 and time.monotonic() < until_ + 60):
    rounds += 1
    if rounds % 2:
        gc.disable()  # then the thread that sends makes the next collection
    for number in range(20):
        Trap()
        next(passed)
        one.publish(ONE, [{"age": 3, "country": "de"}], segments={"kind": ["a"]}, ids=[str(number)])
        one.stats
    gc.enable()
    time.sleep(0.06)
gc.callbacks.clear()
gc.set_threshold(700, 10, 10)
assert wait_for(lambda: gc.collect() >= 0 and ended == made)  # another thread may be collecting
count = next(passed)
flushed = one.flush(60) and other.flush(60)
report(ended=ended, elsewhere=elsewhere, callbacks=callbacks, passed=count, flushed=flushed, stats=one.stats)
"""


@pytest.mark.parametrize("how", ["finalizers", "callbacks"])
def test_finalizers_that_use_the_publisher_in_any_thread(how: str, collector: Collector, child: Start) -> None:
    """In the middle of a call, and in the thread that sends."""
    result = child(collector.data, FINALIZERS, how).result()
    assert result["ended"] > 20
    assert result["elsewhere"] >= 3, "finalizers ran in the sending thread, too"
    assert result["callbacks"] > 20 or how == "finalizers"
    assert result["flushed"], result
    assert result["stats"]["acknowledged"] == result["stats"]["sum"] == result["passed"], result


ENDING = """
one, victims = publisher(), [publisher(agent_id=f"v{number}") for number in range(60)]
here, elsewhere, waits = threading.get_ident(), 0, []
for victim in victims:
    victim.publish(TEN)
count = len(victims)

class Trap:
    def __init__(self):
        self.cycle = self

    def __del__(self):
        global elsewhere
        if threading.get_ident() != here and victims:
            elsewhere += 1
            victim = victims.pop()
            began = time.monotonic()
            victim.flush(0.01)
            victim.close(0.01)
            waits.append(time.monotonic() - began)
            victim.publish(TEN)

gc.set_threshold(5, 2, 2)
until_ = time.monotonic() + 60
while victims and time.monotonic() < until_:
    gc.disable()  # then the thread that sends makes the next collection
    for _ in range(20):
        Trap()
        one.publish(ONE, [{"age": 3, "country": "de"}])
    gc.enable()
    time.sleep(0.06)
gc.set_threshold(700, 10, 10)
flushed = one.flush(60)
report(elsewhere=elsewhere, count=count, longest=max(waits, default=0), flushed=flushed, stats=one.stats)
"""


def test_a_finalizer_in_the_sending_thread_that_flushes_and_closes(collector: Collector, child: Start) -> None:
    """It would wait for itself."""
    result = child(collector.data, ENDING).result()
    assert result["elsewhere"] == result["count"] == 60, result
    assert result["longest"] < 10.0
    assert result["flushed"], result
    assert result["stats"]["acknowledged"] == result["stats"]["sum"]


EXIT = """
one = publisher()

class Keeper:
    def __del__(self):
        one.publish(TEN)
        one.stats
        one.flush(0.01)
        one.close(0.01)

keeper = Keeper()
one.publish(TEN)
signal.signal(signal.SIGTERM, lambda *_: (one.publish(TEN), sys.exit(0)))
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_finalizer_when_the_interpreter_ends(collector: Collector, child: Start) -> None:
    one = child(collector.data, EXIT)
    one.end()
    assert one.process.returncode == 0, one.said
    delivered(collector, 20)
