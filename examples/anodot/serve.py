"""A model, a collector with the API sink, and a stand-in for Anodot that takes what the collector sends."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier

import zmon

sys.path.insert(0, str(Path(__file__).parents[2]))  # the clone: its tests hold the stand-in
from tests.support.standin import TOKEN, StandIn

WINDOW = 2
PATIENCE = 60.0
CONFIG = """
[collector]
window = "{window}s"
flush_on_exit = true

[sinks.anodot]
url = "{url}"               # https://app.anodot.com with an account
token_env = "ANODOT_TOKEN"
"""


@contextlib.contextmanager
def collector(url: str) -> Iterator[str]:
    """`zmon collect`, with its files in a folder that goes afterwards; where it listens."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "zmon.toml")
        config.write_text(CONFIG.format(window=WINDOW, url=url))
        address = f"ipc://{folder}/zmon"
        command = ["collect", "--config", str(config), "--bind", address, "--data-dir", f"{folder}/data", "--no-web"]
        process = subprocess.Popen(
            [sys.executable, "-m", "zmon_collector", *command], env={**os.environ, "ANODOT_TOKEN": TOKEN}
        )
        try:
            yield address
        finally:
            process.terminate()  # closes the open window, and delivers it
            process.wait(PATIENCE)


def serve(address: str, batches: int) -> int:
    """A service with a watched model; how many rows the collector has of it."""
    rows, labels = load_wine(return_X_y=True, as_frame=True)
    bare = RandomForestClassifier(random_state=0).fit(rows[::2], labels[::2])
    with zmon.Publisher("wine", collector=address) as publisher:
        model = zmon.watch(bare, publisher)
        for _ in range(batches):
            some = rows[1::2].sample(20)
            with publisher.context(labels=labels[some.index]):
                model.predict_proba(some)
            time.sleep(0.1)
        if not publisher.flush(PATIENCE):
            sys.exit("the collector did not take the rows")
        return publisher.stats.acknowledged


def main(batches: int) -> None:
    with StandIn() as anodot:
        anodot.faults.append("503")
        with collector(anodot.url) as address:
            rows = serve(address, batches)
            until = time.monotonic() + PATIENCE
            while not anodot.accepted and time.monotonic() < until:  # the first window closes, the sink tries again
                time.sleep(0.1)
        print(f"{rows} rows published, {len(anodot.exchanges)} requests, the first answered with 503")
        print(f"{len(anodot.accepted)} samples accepted, {len(anodot.refused)} refused; of all replicas together:")
        for sample in anodot.accepted:
            names = sample["properties"]
            if names["what"] in ("buffer_count", "accuracy") and not {"class_name", "agent_id"} & set(names):
                print(sample)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
