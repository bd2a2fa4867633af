"""Who may publish, and as what: the collector's end of CURVE, beside the sockets in receive.py.

A connection's key is checked once, when it is made (ZAP); what it says is checked with every message, so a key that
is taken off the list is refused from the next message on.
"""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from time import monotonic
from typing import Any

import zmq
from zmq.utils import z85
from zmq.utils.monitor import recv_monitor_message

from zmon._transport.keys import read_file
from zmon._wire.frames import Topic
from zmon.errors import ConfigurationError, WireError
from zmon_collector.config.sections import SecuritySection
from zmon_collector.config.values import clients, tables
from zmon_collector.telemetry import Telemetry

log = logging.getLogger("zmon.collector")

DOMAIN = b"zmon"
ZAP = "inproc://zeromq.zap.01"
BROKEN = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
LOG_EVERY = 300.0  # seconds in which there is at most one log line about a key
LOGGED_KEYS = 50  # that have a line in that time

Socket = zmq.Socket[bytes]


@dataclass(frozen=True, slots=True)
class AllowedClient:
    """One that may publish: its name in the configuration, and what it may speak for."""

    name: str
    models: tuple[str, ...]
    agents: tuple[str, ...]

    def may(self, topic: Topic) -> bool:
        return any(fnmatchcase(topic.model, glob) for glob in self.models) and any(
            fnmatchcase(topic.agent_id, glob) for glob in self.agents
        )


@dataclass(frozen=True, slots=True)
class AllowList:
    """The clients by public key. Immutable: a reload makes another one.

    >>> allow = Allow({"k": Client("pod", ("fraud*",), ("*",))})
    >>> allow.permits("k", Topic("fraud-eu", "", "a")), allow.permits("k", Topic("churn", "", "a"))
    (True, False)
    """

    clients: Mapping[str, AllowedClient] = field(default_factory=dict)

    @staticmethod
    def of(section: SecuritySection) -> AllowList:
        """The list of the configuration and of the file it names; ConfigurationError when something is wrong."""
        return AllowList(
            {
                each["key"]: AllowedClient(name, tuple(each["models"]), tuple(each["agents"]))
                for name, each in _gathered(section).items()
            }
        )

    def permits(self, key: str, topic: Topic) -> bool:
        """Whether the owner of the key may publish as the topic's model and agent."""
        client = self.clients.get(key)
        return client is not None and client.may(topic)


