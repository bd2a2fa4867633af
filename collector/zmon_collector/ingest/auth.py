"""Authentication with CURVE and the allow-list of publishers; receiver.py owns the sockets.

A connection's key is checked once, when the connection is made (ZAP). Model and agent are checked with every message,
so a key that is removed from the list is refused from the next message on.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import zmq
from zmq.utils import z85
from zmq.utils.monitor import recv_monitor_message

from zmon._transport.keys import read_file
from zmon._wire.frames import Topic
from zmon.errors import ConfigurationError, WireError
from zmon_collector.config.sections import SecuritySection
from zmon_collector.config.series_selection import matches
from zmon_collector.config.toml_file import read_toml
from zmon_collector.config.values import clients, tables
from zmon_collector.ingest.admission import identity_at
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
    """A client that may publish: its name in the configuration, and globs of its models and agents.

    `labels` are globs of models of which it may label the rows of any agent. Of the others it may label rows of the
    agents that it may publish as.

    >>> client = AllowedClient("pod", ("fraud*",), ("*",))
    >>> client.may_publish(Topic("fraud-eu", "", "a")), client.may_publish(Topic("churn", "", "a"))
    (True, False)
    """

    name: str
    models: tuple[str, ...]
    agents: tuple[str, ...]
    labels: tuple[str, ...] = ()

    def may_publish(self, topic: Topic) -> bool:
        """Return whether the topic's model and agent match the client's globs."""
        return matches(self.models, topic.model) and matches(self.agents, topic.agent_id)

    def labelled_agents(self, model: str) -> tuple[str, ...]:
        """Return globs of the agents of a model whose rows it may label; none for all of them.

        >>> AllowedClient("truth", ("*",), ("truth",), ("fraud*",)).labelled_agents("fraud-eu")
        ()
        >>> AllowedClient("truth", ("*",), ("truth",), ("fraud*",)).labelled_agents("churn")
        ('truth',)
        """
        return () if "*" in self.agents or matches(self.labels, model) else self.agents


AllowList = Mapping[str, AllowedClient]  # by public key; it never changes: a reload makes another one


def read_allow_list(section: SecuritySection) -> AllowList:
    """Read the list from the configuration and the file that it names; ConfigurationError if either is wrong."""
    return {
        client["key"]: AllowedClient(name, *(tuple(client.get(what, ())) for what in ("models", "agents", "labels")))
        for name, client in _read_clients(section).items()
    }


class Authenticator:
    """The sockets' keys, replies to libzmq's authentication requests, and the check of every message.

    Without a secret key in the configuration it is disabled and allows everything.
    """

    def __init__(self, section: SecuritySection, telemetry: Telemetry) -> None:
        path = section.secret_key_file
        self._secret = b"" if path is None else read_file("[security] secret_key_file", path, "secret-key").encode()
        self._allow = read_allow_list(section)
        self._telemetry = telemetry
        self._period = monotonic()
        self._logged: set[str] = set()  # keys, in this period
        self._zap: Socket | None = None
        self._monitors: list[Socket] = []

    @property
    def enabled(self) -> bool:
        """Whether the collector has a secret key."""
        return bool(self._secret)

    def replace(self, allow: AllowList) -> None:
        """Use another allow-list. Callable from any thread."""
        self._allow = allow
        if self.enabled and not allow:
            log.warning("[security] allows no client: nobody can publish")

    def start(self, context: zmq.Context[Socket]) -> None:
        """Accept libzmq's authentication requests; call it before the sockets are bound."""
        if self.enabled:
            self._zap = context.socket(zmq.REP)
            self._zap.bind(ZAP)
            self.replace(self._allow)

    def secure(self, socket: Socket) -> None:
        """Accept only connections to this socket that prove an allowed key."""
        if self.enabled:
            socket.setsockopt(zmq.CURVE_SERVER, 1)
            socket.setsockopt(zmq.CURVE_SECRETKEY, self._secret)
            socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
            self._monitors.append(socket.get_monitor_socket(BROKEN))

    @property
    def sockets(self) -> list[Socket]:
        """Sockets to poll; `serve` handles them."""
        return [*self._monitors, *([self._zap] if self._zap is not None else [])]

    def serve(self) -> None:
        """Answer the waiting authentication requests, and count failed handshakes."""
        for monitor in self._monitors:
            while monitor.poll(0):
                recv_monitor_message(monitor, zmq.DONTWAIT)
                self._telemetry.count("refused_clients", "handshake")
        while self._zap is not None and self._zap.poll(0):
            frames = self._zap.recv_multipart(zmq.DONTWAIT)
            answer, reason, key = zap_reply(frames, self._allow)
            self._zap.send_multipart(answer, zmq.DONTWAIT)
            if reason:
                self._telemetry.count("refused_clients", reason)
                address = frames[3].decode("ascii", "replace") if len(frames) > 3 else "?"
                self._warn(key, "refused a client at %s (%s): its key is %s; [security.clients] names who may publish",
                           address, reason, key or "none")  # fmt: skip

    def sender_of(self, frame: zmq.Frame) -> tuple[str, str]:
        """Return the key that libzmq authenticated for a frame, empty without CURVE, and the identity of its sender."""
        if not self.enabled:
            return "", identity_at(_note(frame, "Peer-Address"))
        user = _note(frame, "User-Id")
        client = self._allow.get(user)
        return user, client.name if client is not None else ""

    @property
    def globs(self) -> list[tuple[str, ...]]:
        """The models of each client that may publish."""
        return [client.models for client in self._allow.values()]

    def check(self, user: str, topic: Topic) -> AllowedClient | None:
        """Return the owner of the key, None without CURVE.

        WireError ``forbidden`` unless it may publish as the topic's model and agent.
        """
        client = self._allow.get(user)
        if not self.enabled:
            return None
        if client is not None and client.may_publish(topic):
            return client
        name = repr(client.name) if client else f"key {user}"
        self._warn(user, "client %s may not publish as agent %r of model %r; its messages are refused",
                   name, topic.agent_id, topic.model)  # fmt: skip
        raise WireError("forbidden", f"{name} as {topic.model!r}, {topic.agent_id!r}")

    def _warn(self, key: str, text: str, *arguments: object) -> None:
        """Log once a key and period, and for LOGGED_KEYS keys only: anybody can make new ones."""
        now = monotonic()
        if now - self._period >= LOG_EVERY:
            self._period = now
            self._logged.clear()
        if key not in self._logged and len(self._logged) < LOGGED_KEYS:
            self._logged.add(key)
            log.warning(text, *arguments)


