"""Labels that come later: what is joined equals the joined table, whatever arrives when, and whoever is killed."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics
from zmon_collector.admin import ask

import zmon
from tests.faults.collector import POINTS
from tests.faults.harness import OLD
from tests.support.databases import stored
from tests.support.mortal import Mortal
from tests.support.waiting import until

DAY = 86_400
ROWS, BATCH = 100_000, 500
CONFIG = """
[collector]
window = "6h"
grace = "0s"
idle = "30s"
max_wait = "120s"
label_wait = "60s"
[metrics]
preset = "full"
[web]
enabled = false
"""
NAMES = ("ok", "odd", "fraud")


def table(rows: int) -> tuple[Any, Any, Any]:
    """Probabilities, labels and times: three simulated days of predictions."""
    random = np.random.default_rng(11)
    p = random.dirichlet((2.0, 1.0, 0.5), rows).astype(np.float32)
    labels = np.where(random.random(rows) < 0.7, p.argmax(axis=1), random.integers(0, 3, rows))
    return p, labels, OLD + np.sort(random.random(rows)) * 3 * DAY


SENDER = """
import sys
import numpy as np
import zmon
from tests.faults.test_labels import DAY, NAMES, table

endpoint, rows, part = sys.argv[1], int(sys.argv[2]), sys.argv[3]
random = np.random.default_rng(5)
_, labels, times = table(rows)
order = random.permutation(rows)
early, late = order[: rows // 50], order[rows // 50 : rows - rows // 20]  # a twentieth never gets a label
with zmon.Publisher("m", classes=NAMES, collector=endpoint, agent_id="truth") as publisher:
    def send(which, labels=labels):
        for at in range(0, len(which), 1000):
            some = which[at : at + 1000]
            when = times[some] + random.exponential(DAY, len(some))
            publisher.publish_labels([f"row-{i}" for i in some], [NAMES[each] for each in labels[some]], when)
    if part == "early":
        send(early)
    else:
        again = random.choice(late, rows // 100, replace=False)
        send(late)
        send(again)
        send(again[: len(again) // 2], (labels + 1) % 3)
        publisher.publish_labels([f"stranger-{i}" for i in range(rows // 200)], ["ok"] * (rows // 200))
    assert publisher.flush(120), publisher.stats
    assert not publisher.stats.dropped and not publisher.stats.rejected, publisher.stats
"""


def send(collector: Mortal, rows: int, part: str) -> subprocess.Popen[bytes]:
    """Another process sends labels."""
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(SENDER), collector.endpoint, str(rows), part])


def labelled(rows: int) -> Any:
    """The rows that get a label: the oracle's joined table."""
    return np.random.default_rng(5).permutation(rows)[: rows - rows // 20]


def totals(collector: Mortal) -> tuple[Counter[tuple[str, ...]], dict[str, float]]:
    """Counters of the rollup over all windows, and the scores weighted by their labels."""
    counts: Counter[tuple[str, ...]] = Counter()
    sums: Counter[str] = Counter()
    for window in collector.points().values():
        rollup = {names: value for names, value in window.items() if "agent_id" not in dict(names)}
        labels = sum(value for names, value in rollup.items() if dict(names)["what"] == "label_count")
        for names, value in rollup.items():
            said = dict(names)
            if said["what"] in ("confusion_count", "late_label_count", "buffer_count", "rows_late"):
                key = (said["what"], *(said[each] for each in ("class_name", "predicted", "reason") if each in said))
                counts[key] += int(value)
            elif said["what"] in ("accuracy", "log_loss", "brier") and len(said) == 1:
                sums[said["what"]] += value * labels
    total = sum(value for key, value in counts.items() if key[0] == "confusion_count")
    return counts, {name: value / total for name, value in sums.items()}


def check(collector: Mortal, rows: int) -> None:
    """Everything that was joined, against scikit-learn on the joined table."""
    p, labels, _ = table(rows)
    joined = labelled(rows)
    said, truth = p.argmax(axis=1)[joined], labels[joined]
    counts, scores = totals(collector)
    matrix = metrics.confusion_matrix(truth, said, labels=range(3))
    for i, of in enumerate(NAMES):
        for j, to in enumerate(NAMES):
            assert counts["confusion_count", of, to] == matrix[i, j], (of, to)
    assert counts["buffer_count",] == rows
    assert counts["rows_late",] == 0
    assert counts["late_label_count", "joined"] == len(joined)
    assert counts["late_label_count", "duplicate"] == rows // 100
    assert counts["late_label_count", "conflict"] == rows // 100 // 2
    assert counts["late_label_count", "unknown"] == rows // 200
    assert counts["late_label_count", "repeated"] == 0
    wide = p[joined].astype(np.float64)
    assert math.isclose(scores["accuracy"], metrics.accuracy_score(truth, said), rel_tol=1e-9)
    clipped = np.clip(wide[np.arange(len(truth)), truth], np.finfo(float).eps, 1)
    assert math.isclose(scores["log_loss"], float(-np.log(clipped).mean()), rel_tol=1e-9)
    normal = wide / wide.sum(axis=1, keepdims=True)
    assert math.isclose(scores["log_loss"], metrics.log_loss(truth, normal, labels=range(3)), rel_tol=1e-6)
    assert math.isclose(scores["brier"], float(((wide - np.eye(3)[truth]) ** 2).sum(axis=1).mean()), rel_tol=1e-9)


def waiting(collector: Mortal) -> int:
    """Labels that still wait for a prediction, in a collector that has ended."""
    ((number,),) = stored(collector.folder, "SELECT count(*) FROM labels_waiting")
    return int(number)


def counters(collector: Mortal) -> dict[str, int]:
    return dict((ask(collector.folder, "health") or {}).get("counters", {}))


def serve(collector: Mortal, rows: int, publisher: Any, part: slice) -> None:
    p, _, times = table(rows)
    for at in range(part.start, part.stop, BATCH):
        some = slice(at, at + BATCH)
        ids = [f"row-{i}" for i in range(at, at + BATCH)]
        publisher.publish(p[some], ids=ids, timestamps=times[some])
    assert publisher.flush(120), publisher.stats


@pytest.mark.timeout(300)
def test_joined_equals_scikit_learn_on_the_joined_table(tmp_path: Path) -> None:
    collector = Mortal(tmp_path, CONFIG)
    with collector.running():
        early = send(collector, ROWS, "early")
        assert early.wait(120) == 0
        publisher = zmon.Publisher("m", classes=NAMES, collector=collector.endpoint, agent_id="pod-0")
        started = time.monotonic()
        serve(collector, ROWS, publisher, slice(0, ROWS // 2))
        print(f"{ROWS // 2} rows with ids acknowledged in {time.monotonic() - started:.2f} s")
        sender = send(collector, ROWS, "late")
        serve(collector, ROWS, publisher, slice(ROWS // 2, ROWS * 3 // 4))
        collector.kill()  # while labels and predictions come
        collector.start()
        serve(collector, ROWS, publisher, slice(ROWS * 3 // 4, ROWS))
        assert sender.wait(120) == 0
        publisher.close()
        collector.config.write_text(CONFIG.replace("60s", "1s"))
        assert collector.process is not None
        collector.process.send_signal(signal.SIGHUP)
        unknown = until(lambda: counters(collector).get("late_labels{unknown}"), what="labels that find no prediction")
        assert unknown == ROWS // 200
        collector.end()
    assert waiting(collector) == 0
    check(collector, ROWS)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("point", "number"), [("ack", 3), ("turn", 3), ("checkpoint", 1), ("close", 3)])
def test_killed_at_the_worst_moment(point: str, number: int, tmp_path: Path) -> None:
    assert point in POINTS
    rows = 10_000
    collector = Mortal(tmp_path, CONFIG.replace("60s", "15s"))
    collector.checkpoint_bytes = 4_000
    with collector.running(point=f"{point}:{number}"):
        publisher = zmon.Publisher("m", classes=NAMES, collector=collector.endpoint, agent_id="pod-0")
        senders = [send(collector, rows, "early"), send(collector, rows, "late")]
        for at in range(0, rows, BATCH):
            p, _, times = table(rows)
            some = slice(at, at + BATCH)
            ids = [f"row-{i}" for i in range(at, at + BATCH)]
            publisher.publish(p[some], ids=ids, timestamps=times[some])
            publisher.flush(0.05)
            if not collector.alive:
                collector.start(f"{point}:2" if collector.deaths(point) < 3 else "-")
        while not publisher.flush(0.2) or any(sender.poll() is None for sender in senders):
            if not collector.alive:
                collector.start("-")
        assert [sender.wait() for sender in senders] == [0, 0]
        publisher.close()
        collector.config.write_text(CONFIG.replace("60s", "1s"))
        # A process that has just been started again does not handle the signal yet, and would end by it.
        until(lambda: not collector.alive or ask(collector.folder, "health"), what="the collector's answer")
        assert collector.process is not None
        collector.process.send_signal(signal.SIGHUP)
        late = "late_labels{unknown}"
        until(lambda: not collector.alive or counters(collector).get(late) == rows // 200, what="labels to be given up")
        collector.end()
    assert collector.deaths(point)
    check(collector, rows)
