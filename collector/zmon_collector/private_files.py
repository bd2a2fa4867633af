"""Files that only their owner can read: the umask of commands that write rows, and the data folder.

SQLite gives its log the mode that the database has, so a database is private before it is opened.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

from zmon.errors import ConfigurationError

log = logging.getLogger("zmon.collector")

OWN = ("state.sqlite*", "history.sqlite*", "push.sqlite*", "*.backfill")  # files of a data folder; may hold rows
_umask: int | None = None  # as it was before `private_umask`


@contextlib.contextmanager
def private_umask() -> Iterator[None]:
    """Create files for their owner only meanwhile. Affects the whole process."""
    global _umask
    before = os.umask(0o077)
    _umask = before
    try:
        yield
    finally:
        _umask = None
        os.umask(before)


def writes_rows(command: Callable[..., Any]) -> Callable[..., Any]:
    """Have a command create files for their owner only, from its first line on."""

    @wraps(command)
    def run(*arguments: Any, **options: Any) -> Any:
        with private_umask():
            return command(*arguments, **options)

    return run


def share_socket(endpoint: str) -> None:
    """Give a publishers' socket the mode of the user's own umask, which decides who else may publish through it."""
    path = endpoint.removeprefix("ipc://")
    if _umask is not None and path != endpoint and not path.startswith("@"):  # an abstract socket has no mode
        Path(path).chmod(0o777 & ~_umask)


def open_folder(folder: Path, what: str) -> None:
    """Create a data folder, or make its files private if it exists; warn if other users can enter or write to it.

    Parameters
    ----------
    folder : Path
    what : str
        The setting that names it, for messages.

    Raises
    ------
    ConfigurationError
        The folder cannot be created.
    """
    try:
        str(folder).encode()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = stat.S_IMODE(folder.stat().st_mode)
    except OSError as error:
        raise ConfigurationError(f"{what}: {str(folder)!r} cannot be created: {error.strerror}") from None
    except UnicodeEncodeError:
        raise ConfigurationError(f"{what}: {str(folder)!a} is not UTF-8; choose another path") from None
    if mode & 0o007:  # not refused: volumes of containers are often 0777
        may = "write to" if mode & stat.S_IWOTH else "enter"
        log.warning("%s: all users can %s the folder %r (mode %03o), which holds rows; run chmod 700 on it",
                    what, may, str(folder), mode)  # fmt: skip
    for pattern in OWN:
        for path in folder.glob(pattern):
            with contextlib.suppress(OSError):  # another user's
                if path.stat().st_mode & 0o077:
                    path.chmod(0o600)


def create_private(path: Path) -> None:
    """Create a file that only its owner can read, unless it exists. What is wrong is left to who opens it next."""
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file, completely or not at all; it is on disk before it has its name."""
    temporary = path.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)  # of an interrupted write, or a link that somebody put there
    with temporary.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
