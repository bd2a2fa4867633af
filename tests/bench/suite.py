"""All measurements in their order, what one run of them gives, and where the committed figures are."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import zmq

from tests.bench import peers
from tests.bench.measure import Table

NAMES = (
    "capture", "forms", "rate", "states", "effect", "start", "metrics", "engine", "collector", "singles", "memory",
    "close", "recovery", "restart", "look", "crowd", "fleet", "page", "api", "scaling", "backfill",
)  # fmt: skip
FIGURES = Path(__file__).with_name("figures.json")


def module(name: str) -> ModuleType:
    return import_module(f"tests.bench.{name}")


def machine() -> dict[str, Any]:
    return {
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "libzmq": zmq.zmq_version(),
    }


def run(quick: bool, names: tuple[str, ...] = NAMES) -> Iterator[tuple[str, Any]]:
    """Each measurement's name and figures, as it ends."""
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            yield name, module(name).run(Path(folder), quick)


def tables(figures: dict[str, Any]) -> list[Table]:
    """The tables of a run."""
    return [table for name in NAMES if name in figures for table in module(name).show(figures[name])]


def committed() -> dict[str, Any]:
    """The committed figures without those of the peers; empty if none are."""
    found: dict[str, Any] = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    return found


def kept() -> dict[str, Any]:
    """The committed figures, those of the peers among them; without a run that was kept, those of the peers alone."""
    return {**committed(), "peers": peers.kept()}
