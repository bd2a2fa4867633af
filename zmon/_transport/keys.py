"""A publisher's CURVE keys: from strings, key files or the environment. Secrets never reach errors, logs or reprs."""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass, field

import zmq
from zmq.utils import z85

from zmon._files import read_bounded
from zmon.errors import ConfigurationError

SECRET_FILE = "ZMON_SECRET_KEY_FILE"
SERVER_FILE = "ZMON_SERVER_KEY_FILE"
LARGEST = 16 * 2**10  # bytes of a key file
_LINE = re.compile(r"""^\s*(public-key|secret-key)\s*=\s*"([^"\n]*)"\s*$""", re.M)

Given = str | bytes | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Keys:
    """This publisher's key pair, and the public key of the collectors it trusts; z85 as bytes."""

    public: bytes
    secret: bytes = field(repr=False)
    server: bytes


def is_key(text: str) -> bool:
    """Return whether a string is a CURVE key: 32 bytes as 40 characters of z85.

    >>> is_key("rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7")
    True
    >>> is_key("ten letter")
    False
    """
    try:
        return len(text) == 40 and len(z85.decode(text.encode("ascii"))) == 32
    except (KeyError, ValueError, struct.error):  # a wrong character; not ASCII; five characters above 2**32
        return False


def from_arguments(secret_key: Given | None, server_key: Given | None) -> Keys | None:
    """Return the keys from the arguments, or else from the files named by the environment; None without any.

    Raises
    ------
    ConfigurationError
        If one of the two is missing, unreadable or not a key.
    """
    secret = _read("secret_key", SECRET_FILE, secret_key, "secret-key")
    server = _read("server_key", SERVER_FILE, server_key, "public-key")
    if secret is None and server is None:
        return None
    if secret is None or server is None:
        present, missing = ("secret_key", "server_key") if server is None else ("server_key", "secret_key")
        file = SERVER_FILE if server is None else SECRET_FILE
        raise ConfigurationError(f"{present} is given without {missing}; CURVE needs both: pass it, or set {file}")
    return Keys(public_of(secret), secret.encode(), server.encode())


def public_of(secret: str) -> bytes:
    """Return the public key that belongs to a secret key."""
    if not zmq.has("curve"):
        raise ConfigurationError("this libzmq was built without CURVE; install pyzmq from a wheel")
    return zmq.curve_public(secret.encode())


def read_file(what: str, path: str | os.PathLike[str], kind: str) -> str:
    """Read a key from a file written by `zmon keygen`, or from a file that holds only the key.

    Parameters
    ----------
    what : str
        The setting, for the error.
    path : str or path
    kind : str
        ``"secret-key"`` or ``"public-key"``.
    """
    try:
        text = read_bounded(path, LARGEST, secret=kind == "secret-key").decode()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not a text file of at most 16 KiB"
        raise ConfigurationError(f"{what}: the key file {path!s:.300} cannot be read: {why}") from None
    key: str = dict(_LINE.findall(text)).get(kind, text.strip())
    if not is_key(key):
        raise ConfigurationError(f"{what}: {path} holds no {kind} of 40 characters; write one with `zmon keygen`")
    return key


def _read(what: str, variable: str, value: Given | None, kind: str) -> str | None:
    if value is None:
        path = os.environ.get(variable)
        if not path:
            return None
        if is_key(path):  # not repeated: it may be the secret
            raise ConfigurationError(f"{variable} holds a key; it must name a file that holds the key")
        return read_file(variable, path, kind)
    if isinstance(value, os.PathLike):
        return read_file(what, value, kind)
    try:
        text = value.decode() if isinstance(value, bytes) else value
        if is_key(text):
            return text
        if text and len(text) < 4096 and os.path.isfile(text):  # noqa: PTH113 - as above
            return read_file(what, text, kind)
    except (AttributeError, TypeError, ValueError, OSError):
        pass
    # The argument is not repeated: it may be a secret with a character missing.
    raise ConfigurationError(f"{what} is neither a key (40 characters of z85) nor the path of a file that holds one")
