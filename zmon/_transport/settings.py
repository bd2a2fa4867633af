"""A publisher's settings, from its constructor or else from the environment. Pure apart from reading that."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from zmon._wire.checks import MAX_NAME, MAX_TAGS
from zmon.errors import ConfigurationError
from zmon.names import LENGTH, is_name

DEFAULT_COLLECTOR = "tcp://127.0.0.1:5757"
LONGEST_PATH = 100  # bytes; the system has 108 for a socket's path, and the control socket's is longer by four


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The addresses of one collector: batches go to `data`, greetings and acknowledgements through `control`."""

    data: str
    control: str


def control_of(data: str) -> str:
    """Return the control endpoint that belongs to a data endpoint: port + 1, or ``PATH.ctl`` for ipc.

    >>> control_of("tcp://127.0.0.1:5757")
    'tcp://127.0.0.1:5758'
    >>> control_of("ipc:///run/zmon")
    'ipc:///run/zmon.ctl'
    """
    host, port = _check("collector", data)
    if not host:
        return f"{data}.ctl"
    if port == 65535:
        raise ConfigurationError(f"collector endpoint {data!r} leaves no port for control=, which is the next one")
    return f"tcp://{host}:{port + 1}"


def _check(what: str, endpoint: str) -> tuple[str, int]:
    """Return an endpoint's host and port, empty and 0 for a path; ConfigurationError if it is neither."""
    scheme, _, rest = endpoint.partition("://")
    host, _, port = rest.rpartition(":")
    if rest and host != "*" and endpoint.isprintable() and " " not in endpoint:
        if scheme == "ipc" and len(rest.encode()) <= LONGEST_PATH:
            return "", 0
        if scheme == "tcp" and host and port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) <= 65535:
            return host, int(port)
    raise ConfigurationError(f"{what} endpoint {endpoint!r:.120} is neither 'tcp://HOST:PORT' nor 'ipc://PATH'")


def endpoints(collector: str | Sequence[str] | None, control: str | Sequence[str] | None) -> tuple[Endpoint, ...]:
    """Return the collectors to publish to, from the arguments or ``ZMON_COLLECTOR`` (comma-separated)."""
    if collector is None:
        collector = os.environ.get("ZMON_COLLECTOR", DEFAULT_COLLECTOR).split(",")
    data = [collector] if isinstance(collector, str) else list(collector)
    data = [endpoint.strip() for endpoint in data]
    if not data:
        raise ConfigurationError("collector is an empty sequence; give at least one endpoint, or leave it out")
    if len(set(data)) != len(data):
        raise ConfigurationError(f"collector names an endpoint twice: {data!s:.200}")
    given = [control] if isinstance(control, str) else list(control or [])
    if given and len(given) != len(data):
        raise ConfigurationError(f"control has {len(given)} endpoints for {len(data)} collectors; give one for each")
    default = [control_of(endpoint) for endpoint in data]  # also validates the data endpoints
    given = [endpoint.strip() for endpoint in given]
    for endpoint in given:
        _check("control", endpoint)
    return tuple(Endpoint(d, c) for d, c in zip(data, given or default, strict=True))


def agent_id(given: str | None) -> str:
    """Return this replica's name: the argument, ``ZMON_AGENT_ID``, or the host name."""
    return name("agent_id", given or os.environ.get("ZMON_AGENT_ID") or os.uname().nodename)


def enabled() -> bool:
    """Return False if ``ZMON_ENABLED`` is 0, false, no or off: every publisher is then a no-op."""
    return os.environ.get("ZMON_ENABLED", "1").strip().lower() not in {"0", "false", "no", "off"}


def name(what: str, value: object) -> str:
    """Check a name: a non-empty string without control characters, of at most 150 characters."""
    if not isinstance(value, str) or not is_name(value):
        shown = repr(value)[:60]
        raise ConfigurationError(f"{what} must be a printable string of 1 to {LENGTH} characters, got {shown}")
    return value


def number(what: str, value: object) -> float:
    """Check a number."""
    try:
        if not isinstance(value, str | bytes):
            return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        pass
    raise ConfigurationError(f"{what} is {value!r:.60}; it must be a number")


def tags(given: Mapping[str, str] | None) -> dict[str, str]:
    """Check a publisher's tags."""
    if not isinstance(given or {}, Mapping):
        raise ConfigurationError(f"tags must map names to values, got {given!r:.60}")
    found = {name("a tag", key): name("a tag's value", value) for key, value in (given or {}).items()}
    if len(found) > MAX_TAGS:
        raise ConfigurationError(f"{len(found)} tags given; at most {MAX_TAGS} are allowed")
    return found


def names(what: str, value: Sequence[str] | None) -> tuple[str, ...] | None:
    """Check a sequence of different names, or None; ConfigurationError for anything else."""
    if value is None:
        return None
    given = value
    value = tuple(value) if isinstance(value, Iterable) else ()  # a generator can be read once
    unordered = isinstance(given, Set) and what == "features"
    if unordered or isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise ConfigurationError(f"{what} must be a sequence of strings, got {given!r:.60}")
    if not all(isinstance(name, str) and name for name in value):
        raise ConfigurationError(f"{what} must be a sequence of strings, got {given!r:.60}")
    for name in value:
        if len(name) > MAX_NAME or any("\ud800" <= character <= "\udfff" for character in name):
            limits = f"of at most {MAX_NAME} characters, without lone surrogates"
            raise ConfigurationError(f"{what} must be names {limits}; got {name!r:.60}")
    if len(set(value)) != len(value):
        raise ConfigurationError(f"{what} must not repeat a name, got {value!r:.60}")
    return value
