"""All forms at once from eight threads, while the collector stops, goes on and is killed, and rings overflow."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.harness import FULL, settled
from tests.host.conftest import Start
from tests.support.mortal import Mortal

SECONDS = 600.0 if FULL else 25.0
CONFIG = """
[collector]
window = "1h"
grace = "0s"
idle = "600s"
max_wait = "600s"
"""

SOAK = """
import pandas, polars, pyarrow, psutil
lines = Lines()
crowd = [publisher(agent_id=f"a{number}", classes=["no", "maybe", "yes"], buffer_bytes=400_000) for number in range(4)]
chance = np.random.default_rng(1)

def columns(rows):
    return {"age": chance.normal(size=rows), "country": chance.choice(["de", "fr", "it"], rows),
            "vip": chance.random(rows) < 0.5, "visits": chance.integers(0, 9, rows)}

def records(rows):
    table = columns(rows)
    return [{name: column[row].item() for name, column in table.items()} for row in range(rows)]

FORMS = [
    lambda p, n: {"probabilities": p},
    lambda p, n: {"probabilities": p.tolist()},
    lambda p, n: {"probabilities": p, "inputs": records(n)},
    lambda p, n: {"probabilities": p, "inputs": pandas.DataFrame(columns(n))},
    lambda p, n: {"probabilities": p, "inputs": polars.DataFrame(columns(n))},
    lambda p, n: {"probabilities": p, "inputs": pyarrow.table(columns(n))},
    lambda p, n: {"probabilities": p, "inputs": columns(n)},
    lambda p, n: {"probabilities": p, "segments": {"country": chance.choice(["de", "fr"], n).tolist()}},
    lambda p, n: {"probabilities": p, "labels": chance.choice(["no", "maybe", "yes"], n).tolist(),
                  "ids": [f"order-{row}" for row in range(n)]},
    lambda p, n: {"predictions": chance.integers(0, 3, n)},
    lambda p, n: {"probabilities": p, "timestamps": time.time()},
    lambda p, n: {"probabilities": p + 5.0},  # rejected
    lambda p, n: {"probabilities": ["nonsense"] * n},  # rejected
    lambda p, n: {"probabilities": p, "labels": ["nobody"] * n},  # labels left out
]
stop = False
passed = [[0] * 8 for _ in crowd]
raised = []

def serve(thread):
    number = thread
    while not stop:
        number += 1
        rows = number * 7 % 40 + 1
        p = np.full((rows, 3), 1 / 3)
        place = number % len(crowd)
        try:
            crowd[place].publish(**FORMS[number * 5 % len(FORMS)](p, rows))
        except BaseException as error:
            raised.append(repr(error))
        passed[place][thread] += rows
        p[:] = np.nan  # the model uses its buffer again
        if number % 50 == 0:
            crowd[place].stats
            time.sleep(0.001)
        if number % 997 == 0:
            crowd[place].flush(0.01)

threads = [threading.Thread(target=serve, args=(number,)) for number in range(8)]
for thread in threads:
    thread.start()
process = psutil.Process()
seconds = float(sys.argv[2])
began, memory, most, wrong = time.monotonic(), [], 0, []
while time.monotonic() - began < seconds:
    time.sleep(0.25)  # between two looks
    memory.append(process.memory_info().rss)
    for place, one in enumerate(crowd):
        low = sum(passed[place])
        stats = one.stats
        high = sum(passed[place]) + 8 * 40
        most = max(most, stats.queued_bytes)
        if not low <= accounted(stats) <= high:
            wrong.append([low, high, states(stats)])
stop = True
for thread in threads:
    thread.join()
print("published", flush=True)
sys.stdin.readline()
arrived = [wait_for(lambda: one.stats.queued + one.stats.underway == 0) for one in crowd]
for one in crowd:
    one.close(10)
report(passed=[sum(each) for each in passed], raised=raised[:5], wrong=wrong[:3], memory=memory, most=most,
       arrived=arrived, stats=[states(one.stats) for one in crowd], lines=len(lines.lines), last=lines.lines[-5:])
"""


@pytest.mark.timeout(1800 if FULL else 600)
def test_all_forms_from_eight_threads(tmp_path: Path, child: Start) -> None:
    collector = Mortal(tmp_path / "c", CONFIG)
    stopped = killed = 0
    with collector.running():
        one = child(collector.endpoint, SOAK, str(SECONDS))
        until_ = time.monotonic() + SECONDS
        while time.monotonic() < until_ - 6:
            time.sleep(2.0)  # it serves
            collector.freeze()
            stopped += 1
            time.sleep(1.5)  # rings fill
            collector.thaw()
            time.sleep(1.5)
            if stopped % 3 == 0:
                collector.kill()
                killed += 1
                time.sleep(0.5)
                collector.start()
                collector.wait_until_up()
        assert one.line() == "published"
        one.go_on()
        result = one.result(timeout=300)
        collector.end()
    assert stopped >= 3 and killed >= 1
    assert result["raised"] == []
    assert result["wrong"] == []
    assert all(result["arrived"])
    total: Counter[str] = Counter()
    for rows, stats in zip(result["passed"], result["stats"], strict=True):
        assert stats["sum"] == rows, stats
        assert stats["queued"] == stats["underway"] == 0
        total.update(stats["dropped"], rejected=sum(stats["rejected"].values()))
    assert total["buffer_full"] > 1000, "rings overflowed"
    assert total["rejected"] > 1000
    counts = settled(collector, sum(result["passed"]))
    assert counts["rows_rejected"] == total["rejected"]
    assert counts["rows_lost"] <= total["buffer_full"] + total["closed"]
    assert result["most"] <= 400_000, "the bound in bytes"
    flat(result["memory"])
    assert result["lines"] < 100, result["last"]


def flat(memory: list[int]) -> None:
    """The last third needs no more than the middle one, but for a little."""
    third = len(memory) // 3
    assert max(memory[2 * third :]) < max(memory[third : 2 * third]) + 24 * 2**20, [m >> 20 for m in memory[::10]]
