"""How long a killed collector needs to be back, by what its folder holds: models, a journal over its limit, damage.

From the start of the process, imports included: until the sockets are bound, until a publisher that it knows gets an
answer to its hello, and until further rows of that publisher are acknowledged, which is when they are on disk.
"""

from __future__ import annotations

import os
import statistics
from pathlib import Path
from typing import Any

import pytest

from tests.bench.measure import Table
from tests.support import leftovers
from tests.support.leftovers import Leftover
from tests.support.restarts import Restart

MIB = 2**20
CASES: dict[str, tuple[Leftover, int, bool]] = {  # what there is, limits.journal_bytes, whether it is damaged
    "nothing": (Leftover(models=0), 8192 * MIB, False),
    "1,000 models × 100 agents": (Leftover(models=1000, agents=100), 8192 * MIB, False),
    "200 MB of rows of one model, over the limit": (Leftover(models=1, agents=20, rows=113_000), 64 * MIB, False),
    "1,000 models × 10 agents, 200 MB of rows over the limit, a hundredth of every table damaged": (
        Leftover(models=1000, agents=10, rows=225), 64 * MIB, True,
    ),
}  # fmt: skip
FIGURES = ("bound_s", "hello_s", "rows_s", "rows_cpu_s")


def run(folder: Path, quick: bool) -> list[dict[str, Any]]:
    found = []
    with pytest.MonkeyPatch.context() as patch:
        # As installed: with the bytecode that pip makes.
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        patch.setenv("PYTHONPYCACHEPREFIX", str(folder / "bytecode"))
        for name, (what, limit, damaged) in CASES.items():
            measured = []
            for number in range(2 if quick else 6):
                case = folder / f"restart-{len(found)}-{number}"
                nbytes = leftovers.leave(case, what)
                if damaged:
                    leftovers.damage(case)
                config = case.with_name(f"{case.name}.toml")
                config.write_text(f"[limits]\njournal_bytes = {limit}\n")
                os.sync()  # or the start would wait for the disk that writes what was left
                restart = Restart(case, what, "--config", str(config))
                restart.end()
                measured.append(restart.figures)
            del measured[0]  # the first finds cold files
            medians = {figure: statistics.median(each[figure] for each in measured) for figure in FIGURES}
            found.append({"holds": name, "mib": nbytes / MIB, **medians})
    return found


def show(found: list[dict[str, Any]]) -> list[Table]:
    return [
        Table(
            "Restart after SIGKILL, by what the folder holds",
            ("", "state.sqlite MiB", "bound after s", "hello answered after s", "rows acknowledged after s",
             "processor s until then"),
            [(row["holds"], f"{row['mib']:.0f}", *(f"{row[figure]:.2f}" for figure in FIGURES)) for row in found],
        )
    ]  # fmt: skip
