"""Write Anodot JSON files: one per closed window of a (model, version), a JSON array with one sample per line.

Configured by ``[sinks.anodot_file]``: ``keep`` (a duration, default ``"30d"``: older files are deleted), ``keep_bytes``
(default 10 GiB: beyond it the oldest are deleted), ``properties`` (added to every sample), ``enabled``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zmon.contract import Ledger, Report, Sink
from zmon.errors import RetryLater
from zmon.hooks import hookimpl
from zmon.options import flag, positive_duration, read_options, size
from zmon_plugins.anodot import LegalNames, fixed_properties
from zmon_plugins.json_lines import lines

log = logging.getLogger("zmon.anodot")

SWEEP_EVERY = 600.0  # seconds between sweeps of old files
RETRY_AFTER = 5.0
KEEP, KEEP_BYTES = 30 * 86400.0, 10 * 2**30  # seconds and bytes, unless configured otherwise


class AnodotFile:
    """Writes ``<folder>/<UTC window start>-<sequence>.json``, complete or not at all.

    Parameters
    ----------
    folder : Path
    keep : float
        Seconds after which a file is deleted.
    keep_bytes : int
        Total size of files; beyond it the oldest are deleted.
    properties : mapping of str to str
        Added to every sample.
    """

    name = "anodot_file"

    def __init__(
        self,
        folder: Path,
        keep: float = KEEP,
        keep_bytes: int = KEEP_BYTES,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        self.invalid = 0  # samples left out because Anodot would refuse them
        self._folder = folder
        self._keep = keep
        self._keep_bytes = keep_bytes
        self._properties = properties
        self._ledger: Ledger | None = None
        self._names = LegalNames()
        self._swept = 0.0

    def attach(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def open(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for leftover in self._folder.glob("*.tmp"):  # from interrupted writes
            leftover.unlink(missing_ok=True)

    def write(self, report: Report) -> None:
        now = time.time()
        # The window has closed by the collector's clock. That of the system may have been set back since.
        good, refused = lines(report, self._names, max(now, report.window.end), self._properties)
        if refused:
            if not self.invalid:
                log.warning("a sample was left out of the files: %s: %s %s",
                            refused[0].sample["properties"], refused[0].code, refused[0].description)  # fmt: skip
            self.invalid += len(refused)
            if self._ledger is not None and not self._ledger.settled(report.sequence):
                self._ledger.settle(report.sequence, len(report.points), refused)
        if not good:
            return
        try:
            self._replace(self._folder / file_name(report), "[\n" + ",\n".join(good) + "\n]\n")
            self._sweep(now)
        except OSError as error:  # disk full, folder gone: the report waits
            raise RetryLater(f"cannot write to {self._folder}: {error.strerror}", after=RETRY_AFTER) from error

    def close(self) -> None:
        """Do nothing: no file stays open between writes."""

    def _replace(self, path: Path, text: str) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)  # it may have been removed; not if the data folder is gone, too
        temporary = path.with_suffix(".tmp")
        temporary.unlink(missing_ok=True)  # of a failed write, or a link that somebody put there
        with temporary.open("x", encoding="utf-8") as file:
            # Whoever the folder lets in may read its files: that is how an operator shares them. It is created 0700.
            with contextlib.suppress(OSError):  # a file system without modes
                os.fchmod(file.fileno(), 0o600 | self._folder.stat().st_mode & 0o044)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _sweep(self, now: float) -> None:
        if now - self._swept < SWEEP_EVERY:
            return
        self._swept = now
        total = 0
        for path in sorted(self._folder.glob("*.json"), key=_sequence, reverse=True):
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                total += stat.st_size
                if stat.st_mtime < now - self._keep or total > self._keep_bytes:
                    path.unlink()


def file_name(report: Report) -> str:
    """Return ``20260102T030400Z-000000000042.json``: the window's start in UTC, and the report's sequence."""
    start = datetime.fromtimestamp(report.window.start, UTC)
    return f"{start:%Y%m%dT%H%M%SZ}-{report.sequence:012d}.json"


def _sequence(path: Path) -> str:
    return path.stem.rpartition("-")[2]


OPTIONS = {"keep": positive_duration, "keep_bytes": size, "properties": fixed_properties, "enabled": flag}


@hookimpl
def register_sinks(register: Callable[[Sink], None], options: Mapping[str, Any]) -> None:
    read = read_options(options.get("sinks", {}).get(AnodotFile.name, {}), OPTIONS, "[sinks.anodot_file]")
    read.pop("enabled", None)  # the collector's to act on
    register(AnodotFile(Path(options.get("data_dir", "zmon-data")) / "anodot", **read))
