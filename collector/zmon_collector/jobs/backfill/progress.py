"""How far a backfill has come, in a file beside what it writes: the same command goes on from there."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from zmon.errors import ConfigurationError
from zmon.state import pack_state, unpack_state
from zmon_collector.compute.contexts import Memory
from zmon_collector.delivery.outbox import next_sequence

VERSION = 1
SUFFIX = ".backfill"


@dataclass(slots=True)
class BackfillProgress:
    """What is written already.

    Attributes
    ----------
    of : str
        Says which data and options this is about: another backfill does not go on from here.
    first : int
        Number of the first window's file; the others follow.
    windows, closed : int
        How many there are, and how many are written, the oldest first.
    memory : dict
        What metrics keep from window to window.
    """

    path: Path
    of: str
    first: int
    windows: int
    closed: int = 0
    memory: Memory = field(default_factory=dict)

    def save(self) -> None:
        """Replace what is on disk, completely or not at all."""
        data = pack_state({
            "version": VERSION, "of": self.of, "first": self.first, "windows": self.windows, "closed": self.closed,
            "memory": [[metric, agent, pack_state(kept)] for (metric, agent), kept in self.memory.items()],
        })  # fmt: skip
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the folder; ConfigurationError when another backfill, or a collector, writes there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (folder / "state.sqlite").exists():
        raise ConfigurationError(f"--data-dir {folder} is a collector's, which numbers its files itself; give another")
    with (folder / "backfill.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigurationError(f"--data-dir {folder}: another backfill is writing there; wait for it") from None
        yield


def resumed(folder: Path, model: tuple[str, str], of: str, windows: int) -> BackfillProgress:
    """Where an earlier run has ended, or a beginning."""
    name = blake2b("\0".join(model).encode(), digest_size=8).hexdigest()
    path = folder / f"{name}{SUFFIX}"
    if path.exists():
        found = _read(path)
        if found["of"] != of or found["windows"] != windows:
            raise ConfigurationError(
                f"{folder} holds a backfill of {model[0]!r} from other files, or with other options; give another "
                f"--data-dir, or remove this one"
            )
        memory = {(metric, agent): unpack_state(kept) for metric, agent, kept in found["memory"]}
        return BackfillProgress(path, of, found["first"], windows, found["closed"], memory)
    others = [_read(each) for each in folder.glob(f"*{SUFFIX}")]
    first = max([next_sequence(folder), *(each["first"] + each["windows"] for each in others)])
    begun = BackfillProgress(path, of, first, windows)
    begun.save()
    return begun


def _read(path: Path) -> dict[str, Any]:
    try:
        found = unpack_state(path.read_bytes())
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("version") != VERSION:
        raise ConfigurationError(f"{path} is no backfill that this release can go on with; give another --data-dir")
    return found
