"""What a command says when something outside of it is wrong: a sentence on one line, an exit code, no stack trace."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from zmon_collector.log_lines import LINES_OF_A_PLACE

ROWS = "p_a,p_b,y,ts,agent\n0.5,0.5,1,1700000000,\x1b[2J\n"
POINTS = '[{"properties":{"what":"f1"},"timestamp":1700000000,"value":1}]'
LONG = "x" * 300
BACKFILL = ("backfill", "rows.csv", "--probabilities", "p_*", "--labels", "y", "--time", "ts", "--data-dir", "out")

WRONG: dict[str, tuple[tuple[str, ...], int, str]] = {
    "a report into no folder": (("report", "points.json", "--out", "no/x.html"), 1, "no/x.html: No such file"),
    "a profile into no folder": (
        ("profile", "rows.csv", "--probabilities", "p_*", "--labels", "y", "--out", "no/x.zmon"),
        1,
        "no/x.zmon: No such file",
    ),
    "a data folder without a path": (("collect", "--data-dir", LONG), 2, "cannot be created: File name too long"),
    "a data folder of bytes": (("collect", "--data-dir", os.fsdecode(b"\xff")), 2, r"'\udcff' is not UTF-8"),
    "top of a folder without a path": (("top", "--data-dir", LONG), 1, "no collector runs on xxx"),
    "top of a folder of bytes": (("top", "--data-dir", os.fsdecode(b"\xff")), 1, "no collector runs on \\udcff"),
    "an id of many digits": (("outbox", "show", "9" * 30), 2, "is no id of a refused sample"),
    "a model of two lines": ((*BACKFILL, "--model", "a\nb"), 2, "--model must be a printable string of 1 to 150"),
    "a model without end": ((*BACKFILL, "--model", LONG), 2, "--model must be a printable string of 1 to 150"),
    "an agent that clears": ((*BACKFILL, "--model", "m", "--agent-id", "\x1b[2J"), 2, r"got '\x1b[2J'"),
    "an unknown command of two lines": (("a\n\x1b[2Jb",), 2, "No such command"),
}


@pytest.mark.parametrize(("arguments", "code", "says"), WRONG.values(), ids=WRONG.keys())
def test_a_command_ends_with_a_sentence(arguments: tuple[str, ...], code: int, says: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(ROWS)
    (tmp_path / "points.json").write_text(POINTS)
    done = subprocess.run(
        [sys.executable, "-m", "zmon_collector", *arguments],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == code and says in done.stderr, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr and "\x1b" not in done.stderr


def test_what_a_command_logs_is_bounded(tmp_path: Path) -> None:
    names = [f"{number}.json" for number in range(2 * LINES_OF_A_PLACE)]
    for name in names:
        (tmp_path / name).write_text(POINTS)
        (tmp_path / name).chmod(0o666)
    done = subprocess.run(
        [sys.executable, "-m", "zmon_collector", "push", "--dry-run", *names],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    lines = done.stderr.splitlines()
    assert len(lines) == LINES_OF_A_PLACE and lines[0].startswith("zmon: all users can write to '0.json'"), lines