def zap_reply(frames: Sequence[bytes], allow: AllowList) -> tuple[list[bytes], str, str]:
    """Return the reply to a ZAP request, the reason if it refuses, and the key that was shown."""
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
    elif key not in allow:
        reason = "key"
    else:
        return [b"1.0", request, b"200", b"OK", key.encode(), b""], "", key
    return [b"1.0", request, b"400", b"refused", b"", b""], reason, key


def _note(frame: zmq.Frame, name: str) -> str:
    """Return what libzmq notes about the sender of a frame under a name; empty if it does not."""
    try:
        return str(frame.get(name))
    except zmq.ZMQError:
        return ""


def _read_clients(section: SecuritySection) -> dict[str, Mapping[str, Any]]:
    """Return the tables of [security.clients] and of `clients_file` by name."""
    inline = dict(section.clients)
    path = section.clients_file
    if path is None:
        return inline
    where = f"[security] clients_file {path}"
    try:
        data = read_toml(path)
        if data.keys() - {"clients"}:
            raise ValueError("it may hold only tables [clients.NAME]")
        more = tables(data.get("clients", {}))
        if inline.keys() & more.keys():
            raise ValueError(f"{min(inline.keys() & more.keys())} is also in the configuration; rename one")
        return dict(clients({**inline, **more}))
    except OSError as error:
        raise ConfigurationError(f"{where}: cannot be read: {error.strerror}") from None
    except ValueError as error:  # also of TOML and UTF-8
        raise ConfigurationError(f"{where}: {error}") from None
