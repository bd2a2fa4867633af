"""Progress of a backfill, in a file next to its output: the same command resumes from there."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from msgpack import UnpackException

from zmon._files import read_bounded
from zmon._packed import check_packed
from zmon.errors import ConfigurationError
from zmon.state import pack_state, unpack_state
from zmon_collector.compute.memory import Memory
from zmon_collector.delivery.outbox import next_sequence
from zmon_collector.private_files import open_folder, replace_file

VERSION = 1
LARGEST = 2**30  # bytes, four times what metrics may remember
SUFFIX = ".backfill"


@dataclass(slots=True)
class BackfillProgress:
    """Windows that are already written.

    Attributes
    ----------
    path : Path
    of : str
        Digest of the data and options: another backfill does not resume from here.
    first : int
        Number of the first window's file; the others follow.
    windows, closed : int
        Number of windows in all, and of those that are written, oldest first.
    memory : dict
        What metrics keep from window to window, packed.
    """

    path: Path
    of: str
    first: int
    windows: int
    closed: int = 0
    memory: Memory = field(default_factory=dict)

    def save(self) -> None:
        """Replace the file, completely or not at all."""
        data = pack_state({
            "version": VERSION, "of": self.of, "first": self.first, "windows": self.windows, "closed": self.closed,
            "memory": [[metric, agent, kept] for (metric, agent), kept in self.memory.items()],
        })  # fmt: skip
        replace_file(self.path, data)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the folder, or raise ConfigurationError if another backfill or a collector writes there."""
    open_folder(folder, "--data-dir")
    if (folder / "state.sqlite").exists():
        raise ConfigurationError(
            f"--data-dir {folder} belongs to a collector, which numbers its files itself; give another folder"
        )
    with (folder / "backfill.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigurationError(f"--data-dir {folder}: another backfill is writing there; wait for it") from None
        yield


def resume(folder: Path, model: tuple[str, str], of: str, windows: int) -> BackfillProgress:
    """Return the progress of an earlier run, or that of a new one."""
    name = blake2b("\0".join(model).encode(), digest_size=8).hexdigest()
    path = folder / f"{name}{SUFFIX}"
    if path.exists():
        state = _read(path)
        if state["of"] != of or state["windows"] != windows:
            raise ConfigurationError(
                f"{folder} holds a backfill of {model[0]!r} from other files, or with other options; give another "
                f"--data-dir, or remove this one"
            )
        memory = {(metric, agent): kept for metric, agent, kept in state["memory"]}
        return BackfillProgress(path, of, state["first"], windows, state["closed"], memory)
    others = [_read(file) for file in folder.glob(f"*{SUFFIX}")]
    first = max([next_sequence(folder), *(state["first"] + state["windows"] for state in others)])
    progress = BackfillProgress(path, of, first, windows)
    progress.save()
    return progress


def _read(path: Path) -> dict[str, Any]:
    try:
        data = read_bounded(path, LARGEST)
        check_packed(data)
        state = unpack_state(data)
        if state["version"] != VERSION or not all(type(state[name]) is int for name in ("first", "windows", "closed")):
            raise ValueError("another version")
        for metric, agent, kept in state["memory"]:
            if not isinstance(metric, str) or not isinstance(agent, str | None) or not isinstance(kept, bytes):
                raise ValueError("memory")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, UnpackException):
        raise ConfigurationError(
            f"this release cannot resume the backfill in {path}; give another --data-dir"
        ) from None
    return dict(state)
