"""``python -m tests.bench.inserts NAME ROUNDS``, in NAME's own environment: its call and zmon's in turn, as JSON.

One row of thirteen mixed values, as a dict. scouter-ml's queue gets the transport of its own tests, which discards
everything inside the process. whylogs has no queue: its call computes.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import zmon
from tests.bench import given
from tests.bench.ends import acknowledging, raw_sends
from tests.bench.measure import interleaved, percentiles

BUILT = "insert, its Feature objects built"
CALLS = 1000  # a turn: a queue whose thread has gone to sleep pays for waking it
ZMON, RAW = "zmon, publish", "raw pyzmq send of a small row"
Calls = dict[str, Callable[[], Any]]
Row = dict[str, Any]


@contextmanager
def scouter(rows: list[Row]) -> Iterator[Calls]:
    import pyarrow
    from scouter.drift import Drifter, SpcDriftConfig
    from scouter.mock import MockConfig
    from scouter.queue import Feature, Features, ScouterQueue

    kinds = {float: Feature.float, int: Feature.int, bool: Feature.int, str: Feature.string}
    table = pyarrow.Table.from_pylist([{k: +v if isinstance(v, bool) else v for k, v in row.items()} for row in rows])
    profile = Drifter().create_drift_profile(table, SpcDriftConfig(space="s", name="n", version="0.1.0"))
    with tempfile.TemporaryDirectory() as folder:
        profile.save_to_json(Path(folder) / "profile.json")
        queue = ScouterQueue.from_path({"rows": Path(folder) / "profile.json"}, MockConfig())
    row, one = rows[0], queue["rows"]
    built = Features([kinds[type(value)](name, value) for name, value in row.items()])
    name = f"scouter-ml {version('scouter-ml')}"
    yield {
        f"{name}, {BUILT}": lambda: one.insert(
            Features([kinds[type(value)](name, value) for name, value in row.items()])
        ),
        f"{name}, insert, Features built from the dict": lambda: one.insert(Features(row)),
        f"{name}, insert alone": lambda: one.insert(built),
    }
    queue.shutdown()


@contextmanager
def whylogs(rows: list[Row]) -> Iterator[Calls]:
    from whylogs.core import DatasetProfile

    profile, row = DatasetProfile(), rows[0]
    yield {f"whylogs {version('whylogs')}, track": lambda: profile.track(row)}


def main(name: str, rounds: int) -> list[dict[str, Any]]:
    columns = given.named_columns(given.Case(given.DICT, 1000, 13, given.MIXED))
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    p = np.array([[0.25, 0.75]], dtype="f4")
    with (
        acknowledging() as there,
        raw_sends() as raw,
        zmon.Publisher("m", classes=["no", "yes"], agent_id="bench", **there) as one,
        {"scouter": scouter, "whylogs": whylogs}[name](rows) as calls,
    ):
        everything: Calls = {ZMON: lambda: one.publish(p, rows[:1]), RAW: raw, **calls}
        times = interleaved(everything, rounds, CALLS, lambda: one.flush(30))
        assert not one.stats.rejected, one.stats
        assert not one.stats.dropped, one.stats
    unit, ours = float(np.median(times[RAW])), float(np.median(times[ZMON]))
    return [
        {"what": what, **percentiles(each), "of_raw": np.median(each) / unit, "of_zmon": np.median(each) / ours}
        for what, each in times.items()
    ]


if __name__ == "__main__":
    sys.stdout.write(f"\n{json.dumps(main(sys.argv[1], int(sys.argv[2])))}\n")
