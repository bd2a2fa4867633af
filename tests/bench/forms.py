"""What publish() and a watched function cost for every form of arguments: in a loop, and with cold caches.

The other end reads and acknowledges in a process of its own. The unit is a raw pyzmq send of one small row with a
msgpack header. Raw sends take turns with the calls, and so do copies of the same rows in their own way, such as
``dict(row)`` and ``frame.copy()``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import zmon
from tests.bench import given
from tests.bench.ends import Send, acknowledging, raw_sends
from tests.bench.given import Case
from tests.bench.measure import Table, costs, paced, percentiles

CALLS = 300  # a turn, at most
TURN, TOTAL = 0.03, 1.5  # seconds of a turn, and of all turns, that slow forms take about
BUFFER, CELL = 2**31, 128  # bytes; what publish() counts for a cell that waits, at most: more than it holds
ENOUGH = 200  # calls, below which there is no 99th percentile
EVERY = 0.001  # seconds between two cold calls

Calls = Mapping[str, Callable[[], Any]]


def run(folder: Path, quick: bool) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {"calls": [], "watch": []}
    with acknowledging() as there, raw_sends() as raw:
        for case in given.cases(quick):
            found["calls"].append(called(case, there, raw, quick))
            if case.columns == 13 and case.rows <= 32 and case.values == _typical(case.form):
                found["watch"].append(watched(case, there, raw, quick))
    return found


def called(case: Case, there: dict[str, str], raw: Send, quick: bool) -> dict[str, Any]:
    """One form: publish(), the raw send and the form's own copy in turn, in a loop and then a call a millisecond."""
    arguments, copy = given.given(case)
    with publisher(there) as one:
        calls: dict[str, Callable[[], Any]] = {"publish": lambda: one.publish(**arguments), "raw": raw}
        kept: list[Any] = []
        if copy is not None:
            # Kept for a turn, as publish() keeps its own: a copy dropped at once leaves its memory to the next one.
            calls["copy"] = lambda: kept.append(copy())
        times, rounds = turns(calls["publish"], one, case, quick)
        loop = costs(calls, rounds, _hot(calls, times), lambda: (kept.clear(), settle(one)))
        cold = paced(calls, min(rounds * times, 40 if quick else 300), EVERY)
        check(one)
    found = {**case._asdict(), "number": rounds * times, **percentiles(loop["publish"].times)}
    found["of_raw"] = ratio(loop["publish"].times, loop["raw"].times)
    found["raw_us"] = float(np.median(loop["raw"].times)) / 1e3
    found |= {f"cold_{name}": value for name, value in percentiles(cold["publish"]).items()}
    found["cold_of_raw"] = ratio(cold["publish"], cold["raw"])
    found["processor_us_a_row"] = 1e6 * loop["publish"].processor / case.rows
    found["processor_of_raw"] = loop["publish"].processor / loop["raw"].processor
    if copy is not None:
        found["copy_us"] = float(np.median(loop["copy"].times)) / 1e3
        found["of_copy"] = ratio(loop["publish"].times, loop["copy"].times)
    return found


def watched(case: Case, there: dict[str, str], raw: Send, quick: bool) -> dict[str, Any]:
    """What `zmon.watch` adds around a function to publishing its argument and result by hand."""
    arguments, _ = given.given(case)
    inputs, p = arguments["inputs"], arguments["probabilities"]
    more = {name: value for name, value in arguments.items() if name not in ("inputs", "probabilities")}

    def predict(inputs: Any) -> Any:
        return p

    with publisher(there) as one:
        served = zmon.watch(predict, one)

        def by_hand() -> None:
            one.publish(predict(inputs), inputs, **more)

        def in_context() -> None:
            with one.context(**more):
                served(inputs)

        calls: Calls = {"by hand": by_hand, "watched": in_context if more else lambda: served(inputs), "raw": raw}
        times, rounds = turns(by_hand, one, case, quick)
        loop = costs(calls, rounds, _hot(calls, times), lambda: settle(one))
        check(one)
    median = {name: float(np.median(each.times)) / 1e3 for name, each in loop.items()}
    return {
        **case._asdict(),
        "by_hand_us": median["by hand"],
        "watched_us": median["watched"],
        "added_of_raw": (median["watched"] - median["by hand"]) / median["raw"],
    }


def publisher(there: dict[str, str]) -> zmon.Publisher:
    return zmon.Publisher("m", classes=["no", "yes"], agent_id="bench", buffer_bytes=BUFFER, **there)


def turns(call: Callable[[], Any], one: zmon.Publisher, case: Case, quick: bool) -> tuple[int, int]:
    """How many calls a turn and how many turns, so that slow forms take a second or two as well."""
    call()
    settle(one)  # it is connected, and warm
    most = min(CALLS, BUFFER // (CELL * case.rows * case.columns))  # without a row that is dropped
    calls, used = 1, 0.0
    while used < TURN / 3 and calls < most:
        calls = min(4 * calls, most)
        before = time.process_time()
        for _ in range(calls):
            call()
        settle(one)
        used = time.process_time() - before
    took = used / calls
    calls = max(2, min(most, int(TURN / took)))
    if quick:
        return min(calls, 50), 2
    return calls, max(3, min(20, int(TOTAL / (calls * took))))


def _hot(calls: Calls, times: int) -> dict[str, int]:
    """The calls of a turn: few raw sends in a turn of slow calls would be cold, and the unit another one."""
    return {**dict.fromkeys(calls, times), "raw": max(times, CALLS // 3)}


def settle(one: zmon.Publisher) -> None:
    assert one.flush(60), f"not acknowledged: {one.stats}"


def check(one: zmon.Publisher) -> None:
    """Everything was captured: otherwise the figures would be of something else."""
    settle(one)
    stats = one.stats
    assert not stats.dropped, stats
    assert not stats.rejected, stats


def ratio(times: np.ndarray, unit: np.ndarray) -> float:
    return float(np.median(times) / np.median(unit))


def _typical(form: str) -> str:
    return given.NUMERIC if form in (given.ARRAY, given.WITH_COLUMNS, given.LIST) else given.MIXED


def show(found: dict[str, list[dict[str, Any]]]) -> list[Table]:
    return [
        Table(
            "Capture by form: one call in the model's thread",
            ("inputs", "p50 µs", "p99 µs", "× raw send", "× own copy", "cold p50 µs", "cold p99 µs", "× cold raw send",
             "processor µs a row"),
            [
                (Case.of(r), f"{r['p50_us']:,.1f}",
                 f"{r['p99_us']:,.1f}" if r["number"] >= ENOUGH else "", f"{r['of_raw']:,.2f}",
                 f"{r['of_copy']:,.1f}" if "of_copy" in r else "", f"{r['cold_p50_us']:,.1f}",
                 f"{r['cold_p99_us']:,.1f}" if r["number"] >= ENOUGH else "", f"{r['cold_of_raw']:,.2f}",
                 f"{r['processor_us_a_row']:,.2f}")
                for r in found["calls"]
            ],
        ),
        Table(
            "Watching a function: what zmon.watch adds to publishing by hand, in a loop",
            ("inputs", "by hand µs", "watched µs", "added, × raw send"),
            [
                (Case.of(r), f"{r['by_hand_us']:,.1f}",
                 f"{r['watched_us']:,.1f}", f"{r['added_of_raw']:+.2f}")
                for r in found["watch"]
            ],
        ),
    ]  # fmt: skip
