"""Scripts in child processes with a deadline, which report their results as JSON."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

from tests.support.processes import ROOT, environment

PATIENCE = 150.0  # seconds

START = """
import gc, itertools, json, os, random, signal, sys, threading, time
import numpy as np
import zmon
from tests.support.inside import *
"""


class Child:
    """A script in a process of its own, which must end before the deadline."""

    def __init__(
        self, folder: Path, collector: str, script: str, *arguments: str, start: str = START, **variables: str
    ) -> None:
        path = folder / f"job{len(list(folder.glob('job*.py')))}.py"
        path.write_text(start + textwrap.dedent(script))
        self.process = subprocess.Popen(
            [sys.executable, str(path), collector, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd=ROOT,
            env={**environment(ROOT), "OPENBLAS_NUM_THREADS": "1", **variables},
        )
        self.said = ""

    def end(self, timeout: float = PATIENCE, noisy: bool = False) -> str:
        """Return what it printed; fail if it does not end in time, or with a traceback unless it is `noisy`."""
        try:
            out, self.said = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # it says where each thread stands
            time.sleep(0.5)  # in which it does
            os.killpg(self.process.pid, signal.SIGKILL)
            out, said = self.process.communicate()
            raise AssertionError(f"the child hangs; it printed {out!r} and\n{said}") from None
        assert noisy or "Traceback" not in self.said, self.said
        assert "SyntaxError" not in self.said, self.said
        return out

    def result(self, timeout: float = PATIENCE, noisy: bool = False) -> dict[str, Any]:
        """Return the results it reported; fail if it did not end by itself, with exit code 0."""
        lines = self.end(timeout, noisy).splitlines()
        assert self.process.returncode == 0, f"it ended with {self.process.returncode}: {self.said}"
        result: dict[str, Any] = json.loads(lines[-1])
        return result

    def line(self) -> str:
        """Wait for the next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go_on(self) -> None:
        """Send a line to the script, which waits for one."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
