"""What happens between publisher and collector: stopped, cut, slow, torn, too much. The oracle holds every time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from zmon_collector.admin import ask

import zmon
from tests.faults.harness import FULL, LIVE, Timed, settled
from tests.support.mortal import Mortal
from tests.support.proxy import Proxy
from tests.support.waiting import settled as converted
from tests.support.waiting import until


def test_a_stopped_collector_costs_nothing(tmp_path: Path) -> None:
    collector = Mortal(tmp_path, LIVE)
    with collector.running():
        timed = Timed(collector.publisher("a"))
        timed.for_a_while(0.5)
        collector.freeze()
        timed.for_a_while(10.0 if FULL else 4.0)
        assert not timed.publisher.flush(0.1), "it is stopped"
        collector.thaw()
        timed.for_a_while(0.5)
        assert timed.publisher.flush(60), timed.publisher.stats
        timed.publisher.close()
        timed.stays_in_budget()
        collector.end()
    assert settled(collector, timed.issued)["buffer_count"] == timed.issued


def test_a_ring_that_overflows_loses_exactly_what_it_says(tmp_path: Path) -> None:
    collector = Mortal(tmp_path, LIVE)
    with collector.running():
        timed = Timed(collector.publisher("a", buffer_bytes=100_000))
        timed.for_a_while(0.3)
        assert timed.publisher.flush(60)
        collector.kill()
        for _ in range(2000):
            timed.publish(20)
        dropped = converted(timed.publisher).dropped["buffer_full"]
        assert dropped > 10_000
        collector.start()
        assert not timed.publisher.flush(60), "rows were dropped"
        timed.publish(20)  # fresh data flows
        assert timed.publisher.flush(60)
        assert timed.publisher.stats.dropped["buffer_full"] == dropped
        timed.publisher.close()
        timed.stays_in_budget()
        collector.end()
    assert settled(collector, timed.issued)["rows_lost"] == dropped


@pytest.mark.parametrize("seconds", [1.0, 6.0], ids=["a moment", "until it is taken for gone"])
def test_of_two_collectors_one_stops_reading(tmp_path: Path, seconds: float) -> None:
    reads, stops = Mortal(tmp_path / "reads", LIVE), Mortal(tmp_path / "stops", LIVE)
    with reads.running(), stops.running():
        both = [reads.endpoint, stops.endpoint]
        timed = Timed(zmon.Publisher("m", classes=3, collector=both, agent_id="a", buffer_bytes=400_000))
        timed.for_a_while(0.5)
        assert timed.publisher.flush(60)
        stops.freeze()
        stopped = time.monotonic()
        # Many times the ring: it runs over for one, and stays empty for the other.
        while timed.issued < 100_000 or time.monotonic() - stopped < seconds:
            timed.for_a_while(0.05, rows=100)
            until(lambda: rows_of(reads) == timed.issued, what="the reading collector to have everything")
        slow = max(timed.seconds)
        stops.thaw()
        assert not timed.publisher.flush(60), "rows were dropped for the one that stopped"
        assert timed.publisher.flush(60)
        timed.publisher.close()
        timed.stays_in_budget()
        assert slow < 0.5
        reads.end()
        stops.end()
    assert settled(reads, timed.issued)["buffer_count"] == timed.issued
    assert settled(stops, timed.issued)["rows_lost"] > 0


def rows_of(collector: Mortal) -> int:
    health = ask(collector.folder, "health")
    return int(health["counters"].get("rows", 0)) if health else -1


def test_a_link_that_delays_cuts_and_resets(tmp_path: Path) -> None:
    collector = Mortal(tmp_path, LIVE)
    chance = random.Random(3)
    with collector.running():
        port = int(collector.endpoint.rpartition(":")[2])
        data, control = Proxy(port, chance), Proxy(port + 1, chance)
        timed = Timed(
            zmon.Publisher(
                "m",
                classes=3,
                collector=data.endpoint,
                control=control.endpoint,
                agent_id="a",
            )
        )
        timed.for_a_while(20.0 if FULL else 6.0)
        data.calm = control.calm = True
        assert timed.publisher.flush(60), timed.publisher.stats
        timed.publisher.close()
        timed.stays_in_budget()
        print(f"{data.cuts + control.cuts} cuts")
        assert data.cuts > 5
        collector.end()
    assert settled(collector, timed.issued)["buffer_count"] == timed.issued


def test_a_restart_under_the_load_of_fifty_publishers(tmp_path: Path) -> None:
    collector = Mortal(tmp_path, LIVE)
    with collector.running():
        crowd = [Timed(collector.publisher(f"pod-{i}")) for i in range(50)]
        stop = threading.Event()

        def serve(timed: Timed) -> None:
            while not stop.is_set():
                timed.publish(20)
                time.sleep(0.02)  # the load

        threads = [threading.Thread(target=serve, args=(timed,)) for timed in crowd]
        for thread in threads:
            thread.start()

        def serve_for_a_while() -> None:
            goal = [timed.issued + 800 for timed in crowd]
            until(lambda: all(timed.issued >= rows for timed, rows in zip(crowd, goal, strict=True)), what="more rows")

        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
            serve_for_a_while()
            collector.kill(number)
            collector.start()
            collector.wait_until_up()
        serve_for_a_while()
        stop.set()
        for thread in threads:
            thread.join()
        for timed in crowd:
            assert timed.publisher.flush(60), timed.publisher.stats
            timed.publisher.close()
        collector.end()
    issued = sum(timed.issued for timed in crowd)
    assert settled(collector, issued)["buffer_count"] == issued


DOWN = """
import subprocess, sys, time
import numpy as np
import zmon
from tests.faults.harness import LIVE, Timed, settled
from tests.support.mortal import Mortal
from pathlib import Path

def link(state):
    subprocess.run(["ip", "link", "set", "lo", state], check=True)

link("up")
collector = Mortal(Path(sys.argv[1]), LIVE)
with collector.running():
    timed = Timed(collector.publisher("a"))
    timed.for_a_while(0.5)
    assert timed.publisher.flush(60)
    link("down")
    timed.for_a_while(float(sys.argv[2]))
    assert not timed.publisher.flush(0.1)
    link("up")
    timed.for_a_while(0.3)
    assert timed.publisher.flush(60), timed.publisher.stats
    timed.publisher.close()
    timed.stays_in_budget()
    collector.end()
assert settled(collector, timed.issued)["buffer_count"] == timed.issued
print("the link was down and nothing was lost")
"""


def test_a_link_that_goes_down(tmp_path: Path) -> None:
    """In a network namespace of its own, whose only link is taken down."""
    probe = subprocess.run(["unshare", "-Urn", "ip", "link", "set", "lo", "up"], capture_output=True, check=False)
    if probe.returncode and not os.environ.get("ZMON_REQUIRE_ALL"):
        pytest.skip("no network namespaces here")
    done = subprocess.run(
        ["unshare", "-Urn", sys.executable, "-c", DOWN, str(tmp_path), "10" if FULL else "5"],
        capture_output=True, text=True, timeout=120, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert "nothing was lost" in done.stdout, done.stderr
