"""Few columns in a window of many: a step gives its rows a column for each, so steps of a wide window have few rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from zmon_collector.compute import batcher
from zmon_collector.compute.accumulate import AgentRows
from zmon_collector.windows.window import OpenWindow

from tests.support.engines import FRAUD, EngineScene, Sums, values
from zmon.batch import Batch, Schema
from zmon.contract import Context

WIDE = Schema("regression", (), tuple(f"f{i}" for i in range(100)), ("numeric",) * 100)
NARROW = Schema("regression", (), ("f0",), ("numeric",))


class Inputs(Sums):
    """Counts rows, and notes how many cells it saw at once."""

    needs = frozenset({"inputs"})

    def __init__(self) -> None:
        super().__init__()
        self.cells: list[int] = []

    def update(self, acc: Any, batch: Batch, ctx: Context) -> Any:
        self.cells.append(batch.inputs.size)
        return super().update(acc, batch, ctx)


@pytest.mark.parametrize("scattered", [False, True], ids=["numbered from one", "with numbers of their own"])
def test_a_narrow_batch_in_a_wide_window_is_computed_in_parts(scattered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batcher, "MICRO_CELLS", 1000)
    metric = Inputs()
    scene = EngineScene({"test": [metric]})
    try:
        window = OpenWindow(0, 60, 1, WIDE)
        window.tally("a").received += 995
        rows = Batch(NARROW, {"predictions": np.zeros(995), "inputs": np.zeros((995, 1), np.int8)})
        numbers = np.arange(7, 7 + 995, dtype=np.uint64) if scattered else 7
        scene.engine.add_rows(FRAUD, window, AgentRows("a", rows, seed=1, numbers=numbers))
        closed = scene.close(window)
        assert values(closed, "a")["sums"] == 995
        assert max(metric.cells) <= 1000
        assert sum(metric.cells) == 99_500
    finally:
        scene.end()
