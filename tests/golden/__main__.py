"""``python -m tests.golden``: writes this release's copies, before it is published. Earlier ones stay as they are."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import zmon_collector
import zmon_plugins
from zmon_collector.admin import ask

import zmon
from tests.faults.harness import table
from tests.support.mortal import Mortal
from zmon._wire import control
from zmon._wire import frames as wire
from zmon.batch import Schema

HERE = Path(__file__).parent
WHEN = 1_700_000_040
CONFIG = '[collector]\nwindow = "60s"\nidle = "1h"\n[metrics]\npreset = "full"\n'


def frames() -> dict[str, list[str]]:
    """Messages as this release sends them, in hexadecimal."""
    topic = wire.Topic("fraud", "2.0", "pod/1").encode()
    schema = Schema(
        classes=("ok", "fraud"), features=("age", "colour"), kinds=("numeric", "categorical"), threshold=0.3
    )
    body = wire.encode_schema(schema)
    batch = wire.encode_batch(
        topic, stream=b"s" * 16, schema=wire.schema_hash(body), first=7, rows=2, base=5, ts=WHEN * 10**9,
        arrays=[("probabilities", "<f4", [2, 2]), ("labels", "<i8", [2])],
        buffers=[np.array([[0.9, 0.1], [0.2, 0.8]], "<f4").tobytes(), np.array([0, -1], "<i8").tobytes()],
        tally={"sampled_out": 3, "rejected": {"label_unknown": 1}},
    )  # fmt: skip
    hello = control.encode_greeting(
        "hello",
        topic=topic,
        stream=b"s" * 16,
        base=5,
        acked=4,
        issued=8,
        clock=WHEN * 10**9,
        tally={},
        store=b"12345678",
    )
    ack = control.encode_ack(b"s" * 16, 8, 65536, store=b"12345678")
    schema_message = wire.encode_schema_message(topic, b"s" * 16, body)
    return {
        "batch": [each.hex() for each in batch],
        "schema": [each.hex() for each in schema_message],
        "hello": [hello.hex()],
        "ack": [ack.hex()],
    }


def publish(collector: Mortal) -> None:
    """Two windows of two agents: with categories, segments, labels and gaps."""
    publishers = [collector.publisher(agent) for agent in ("a", "b")]
    for number, publisher in enumerate(publishers):
        random = np.random.default_rng(number)
        for start in (WHEN, WHEN + 60, WHEN + 61):
            publisher.publish(
                random.dirichlet([1, 2, 3], 40),
                inputs=table(random, 40),
                labels=[None, 0, 1, 2] * 10,
                segments={"country": ["de", "fr"] * 20},
                timestamps=start,
            )
            assert publisher.flush(60)
            time.sleep(0.3)  # so that a checkpoint is made in between
    for publisher in publishers:
        publisher.close(timeout=0)


def keep_source(path: Path) -> None:
    """Keep the packages of this release, for the tests in which it talks to later ones."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as kept:
        for package in (zmon, zmon_collector, zmon_plugins):
            folder = Path(package.__file__).parent
            for file in sorted(folder.rglob("*.py")):
                kept.write(file, file.relative_to(folder.parent))


def main() -> None:
    folder = HERE / zmon.__version__
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "anodot").mkdir(parents=True)
    (folder / "frames.json").write_text(json.dumps(frames(), indent=1))
    keep_source(folder / "source.zip")
    with tempfile.TemporaryDirectory() as work:
        killed = Mortal(Path(work) / "killed", CONFIG)
        killed.checkpoint_bytes = 10_000
        with killed.running("--no-web"):
            publish(killed)
            assert (ask(killed.folder, "health") or {})["counters"]["checkpoints"] > 0
            killed.kill()
        for name in ("state.sqlite", "state.sqlite-wal"):
            shutil.copy(killed.folder / name, folder / name)
        whole = Mortal(Path(work) / "whole", CONFIG)
        with whole.running("--no-web"):
            publish(whole)
            whole.end()
        for path in sorted((whole.folder / "anodot").glob("*.json")):
            shutil.copy(path, folder / "anodot" / path.name)
        shutil.copy(whole.folder / "history.sqlite", folder / "history.sqlite")
    sys.stdout.write(f"{folder}\n")


if __name__ == "__main__":
    main()
