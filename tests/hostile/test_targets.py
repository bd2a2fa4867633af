"""Targets of notifications that misbehave in every way, next to one that does not."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import zmon
from tests.hostile.scene import Scene
from tests.support.targets import DELIVERED, MISBEHAVING, OK, Target, answers, misbehaving
from tests.support.waiting import busy, until

ALERTS = 5
SENT = 3.0  # seconds from the end of a window to the message
MEMORY = 64 * 2**20  # bytes; answers are not read
RULE = """
[[alerts]]
name = "any rows of {model}"
model = "{model}"
what = "buffer_count"
above = 0
min_rows = 1
"""


def name_of(kind: str) -> str:
    return kind.replace(" ", "-")


@contextmanager
def alert(endpoint: str, model: str) -> Iterator[None]:
    """Close a window of a model that has a rule, and so open an alert.

    The publisher stays meanwhile: without one, no window closes in the first minute after a start.
    """
    with zmon.Publisher(model, classes=2, collector=endpoint) as publisher:
        for window in range(2):
            publisher.publish(np.full((10, 2), 0.5), timestamps=np.full(10, 1_700_000_000.0 + 60 * window))
        assert publisher.flush(60)
        yield


def test_no_target_delays_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Target(answers(OK)) as good, misbehaving(MISBEHAVING) as bad:
        monkeypatch.setenv("HOOK_GOOD", good.url)
        config = '[notify.good]\nurl_env = "HOOK_GOOD"\n'
        for number, (kind, target) in enumerate(bad.items()):
            monkeypatch.setenv(f"HOOK_{number}", target.url)
            config += f'[notify.{name_of(kind)}]\nurl_env = "HOOK_{number}"\ntimeout = "2s"\n'
        config += "".join(RULE.format(model=f"m{number}") for number in range(ALERTS))
        with Scene(tmp_path, config) as scene:
            for number in range(ALERTS):
                with alert(scene.collector.endpoint, f"m{number}"):
                    began = time.monotonic()
                    until(lambda number=number: len(good.requests) > number, "the good target's message")
                    assert time.monotonic() - began < SENT * busy()
            failing = set(MISBEHAVING) - DELIVERED
            errors = {f"alert_errors{{{name_of(kind)}}}" for kind in failing}
            scene.wait_for(lambda health: errors <= health["counters"].keys(), "an error of each")
            for kind in DELIVERED:
                until(lambda kind=kind: len(bad[kind].requests) == ALERTS, f"all messages to the one that {kind}")
            problems = " ".join(scene.health["problems"])
            assert all(f"[notify.{name_of(kind)}] takes no alerts" in problems for kind in failing), problems
        log = scene.collector.said()
        assert "s3cret" not in log + json.dumps(scene.health)
        assert "Traceback" not in log
        lines = {kind: log.count(f"[notify.{name_of(kind)}] refused an alert") for kind in failing}
    assert set(lines.values()) <= {1, 2}, lines  # one for each run: the scene restarts the collector at its end
    assert scene.grown < MEMORY, scene.grown
