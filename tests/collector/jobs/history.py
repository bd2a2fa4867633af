"""Rows of history: as a file, as what publishers would have sent, and what a backfill made of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas
from click.testing import CliRunner, Result
from zmon_collector.cli.main import cli

from tests.support.points import by_names

START = 1_600_000_020  # a minute in 2020
OPTIONS = ["--model", "m", "--probabilities", "p_*", "--labels", "y", "--time", "ts", "--agent", "host",
           "--segments", "country", "--ids", "id"]  # fmt: skip
CONFIG = '[metrics]\npreset = "full"\n'


def rows(n: int, minutes: int, seed: int = 0) -> pandas.DataFrame:
    """Rows in order of time, of two replicas, with inputs of all kinds and gaps in them."""
    random = np.random.default_rng(seed)
    p = random.dirichlet(np.ones(3), n)
    frame = pandas.DataFrame({f"p_{name}": p[:, i] for i, name in enumerate("abc")})
    frame["x0"] = random.normal(40, 9, n)
    frame["x1"] = np.where(random.random(n) < 0.1, np.nan, random.exponential(3.0, n))
    frame["colour"] = random.choice(["red", "green", "blue"], n)
    frame["vip"] = random.random(n) < 0.3
    frame["y"] = [None if each == "-" else each for each in random.choice(["a", "b", "c", "-"], n).tolist()]
    frame["country"] = random.choice(["de", "fr", "it"], n)
    frame["host"] = random.choice(["h1", "h2"], n)
    frame["id"] = np.arange(n)
    frame["ts"] = START + np.sort(random.random(n)) * minutes * 60
    return frame


def backfill(folder: Path, *arguments: str, config: str = CONFIG, options: list[str] = OPTIONS) -> Result:
    """Run the command in this process."""
    path = folder.parent / f"{folder.name}.toml"
    path.write_text(config)
    return CliRunner().invoke(cli, ["backfill", *options, "--config", str(path), "--data-dir", str(folder), *arguments])


def points(folder: Path) -> dict[int, dict[Any, float]]:
    """Values by window; a window that was written twice fails here."""
    found: dict[int, dict[Any, float]] = {}
    for path in sorted((folder / "anodot").glob("*.json")):
        samples = json.loads(path.read_text())
        assert samples[0]["timestamp"] not in found, "a window was written twice"
        found[samples[0]["timestamp"]] = by_names(samples)
    return found


def same(left: dict[int, dict[Any, float]], right: dict[int, dict[Any, float]]) -> int:
    """The same windows, series and values but for the last digits of floats; how many values were compared."""
    assert left.keys() == right.keys()
    for start, window in left.items():
        assert window.keys() == right[start].keys(), (start, set(window) ^ set(right[start]))
        for names, value in window.items():
            assert math.isclose(value, right[start][names], rel_tol=1e-9, abs_tol=1e-9), (start, names)
    return sum(map(len, left.values()))
