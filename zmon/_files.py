"""Read files that a user names: up to a limit, and with a line in the log if every user of the machine may change them.

Group and owner are not looked at: umask 002 and images built by another user are common and harmless. Read-only mounts
are safe whatever the mode says: containers show ConfigMaps as 0777.
"""

from __future__ import annotations

import logging
import os
import stat

log = logging.getLogger("zmon")


def read_bounded(path: str | os.PathLike[str], limit: int, *, secret: bool = False) -> bytes:
    """Return the content of a file of at most `limit` bytes.

    Parameters
    ----------
    path : str or path
    limit : int
        Bytes.
    secret : bool
        Whether a line in the log says so if every user may read it.

    Raises
    ------
    OSError
        It cannot be read.
    ValueError
        It is larger.
    """
    with open(path, "rb") as file:  # noqa: PTH123 - a model's process need not load pathlib
        status = os.fstat(file.fileno())
        size = status.st_size if stat.S_ISREG(status.st_mode) else limit
        if size <= limit:
            data = file.read(size + 1)
        if size > limit or len(data) > limit:
            raise ValueError(f"it has more than {limit:,} bytes, which is the limit")
        writable = status.st_mode & stat.S_IWOTH and not os.fstatvfs(file.fileno()).f_flag & os.ST_RDONLY
    if writable:
        log.warning("zmon: all users can write to %r, and so decide what it says; run chmod o-w on it", str(path))
    if secret and status.st_mode & stat.S_IROTH:
        log.warning("zmon: all users can read the secret in %r; run chmod 600 on it", str(path))
    return data
