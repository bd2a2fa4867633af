"""The disk: full and freed, a file damaged between two runs, a very large window that closes."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from zmon_collector.admin import ask

from tests.faults.harness import FULL, LIVE, Timed, settled
from tests.support.disks import small_disk
from tests.support.mortal import Mortal
from tests.support.waiting import until

OLD = 1_000_000_000 // 3600 * 3600  # an hour in 2001


def fill(folder: Path) -> Path:
    """A file that takes all that is left of the disk."""
    ballast = folder / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    assert os.statvfs(folder).f_bavail == 0, "the disk is full"
    return ballast


def test_a_disk_that_fills_and_is_freed(tmp_path: Path) -> None:
    collector = Mortal(tmp_path, LIVE)
    with small_disk(collector.folder, "2m") as folder, collector.running():
        timed = Timed(collector.publisher("a"))
        timed.publish(20)
        assert timed.publisher.flush(60)
        ballast = fill(folder)

        def degraded() -> bool:
            health = ask(folder, "health")
            return health is not None and any("disk is full" in each for each in health["problems"])

        def said_with_more_to_write() -> bool:
            timed.for_a_while(0.5, rows=5, pause=0.02)
            return degraded()

        until(said_with_more_to_write, what="the collector to say that its disk is full")
        assert not timed.publisher.flush(0.5), "what is not on disk is not acknowledged"
        assert collector.alive
        ballast.unlink()
        assert timed.publisher.flush(60), timed.publisher.stats
        until(lambda: not degraded(), what="the collector to be well again")
        timed.publisher.close()
        timed.stays_in_budget()
        collector.end()
        counts = settled(collector, timed.issued)
    assert counts["buffer_count"] == timed.issued


def test_the_disk_is_full_when_a_window_closes(tmp_path: Path) -> None:
    """The files of closed windows find no room: they wait in the outbox, and are written in the end."""
    collector = Mortal(tmp_path, '[collector]\nwindow = "1s"\ngrace = "0s"\n')
    outside = tmp_path / "elsewhere"
    with small_disk(outside, "64k") as folder, collector.running():
        (collector.folder / "anodot").rmdir()
        (collector.folder / "anodot").symlink_to(folder)
        ballast = fill(folder)
        timed = Timed(collector.publisher("a"))
        timed.for_a_while(4.0)

        def waiting() -> int:
            health = ask(collector.folder, "health")
            return int(health["behind"]["anodot_file"]) if health else 0

        until(lambda: waiting() >= 2, what="reports to wait")
        assert timed.publisher.flush(60), "receiving goes on"
        ballast.unlink()
        until(lambda: waiting() == 0, what="the reports to be written")
        timed.publisher.close()
        collector.end()
        assert settled(collector, timed.issued)["buffer_count"] == timed.issued


@pytest.mark.parametrize("seed", range(12 if FULL else 4))
def test_damage_between_two_runs_is_counted(seed: int, tmp_path: Path) -> None:
    """Whatever happens to the journal: it starts, and every row is in a point or counted, or was set aside whole."""
    chance = random.Random(seed)
    collector = Mortal(tmp_path, LIVE)
    with collector.running():
        timed = Timed(collector.publisher("a"))
        for _ in range(150):
            timed.publish(200, inputs=np.random.default_rng(0).random((200, 20)), timestamps=OLD + 1)
        assert timed.publisher.flush(60)
        collector.kill()
        victims = [collector.folder / name for name in ("state.sqlite", "state.sqlite-wal")]
        victim = chance.choice([path for path in victims if path.exists() and path.stat().st_size])
        data = bytearray(victim.read_bytes())
        if seed % 3 == 0:
            del data[chance.randrange(len(data)) :]
        else:
            for _ in range(chance.choice([1, 20])):
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        assert data != victim.read_bytes()
        victim.write_bytes(data)
        collector.start()
        health = collector.wait_until_up()
        timed.publish(20, timestamps=OLD + 2)
        assert timed.publisher.flush(60)
        timed.publisher.close()
        collector.end()
    aside = list(collector.folder.glob("*damaged*"))
    there = collector.total("buffer_count") + collector.total("rows_lost")
    if aside:
        assert any("set aside" in problem for problem in health["problems"])
        assert "is damaged" in collector.said()
        assert there >= 20, "fresh rows are there"
    else:
        assert there == timed.issued, (there, timed.issued, victim.name)


def test_a_large_window_closes_without_delaying_anybody(tmp_path: Path) -> None:
    """While a window of many megabytes is finished and its rows are deleted, another model's acks come as before."""
    megabytes = 1500 if FULL else 200
    collector = Mortal(
        tmp_path, '[collector]\nwindow = "60s"\ngrace = "0s"\nidle = "60s"\n[metrics]\npreset = "minimal"\n'
    )
    collector.checkpoint_bytes = 2**40  # all of it stays in the journal
    with collector.running():
        big = collector.publisher("big", buffer_bytes=64 * 2**20)
        rows, x = 1000, np.random.default_rng(0).random((1000, 100))
        for _ in range(megabytes * 2**20 // x.nbytes):
            big.publish(np.full((rows, 3), 1 / 3), inputs=x, timestamps=OLD + 1)
            while big.stats.queued_bytes > 32 * 2**20:
                time.sleep(0.005)  # it sends
        assert big.flush(60), big.stats
        small = collector.publisher("small", model="small")
        small.publish(np.full((1, 3), 1 / 3), timestamps=OLD + 1)
        assert small.flush(60)
        delays: list[float] = []
        stop = threading.Event()

        def watch() -> None:
            while not stop.is_set():
                small.publish(np.full((1, 3), 1 / 3), timestamps=OLD + 1)
                started = time.monotonic()
                assert small.flush(60)
                delays.append(time.monotonic() - started)
                time.sleep(0.01)  # the load

        thread = threading.Thread(target=watch)
        thread.start()
        until(lambda: len(delays) >= 50, what="the usual delays")
        before = list(delays)
        big.publish(np.full((1, 3), 1 / 3), inputs=x[:1], timestamps=OLD + 61)
        until(lambda: collector.points(), what="the window to be written")
        until(
            lambda: (ask(collector.folder, "health") or {"journal_bytes": 1e12})["journal_bytes"] < 30e6,
            what="deletion",
        )
        stop.set()
        thread.join()
        during = delays[len(before) :]
        usual, worst = np.median(before) * 1e3, max(during) * 1e3
        print(f"{megabytes} MB: {usual:.0f} ms to an ack before, at most {worst:.0f} ms while it closed")
        assert collector.points(), "the window closed meanwhile"
        assert max(during) < 0.2 + 3 * max(before)
        small.close()
        big.close()