class Gate:
    """Keys of the collector's sockets, the answers to libzmq's questions, and the check of every message.

    Without a secret key in the configuration it is off and lets everything through.
    """

    def __init__(self, section: SecuritySection, telemetry: Telemetry) -> None:
        path = section.secret_key_file
        self._secret = b"" if path is None else read_file("[security] secret_key_file", path, "secret-key").encode()
        self._allow = AllowList.of(section)
        self._telemetry = telemetry
        self._period = monotonic()
        self._logged: set[str] = set()  # keys, in this period
        self._zap: Socket | None = None
        self._monitors: list[Socket] = []

    @property
    def on(self) -> bool:
        return bool(self._secret)

    def permit(self, allow: AllowList) -> None:
        """Put another list in the place of the present one. Callable from any thread."""
        self._allow = allow
        if self.on and not allow.clients:
            log.warning("[security] allows no client: nobody can publish")

    def open(self, context: zmq.Context[Socket]) -> None:
        """Answer libzmq's questions from now on; before the sockets are bound."""
        if self.on:
            self._zap = context.socket(zmq.REP)
            self._zap.bind(ZAP)
            self.permit(self._allow)

    def secure(self, socket: Socket) -> None:
        """Let in over this socket only who proves an allowed key."""
        if self.on:
            socket.setsockopt(zmq.CURVE_SERVER, 1)
            socket.setsockopt(zmq.CURVE_SECRETKEY, self._secret)
            socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
            self._monitors.append(socket.get_monitor_socket(BROKEN))

    @property
    def sockets(self) -> list[Socket]:
        """What the receiving thread polls for `serve`."""
        return [*self._monitors, *([self._zap] if self._zap is not None else [])]

    def serve(self) -> None:
        """Answer every question that waits, and count handshakes that broke off."""
        for monitor in self._monitors:
            while monitor.poll(0):
                recv_monitor_message(monitor, zmq.DONTWAIT)
                self._telemetry.count("refused_clients", "handshake")
        while self._zap is not None and self._zap.poll(0):
            frames = self._zap.recv_multipart(zmq.DONTWAIT)
            answer, reason, key = verdict(frames, self._allow)
            self._zap.send_multipart(answer, zmq.DONTWAIT)
            if reason:
                self._telemetry.count("refused_clients", reason)
                address = frames[3].decode("ascii", "replace") if len(frames) > 3 else "?"
                self._warn(key, "refused a client at %s (%s): its key is %s; [security.clients] names who may publish",
                           address, reason, key or "none")  # fmt: skip

    def check(self, user: str, topic: Topic) -> None:
        """WireError ``forbidden`` unless the owner of the key may speak for the topic's model and agent."""
        if not self.on or self._allow.permits(user, topic):
            return
        client = self._allow.clients.get(user)
        name = repr(client.name) if client else f"key {user}"
        self._warn(user, "client %s may not publish as agent %r of model %r; its messages are refused",
                   name, topic.agent_id, topic.model)  # fmt: skip
        raise WireError("forbidden", f"{name} as {topic.model!r}, {topic.agent_id!r}")

    def _warn(self, key: str, text: str, *arguments: object) -> None:
        """Once for each key and period, and for so many keys only: anybody can make new ones."""
        now = monotonic()
        if now - self._period >= LOG_EVERY:
            self._period = now
            self._logged.clear()
        if key not in self._logged and len(self._logged) < LOGGED_KEYS:
            self._logged.add(key)
            log.warning(text, *arguments)


def verdict(frames: Sequence[bytes], allow: AllowList) -> tuple[list[bytes], str, str]:
    """The answer to a ZAP request, the reason if it is a refusal, and the key that was shown."""
    if len(frames) < 6 or frames[0] != b"1.0":
        request = frames[1] if len(frames) > 1 else b""
        return [b"1.0", request, b"500", b"not a ZAP 1.0 request", b"", b""], "request", ""
    request, domain, mechanism, credentials = frames[1], frames[2], frames[5], frames[6:]
    key = ""
    if mechanism == b"CURVE" and len(credentials) == 1 and len(credentials[0]) == 32:
        key = z85.encode(credentials[0]).decode()
    if domain != DOMAIN:
        reason = "domain"
    elif not key:
        reason = "mechanism"
    elif key not in allow.clients:
        reason = "key"
    else:
        return [b"1.0", request, b"200", b"OK", key.encode(), b""], "", key
    return [b"1.0", request, b"400", b"refused", b"", b""], reason, key


def user_of(frame: zmq.Frame) -> str:
    """The public key under which libzmq let the sender of this frame in; empty if it has none."""
    try:
        return str(frame.get("User-Id"))
    except zmq.ZMQError:
        return ""


def _gathered(section: SecuritySection) -> dict[str, Mapping[str, Any]]:
    found = dict(section.clients)
    path = section.clients_file
    if path is None:
        return found
    where = f"[security] clients_file {path}"
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        if data.keys() - {"clients"}:
            raise ValueError("holds something else than tables [clients.NAME]")
        more = tables(data.get("clients", {}))
        if found.keys() & more.keys():
            raise ValueError(f"{min(found.keys() & more.keys())} is also in the configuration; rename one")
        return dict(clients({**found, **more}))
    except OSError as error:
        raise ConfigurationError(f"{where}: cannot be read: {error.strerror}") from None
    except ValueError as error:  # also of TOML and UTF-8
        raise ConfigurationError(f"{where}: {error}") from None
