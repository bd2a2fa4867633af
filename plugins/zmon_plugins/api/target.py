"""Read [sinks.anodot] and the secrets that it names."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from zmon._files import read_bounded
from zmon.errors import ConfigurationError
from zmon.options import flag, one_of, positive_duration, read_options, text
from zmon_plugins.anodot import fixed_properties

TOKEN_ENV = "ANODOT_TOKEN"
LONGEST_FILE = 16 * 2**10  # bytes of a file that holds a token
_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class ApiTarget:
    """Address and limits of the API. The token is kept elsewhere, so that no configuration and no `repr` shows it.

    Attributes
    ----------
    url : str
        Base address of the API.
    requests_per_second, samples_per_second : float
        The account's quota.
    chunk : int
        Samples per request, at most 1,000.
    connect_timeout, read_timeout : float
        Seconds until a connection is open, and until the response is complete.
    agents : str
        ``"health"``: rollups, and per agent what the minimal preset has; ``"all"``; ``"none"``: rollups only.
    properties : mapping of str to str
        Added to every sample.
    protocol : str
        ``"2.0"``, or ``"3.0"`` with schemas and watermarks, which needs an access key in addition to the token.
    """

    url: str = "https://app.anodot.com"
    token_env: str = TOKEN_ENV
    token_file: str = ""
    requests_per_second: float = 2.0
    samples_per_second: float = 2000.0
    chunk: int = 1000
    connect_timeout: float = 5.0
    read_timeout: float = 30.0
    agents: str = "health"
    properties: Mapping[str, str] = field(default_factory=dict)
    protocol: str = "2.0"
    access_key_env: str = "ANODOT_ACCESS_KEY"
    access_key_file: str = ""
    enabled: bool = True


def read(table: Mapping[str, Any], where: str = "[sinks.anodot]") -> ApiTarget:
    """Return the target that a configuration table describes, or raise ConfigurationError."""
    if "token" in table:
        raise ConfigurationError(
            f"{where} holds a token; put it into the environment and name the variable: "
            f'token_env = "{TOKEN_ENV}", or into a file: token_file = "PATH"'
        )
    return ApiTarget(**read_options(table, _READERS, where))


def token_of(target: ApiTarget, where: str = "[sinks.anodot]") -> str:
    """Return the token from the file or the environment, or raise a ConfigurationError that does not contain it."""
    return _secret(target.token_file, target.token_env, "data collection key", where)


def access_key_of(target: ApiTarget, where: str = "[sinks.anodot]") -> str:
    """Return the access key of protocol 3.0, in the same way."""
    return _secret(target.access_key_file, target.access_key_env, "access key", where)


def _secret(file: str, variable: str, what: str, where: str) -> str:
    if file:
        try:
            token = read_bounded(file, LONGEST_FILE, secret=True).decode().strip()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is not a text file of at most 16 KiB"
            raise ConfigurationError(f"{where} file {file!r}: {reason}") from None
        source = f"the file {file!r}"
    else:
        token = os.environ.get(variable, "").strip()
        source = f"the environment variable {variable}"
    if not token:
        raise ConfigurationError(f"{where}: {source} holds no token; put the account's {what} there")
    if not _TOKEN.fullmatch(token):
        raise ConfigurationError(f"{where}: {source} holds characters that are not allowed in a token")
    return token


def _url(value: object) -> str:
    parts = urlsplit(text(value))
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
        raise ValueError(f'{value!r:.60} is not a base address; write it as "https://app.anodot.com"')
    return str(value).rstrip("/")


def _rate(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1e9:
        raise ValueError(f"{value!r:.60} is not a number above 0, at most a billion")
    return float(value)


def _chunk(value: object) -> int:
    if type(value) is not int or not 1 <= value <= 1000:
        raise ValueError(f"{value!r:.60} is not a whole number from 1 to 1000, the API's limit")
    return value


_READERS: Mapping[str, Any] = {
    "url": _url,
    "token_env": text,
    "token_file": text,
    "requests_per_second": _rate,
    "samples_per_second": _rate,
    "chunk": _chunk,
    "connect_timeout": positive_duration,
    "read_timeout": positive_duration,
    "agents": one_of("health", "all", "none"),
    "properties": fixed_properties,
    "protocol": one_of("2.0", "3.0"),
    "access_key_env": text,
    "access_key_file": text,
    "enabled": flag,
}
