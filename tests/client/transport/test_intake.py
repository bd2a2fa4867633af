"""The queue between callers and the engine: bounded in bytes, in order, exact after interrupted calls."""

from __future__ import annotations

import threading
from contextlib import suppress

from zmon._transport.intake import MARK, MARKS, REFUSED, Intake, Snapshot


def one(rows: int = 1, nbytes: int = 100, kind: str = "batch") -> Snapshot:
    return Snapshot(kind, None, 0, rows, nbytes)


def test_snapshots_come_out_in_order_and_are_numbered_once() -> None:
    intake = Intake(10_000)
    given = [one() for _ in range(5)]
    for each in given:
        intake.put(each)
    assert intake.nbytes == 500
    first = intake.peek(3, 10**6)
    assert first == given[:3]
    assert intake.peek(5, 10**6) == given, "they stay until they are dropped"
    assert [each.ordinal for each in given] == [1, 2, 3, 4, 5]
    intake.drop(first)
    assert intake.nbytes == 200
    assert intake.waiting() == given[3:]


def test_a_look_takes_one_kind_and_so_many_bytes_but_at_least_one() -> None:
    intake = Intake(10_000)
    kinds = ["batch", "batch", "labels", REFUSED, MARK]
    for kind in kinds:
        intake.put(one(kind=kind))
    taken = []
    while snapshots := intake.peek(10, 150):
        taken.append([each.kind for each in snapshots])
        intake.drop(snapshots)
    assert taken == [["batch"], ["batch"], ["labels"], [REFUSED], [MARK]]
    intake.put(one(nbytes=5000))
    assert len(intake.peek(10, 150)) == 1


def test_what_finds_no_room_is_counted_and_not_held() -> None:
    intake = Intake(1000)
    intake.put(one(nbytes=900))
    assert intake.put(one(rows=7, nbytes=200)), "the engine should hurry"
    intake.append(one(rows=0, nbytes=0, kind=MARK))
    assert (intake.overflowed, intake.nbytes, len(intake.waiting())) == (7, 900, 2)
    intake.drop(intake.peek(1, 10**6))
    intake.ring_bytes = 950
    intake.put(one(rows=1, nbytes=100))
    assert intake.overflowed == 8, "queue and ring share the limit"


def test_marks_that_nobody_comes_to_are_bounded() -> None:
    intake = Intake(1000)
    mark = one(rows=0, nbytes=0, kind=MARK)
    assert all(intake.append(mark) for _ in range(MARKS))
    assert not intake.append(mark)
    intake.put(one(nbytes=900))
    assert len(intake.waiting()) == MARKS + 1
    intake.reached += 1
    assert intake.append(mark)
    assert not intake.append(mark)


def test_a_queue_that_fills_up_lets_the_engine_hurry() -> None:
    intake = Intake(6400)
    assert not intake.put(one(nbytes=150))
    assert intake.put(one(nbytes=100)), "a thirty-second of the limit"
    intake.drop(intake.peek(1, 10**6))
    assert not intake.put(one(nbytes=50))


def test_the_ring_leaves_room_for_the_largest_batch() -> None:
    intake = Intake(8000)
    assert intake.room(0) == 6000
    intake.put(one(nbytes=2500))
    intake.put(one(nbytes=2500))
    assert intake.room(0) == 3000
    assert intake.room(5000) == 5500, "what is being converted into the ring is not counted twice"
    intake.drop(intake.peek(2, 10**6))
    assert intake.room(0) == 5500, "another one may come"
    intake.put(one(nbytes=7900))
    intake.drop(intake.peek(1, 10**6))
    assert intake.room(0) == 4000, "and yet half of the limit is the ring's"


def test_bytes_of_an_interrupted_call_are_forgotten_again() -> None:
    intake = Intake(1000)
    queue, intake._queue = intake._queue, None  # type: ignore[assignment]
    with suppress(AttributeError):
        intake.put(one(nbytes=300))  # counted, and then the exception came
    intake._queue = queue
    assert intake.nbytes == 300
    intake.settle()
    assert intake.nbytes == 300, "the append may still come"
    intake.settle()
    assert intake.nbytes == 0
    intake.put(one(nbytes=1000))
    assert intake.overflowed == 0


def test_many_callers_lose_nothing() -> None:
    intake, taken = Intake(10**9), []
    done = threading.Event()

    def call() -> None:
        for _ in range(5000):
            intake.put(one(nbytes=10))

    def drain() -> None:
        while not done.is_set() or intake:
            snapshots = intake.peek(64, 10**6)
            intake.drop(snapshots)
            taken.extend(each.ordinal for each in snapshots)

    engine = threading.Thread(target=drain)
    engine.start()
    callers = [threading.Thread(target=call) for _ in range(4)]
    for each in callers:
        each.start()
    for each in callers:
        each.join()
    done.set()
    engine.join()
    assert taken == list(range(1, 20_001))
    assert intake.nbytes == 0
