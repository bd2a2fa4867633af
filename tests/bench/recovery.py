"""How long a killed collector needs to be back: by the bytes of open windows in its journal.

Back twice: when it answers, from then on it takes rows and acknowledges them; and when it has computed again on all
rows of the journal. Both from the start of the process, imports included.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
from zmon_collector.admin import ask

import zmon
from tests.bench.measure import Table
from tests.support.processes import OLD, Running
from tests.support.waiting import until

FEATURES, CLASSES, BATCH = 100, 10, 1000
SIZES = (4, 32, 200)  # MiB, below the size at which a checkpoint replaces rows
PACE = 8  # batches published before waiting for acknowledgement


def recover(folder: Path, mib: int) -> dict[str, Any]:
    random = np.random.default_rng(0)
    p = random.dirichlet(np.ones(CLASSES), BATCH).astype("f4")
    x = random.normal(size=(BATCH, FEATURES)).astype("f4")
    count = max(1, mib * 2**20 // (p.nbytes + x.nbytes))
    running = Running(folder, "--window", "1h", flush=False)
    data, control = running.health["data"], running.health["control"]
    with zmon.Publisher("m", classes=CLASSES, collector=data, control=control, agent_id="bench") as publisher:
        for number in range(count):
            publisher.publish(p, inputs=x, timestamps=OLD)
            if number % PACE == PACE - 1:
                assert publisher.flush(30)
        assert publisher.flush(30)
    answer = ask(folder, "health")
    assert answer is not None
    running.end(signal.SIGKILL)
    started = time.monotonic()
    running = Running(folder, "--window", "1h", flush=False)
    answers = time.monotonic() - started

    def replayed() -> bool:
        health = ask(folder, "health")
        return health is not None and health["counters"].get("replayed", 0) >= count * BATCH

    until(replayed, what="the replay")
    ended = time.monotonic() - started
    running.end()
    return {
        "journal_mib": answer["journal_bytes"] / 2**20,
        "rows": count * BATCH,
        "answers_s": answers,
        "recovered_s": ended,
    }


def run(folder: Path, quick: bool) -> list[dict[str, Any]]:
    return [recover(folder / f"recovery-{mib}", mib) for mib in (SIZES[1:2] if quick else SIZES)]


def show(found: list[dict[str, Any]]) -> list[Table]:
    return [
        Table(
            f"Recovery after SIGKILL, {FEATURES} features",
            ("journal MiB", "rows in it", "takes rows after s", "all computed again after s"),
            [
                (f"{r['journal_mib']:.0f}", f"{r['rows']:,}", f"{r['answers_s']:.2f}", f"{r['recovered_s']:.2f}")
                for r in found
            ],
        )
    ]
