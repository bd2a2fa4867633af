"""What a publisher is told by its constructor or, failing that, by the environment. Pure but for reading it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from zmon.errors import ConfigurationError

DEFAULT_COLLECTOR = "tcp://127.0.0.1:5757"
NAME_LIMIT = 150  # characters; what Anodot takes as a property's value


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one collector listens: batches go to `data`, hellos and acknowledgements pass over `control`."""

    data: str
    control: str


def control_of(data: str) -> str:
    """The control endpoint that belongs to a data endpoint: port + 1, or ``PATH.ctl`` for ipc.

    >>> control_of("tcp://127.0.0.1:5757")
    'tcp://127.0.0.1:5758'
    >>> control_of("ipc:///run/zmon")
    'ipc:///run/zmon.ctl'
    """
    scheme, separator, rest = data.partition("://")
    if scheme == "ipc" and rest:
        return f"{data}.ctl"
    host, _, port = rest.rpartition(":")
    if separator and scheme == "tcp" and host and port.isdigit() and 0 < int(port) < 65535:
        return f"tcp://{host}:{int(port) + 1}"
    raise ConfigurationError(f"collector endpoint {data!r} is neither 'tcp://HOST:PORT' nor 'ipc://PATH'")


def endpoints(collector: str | Sequence[str] | None, control: str | Sequence[str] | None) -> tuple[Endpoint, ...]:
    """The collectors to publish to, from the arguments or ``ZMON_COLLECTOR`` (comma-separated)."""
    if collector is None:
        collector = os.environ.get("ZMON_COLLECTOR", DEFAULT_COLLECTOR).split(",")
    data = [collector] if isinstance(collector, str) else list(collector)
    data = [each.strip() for each in data]
    if not data:
        raise ConfigurationError("collector is an empty sequence; give at least one endpoint, or leave it out")
    if len(set(data)) != len(data):
        raise ConfigurationError(f"collector names an endpoint twice: {data}")
    given = [control] if isinstance(control, str) else list(control or [])
    if given and len(given) != len(data):
        raise ConfigurationError(f"control has {len(given)} endpoints for {len(data)} collectors; give one for each")
    default = [control_of(each) for each in data]  # also validates the data endpoints
    return tuple(Endpoint(d, c) for d, c in zip(data, given or default, strict=True))


def agent_id(given: str | None) -> str:
    """This replica's name: the argument, ``ZMON_AGENT_ID``, or the host's name."""
    return name("agent_id", given or os.environ.get("ZMON_AGENT_ID") or os.uname().nodename)


def enabled() -> bool:
    """False when ``ZMON_ENABLED`` is 0, false, no or off: every publisher is then a no-op."""
    return os.environ.get("ZMON_ENABLED", "1").strip().lower() not in {"0", "false", "no", "off"}


def name(what: str, value: object) -> str:
    """A checked identity: a non-empty text without control characters, of at most 150 characters."""
    if not isinstance(value, str) or not value or len(value) > NAME_LIMIT or not value.isprintable():
        shown = repr(value)[:60]
        raise ConfigurationError(f"{what} must be a printable text of 1 to {NAME_LIMIT} characters, got {shown}")
    return value


def texts(what: str, value: Sequence[str] | None) -> tuple[str, ...] | None:
    """A sequence of different names, or none; ConfigurationError for anything else."""
    if value is None:
        return None
    if isinstance(value, str) or not all(isinstance(each, str) and each for each in value):
        raise ConfigurationError(f"{what} must be a sequence of texts, got {value!r:.60}")
    if len(set(value)) != len(value):
        raise ConfigurationError(f"{what} repeat a name")
    return tuple(value)
