"""The kill points are where the tests of faults believe them to be: each kills a collector that does little."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

from tests.faults.collector import POINTS, replace
from tests.support.mortal import CONFIG, Mortal
from tests.support.processes import OLD


@pytest.mark.integration
@pytest.mark.parametrize("point", POINTS)
def test_every_point_kills(point: str, tmp_path: Path) -> None:
    collector = Mortal(tmp_path, f"[collector]\nsample_rows = 10\n{CONFIG.partition('[collector]')[2]}")
    collector.checkpoint_bytes = 1
    with collector.running("--flush-on-exit", point=f"{point}:1"):
        assert collector.process is not None
        with collector.publisher("a") as publisher:
            for _ in range(5):  # a checkpoint follows rows that are in the journal
                publisher.publish(np.full((2000, 3), 1 / 3), timestamps=OLD)
                while collector.alive and not publisher.flush(0.1):
                    pass
            if collector.alive:  # windows close at the end
                collector.process.send_signal(signal.SIGTERM)
            assert collector.process.wait(60) == -signal.SIGKILL
            publisher.close(0)
    assert collector.deaths(point) == 1


@pytest.mark.unit
def test_a_name_that_is_gone_does_not_disarm_a_test() -> None:
    class Moved:
        pass

    with pytest.raises(AssertionError, match=r"Moved\.name is gone"):
        replace(Moved, "name", None)
