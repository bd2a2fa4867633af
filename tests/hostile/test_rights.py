"""What a client acts on is its own: not another's labels, ids, or windows. All keys may publish as the same model."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
from zmon_collector.ingest.variants import variant_version

import zmon
from tests.hostile.keys import Keys
from tests.hostile.scene import Scene
from tests.support.waiting import until
from zmon.batch import Schema

MEMORY = 64 * 2**20  # bytes of rows that wait for metrics, as docs/operations.md has it
WINDOWS = 30  # that are opened ahead of their time
ROWS = 300  # of the pod whose labels are attacked
IDS = np.arange(ROWS)
GOOD = np.tile([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]], (ROWS // 3, 1))
RIGHT, WRONG = np.tile([0, 1, 2], ROWS // 3), np.tile([1, 2, 0], ROWS // 3)


def keys(folder: Path) -> Keys:
    return Keys(
        folder,
        good='models = ["steady"]\nagents = ["good"]',
        pod='models = ["steady"]\nagents = ["pod"]',
        truth='models = ["steady"]\nagents = ["truth"]\nlabels = ["steady"]',
        other='models = ["steady"]\nagents = ["other*"]',
    )


def publisher(scene: Scene, keys: Keys, client: str, agent: str = "", classes: object = 3) -> zmon.Publisher:
    return zmon.Publisher(
        "steady", classes=classes, collector=scene.collector.endpoint, agent_id=agent or client, **keys.of(client)
    )


def points(scene: Scene, what: str) -> Counter[tuple[str, str, str]]:
    """Sums of a series by agent, version and reason."""
    found: Counter[tuple[str, str, str]] = Counter()
    for path in (scene.collector.folder / "anodot").glob("*.json"):
        for sample in json.loads(path.read_text()):
            said = sample["properties"]
            if said["model"] == "steady" and said["what"] == what and "class_name" not in said:
                names = (said.get("agent_id", ""), said.get("model_version", ""), said.get("reason", ""))
                found[names] += sample["value"]
    return found


def test_labels_and_ids_of_another_client_change_nothing(tmp_path: Path) -> None:
    """Before the rows, after them, and with rows of their own that have the same ids."""
    allowed = keys(tmp_path)
    with Scene(tmp_path, allowed.config, **allowed.of("good")) as scene:
        with publisher(scene, allowed, "other") as other, publisher(scene, allowed, "pod") as pod:
            other.publish_labels(IDS[:100], WRONG[:100])
            assert other.flush(60)
            other.publish(GOOD[100:200], ids=IDS[100:200])
            assert other.flush(60)
            pod.publish(GOOD, ids=IDS)
            assert pod.flush(60)
            other.publish_labels(IDS, WRONG)
            assert other.flush(60)
            with publisher(scene, allowed, "truth") as truth:
                truth.publish_labels(IDS, RIGHT)
                assert truth.flush(60)
            until(lambda: other.stats.rejected.get("forbidden"), what="the answer")
            assert other.stats.rejected == {"forbidden": 200}, "of its own ids it may label its own rows"
            assert truth.stats.rejected == pod.stats.rejected == {}
        scene.wait_for(lambda health: health["counters"].get("late_labels{forbidden}") == 200)
    assert points(scene, "accuracy")["pod", "", ""] == 1.0
    outcomes = points(scene, "late_label_count")
    assert outcomes["pod", "", "joined"] == ROWS
    assert outcomes["other", "", "forbidden"] == 200
    assert not [names for names in outcomes if names[0] == "pod" and names[2] != "joined"]
    assert scene.grown < MEMORY, scene.grown


def test_another_schema_takes_no_window_and_costs_no_rows(tmp_path: Path) -> None:
    """Each window anew it comes first: its publishers restart, and their rows are of the time ahead."""
    allowed = keys(tmp_path)
    names, rows, sent = ["q", "r"], 20, 0
    with Scene(tmp_path, f"{allowed.config}[models.steady]\nwindow = '2s'\n", **allowed.of("good")) as scene:
        scene.wait_for(lambda health: health["counters"].get("rows"), "rows of the good publisher")
        for attempt in range(8):
            classes = [*names, *["s"] * (attempt % 2)]
            with publisher(scene, allowed, "other", f"other-{attempt % 3}", classes) as other:
                now = time.time()
                for window in range(WINDOWS):
                    other.publish(np.full((rows, len(classes)), 1 / len(classes)), timestamps=now + 2 * window + 4)
                assert other.flush(60)
                until(
                    lambda other=other: other.stats.degraded.get("schema_conflict") == rows * WINDOWS, what="the answer"
                )
                assert not other.stats.rejected
            sent += rows * WINDOWS
        scene.wait_for(lambda health: health["counters"].get("degraded{schema_conflict}") == sent)
    found = points(scene, "buffer_count")
    assert {version for agent, version, _ in found if agent == "good"} == {""}, "its name does not change"
    assert {version for agent, version, _ in found if agent.startswith("other")} == {
        variant_version("", Schema(classes=tuple(names))),
        variant_version("", Schema(classes=(*names, "s"))),
    }
    assert sum(n for (agent, *_), n in found.items() if agent.startswith("other")) == sent
    assert not any(points(scene, "rows_rejected").values())
    assert not any(points(scene, "rows_lost").values())
    assert scene.grown < MEMORY, scene.grown
