"""``python contender.py NAME ROWS FEATURES SECONDS``, in an environment of NAME's own: values a second, as JSON.

Each computes what it offers for a window's columns, on the rows of rows.py, in blocks of 1,000; the slow ones stop
after SECONDS, and the rate is of what they had done.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rows import BLOCK, blocks


def whylogs() -> tuple[Callable[[np.ndarray], Any], Callable[[], Any], str]:
    """One profile that takes every block; its view at the end."""
    import pandas
    from whylogs.core import DatasetProfile

    profile = DatasetProfile()
    return lambda x: profile.track(pandas.DataFrame(x, columns=named(x))), profile.view, "profile, default metrics"


def river() -> tuple[Callable[[np.ndarray], Any], Callable[[], Any], str]:
    """Mean, variance, extremes and three quantiles of every column, a value at a time."""
    from river import stats

    columns: list[list[Any]] = []

    def take(x: np.ndarray) -> None:
        if not columns:
            columns.extend(
                [stats.Mean(), stats.Var(), stats.Min(), stats.Max(), *map(stats.Quantile, (0.25, 0.5, 0.75))]
                for _ in range(x.shape[1])
            )
        for column, found in zip(x.T.tolist(), columns, strict=True):
            for each in found:
                for value in column:
                    each.update(value)

    return take, lambda: [[each.get() for each in found] for found in columns], "mean, var, min, max, 3 quantiles"


def evidently() -> tuple[Callable[[np.ndarray], Any], Callable[[], Any], str]:
    """Data summaries of 20 blocks each: it computes on stored frames, and merges none."""
    import pandas
    from evidently import Dataset, Report
    from evidently.presets import DataSummaryPreset

    waiting: list[np.ndarray] = []

    def take(x: np.ndarray) -> None:
        waiting.append(x[:, :50])
        if len(waiting) == 20:
            summarise()

    def summarise() -> None:
        if waiting:
            x = np.concatenate(waiting)
            waiting.clear()
            Report([DataSummaryPreset()]).run(Dataset.from_pandas(pandas.DataFrame(x, columns=named(x))), None)

    return take, summarise, "DataSummaryPreset of 20,000×50"


def named(x: np.ndarray) -> list[str]:
    return [f"feat_{i}" for i in range(x.shape[1])]


def main(name: str, rows: int, seconds: float) -> dict[str, Any]:
    take, end, what = {"whylogs": whylogs, "river": river, "evidently": evidently}[name]()
    source = blocks(rows + BLOCK)
    first = next(source)
    columns = 50 if name == "evidently" else first.shape[1]
    done, started = 0, time.perf_counter()
    for block in source:
        take(block)
        done += BLOCK
        if time.perf_counter() - started > seconds:
            break
    end()
    took = time.perf_counter() - started
    return {
        "name": f"{name} {importlib.metadata.version(name)}",
        "what": what,
        "rows": done,
        "columns": columns,
        "values_per_second": done * columns / took,
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))))
