"""What a start on a large and damaged folder costs before rows are taken, of what one on an empty folder costs."""

from __future__ import annotations

from pathlib import Path

from zmon_collector.admin import ask

from tests.support import leftovers
from tests.support.leftovers import Leftover
from tests.support.restarts import Restart
from tests.support.waiting import until

MIB = 2**20
TABLES = {"streams", "windows", "tallies", "agents", "tags", "spans", "periods", "heard", "memory", "schemas"}


def test_rows_are_taken_soon_whatever_the_folder_holds(tmp_path: Path) -> None:
    """600 models, 120 MB of rows over the limit of the journal, and damage in every table."""
    what = Leftover(models=600, agents=10, rows=225, memory=2)
    config = tmp_path / "zmon.toml"
    config.write_text(f"[limits]\njournal_bytes = {64 * MIB}\n")
    leftovers.leave(tmp_path / "empty", Leftover(models=0))
    empty = Restart(tmp_path / "empty", Leftover(models=1), "--config", str(config))
    empty.end()
    folder = tmp_path / "full"
    assert leftovers.leave(folder, what) > 100 * MIB
    assert leftovers.damage(folder) >= TABLES
    full = Restart(folder, what, "--config", str(config))
    try:
        health = until(lambda: ask(folder, "health"), what="the collector's answer")
        for name in ("bound", "hello"):
            ratio = full.figures[f"{name}_cpu_s"] / empty.figures[f"{name}_cpu_s"]
            assert ratio < 2.5, (name, full.figures, empty.figures)
        # All that is restored before rows are taken: a few milliseconds of the processor for each model.
        assert full.figures["rows_cpu_s"] - empty.figures["rows_cpu_s"] < 4.0, (full.figures, empty.figures)
        damaged = {name.partition("state_rows_damaged{")[2].rstrip("}") for name in health["counters"]}
        assert damaged >= TABLES, health["counters"]
        # Of six lost windows; one agent of each has lost its row counts, too.
        assert health["counters"]["lost{damaged}"] == 6 * 9 * what.rows
    finally:
        full.end()
