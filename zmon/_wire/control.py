"""Messages of the control socket: hello, ping and bye from a publisher, acknowledgements from a collector. Pure.

Every message is one frame, a msgpack map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zmon._wire.checks import MAX_DETAIL
from zmon._wire.frames import (
    MAJOR,
    MAX_HEADER,
    STREAM_BYTES,
    Topic,
    check_version,
    number,
    pack,
    unpack,
)
from zmon._wire.tally import MAX_NUMBER, check_tally, reasons
from zmon.errors import WireError
from zmon.names import reason_word

Answers = Mapping[str, tuple[int, str]]  # by reason: rows, and a detail for people


def encode_greeting(
    kind: str,
    *,
    topic: bytes,
    stream: bytes,
    base: int,
    acked: int,
    issued: int,
    clock: int,
    tally: Mapping[str, Any],
    store: bytes = b"",
    counted: Mapping[str, Any] | None = None,
) -> bytes:
    """Encode a ``hello`` (on a subscription), ``ping`` (every second) or ``bye``: the position of this stream.

    `store` names the collector's store that the last acknowledgement came from. The tally of a greeting may also hold
    ``details``: by reason, what the newest rows counted under it had, in at most MAX_DETAIL characters. `counted` is
    the part of the tally that was settled when `acked` was, here or by the collector that had the model before.
    """
    position = {"base": base, "acked": acked, "issued": issued, "clock": clock}
    greeting = {"v": MAJOR, "kind": kind, "topic": topic, "stream": stream, **position, "tally": tally, "store": store}
    if counted is not None:
        greeting["counted"] = counted
    return pack(greeting)


@dataclass(frozen=True, slots=True)
class Greeting:
    """A publisher's decoded control message; row numbers as in `Message`, `clock` in nanoseconds."""

    kind: str
    topic: Topic
    stream: bytes
    base: int
    acked: int
    issued: int
    clock: int
    tally: Mapping[str, Any]
    store: bytes = b""
    details: Mapping[str, str] = field(default_factory=dict)
    counted: Mapping[str, Any] | None = None  # None: from release 0.1, or a ping


def decode_greeting(frame: bytes) -> Greeting:
    """Decode a publisher's control message; WireError if it is malformed."""
    data = unpack(frame, "control")
    check_version(data)
    kind, topic, stream = data.get("kind"), data.get("topic"), data.get("stream")
    if kind not in ("hello", "ping", "bye"):  # a tuple, because the value may be unhashable
        raise WireError("kind", repr(kind)[:60])
    if not isinstance(topic, bytes) or not isinstance(stream, bytes) or len(stream) != STREAM_BYTES:
        raise WireError("control", "topic or stream")
    base, acked, issued = (number(data, key) for key in ("base", "acked", "issued"))
    clock = number(data, "clock", 2**63 - 1)
    if acked > issued or not 1 <= base <= issued + 1:
        raise WireError("control", f"base {base}, acked {acked}, issued {issued}")
    sent = data.get("tally", {})
    tally = check_tally(sent)
    details = {reason_word(reason): detail for reason, detail in reasons(sent, "details", "tally").items()}
    if not all(isinstance(detail, str) and len(detail) <= MAX_DETAIL for detail in details.values()):
        raise WireError("tally", f"a detail is not a string of at most {MAX_DETAIL} characters")
    counted = check_tally(data["counted"]) if "counted" in data else None
    return Greeting(
        kind, Topic.decode(topic), stream, base, acked, issued, clock, tally, _store(data), details, counted
    )


def encode_ack(
    stream: bytes,
    row: int,
    window: int,
    *,
    need: bytes = b"",
    store: bytes = b"",
    refused: Answers | None = None,
    degraded: Answers | None = None,
    tally: Mapping[str, Any] | None = None,
    message_bytes: int = 0,
) -> bytes:
    """Encode the collector's answer: its `store` has everything up to `row`, `window` bytes may be under way.

    `need` names a schema that the collector lacks. `refused` and `degraded` count rows of this stream that the
    collector refused, or took without a part, by reason; they are cumulative, and do not repeat the stream's own tally.
    `tally` is what is settled of that one; it is left out where it would not fit. `message_bytes` is the size of the
    largest message that the collector takes.
    """
    ack = {"v": MAJOR, "kind": "ack", "stream": stream, "row": row, "window": window, "need": need, "store": store}
    if message_bytes:
        ack["message_bytes"] = message_bytes
    if refused:
        ack["refused"] = refused
    if degraded:
        ack["degraded"] = degraded
    if tally is not None:
        whole = pack({**ack, "tally": tally})
        if len(whole) <= MAX_HEADER:
            return whole
    return pack(ack)


def encode_decline(stream: bytes) -> bytes:
    """Encode the answer to a publisher whose model this collector does not take.

    It acknowledges a stream without a name, so a publisher of release 0.1 ignores it.
    """
    return pack({"v": MAJOR, "kind": "ack", "stream": b"", "row": 0, "window": 0, "declined": stream})


def encode_hold_off(stream: bytes, why: Answers) -> bytes:
    """Encode the answer to a publisher for whose stream this collector has no place: it keeps its rows and asks again.

    `why` gives a detail for a reason, with no rows. It acknowledges a stream without a name, too.
    """
    return pack({"v": MAJOR, "kind": "ack", "stream": b"", "row": 0, "window": 0, "held_off": stream, "refused": why})


@dataclass(frozen=True, slots=True)
class Ack:
    """A decoded acknowledgement."""

    stream: bytes
    row: int
    window: int
    need: bytes
    store: bytes = b""
    refused: Answers = field(default_factory=dict)
    degraded: Answers = field(default_factory=dict)
    tally: Mapping[str, Any] | None = None  # None: from release 0.1
    declined: bytes = b""  # the stream of a model that the collector does not take
    held_off: bytes = b""  # the stream for which the collector has no place at present; `refused` says why
    message_bytes: int = 0  # the largest message that it takes; 0: from release 0.1


def decode_ack(frame: bytes) -> Ack:
    """Decode an acknowledgement; WireError if it is malformed."""
    data = unpack(frame, "control")
    check_version(data)
    stream, need = data.get("stream"), data.get("need", b"")
    if data.get("kind") != "ack" or not isinstance(stream, bytes) or not isinstance(need, bytes):
        raise WireError("control", "not an acknowledgement")
    refused, degraded = _answers(data, "refused"), _answers(data, "degraded")
    tally, declined = check_tally(data["tally"]) if "tally" in data else None, data.get("declined", b"")
    held_off = data.get("held_off", b"")
    if not isinstance(declined, bytes) or not isinstance(held_off, bytes):
        raise WireError("control", "declined or held_off")
    row, window = number(data, "row"), number(data, "window")
    most = number(data, "message_bytes") if "message_bytes" in data else 0
    return Ack(stream, row, window, need, _store(data), refused, degraded, tally, declined, held_off, most)


def _answers(data: Mapping[str, Any], key: str) -> Answers:
    answers = {}
    for reason, answer in reasons(data, key, "control").items():
        match answer:
            case [int(rows), str(detail)] if type(rows) is int and 0 <= rows <= MAX_NUMBER:
                if len(detail) > MAX_DETAIL:
                    raise WireError("control", f"a detail of {key} has more than {MAX_DETAIL} characters")
                answers[reason] = rows, detail
            case _:
                raise WireError("control", f"an answer of {key} is not [rows, detail]")
    return answers


def _store(data: Mapping[str, Any]) -> bytes:
    store = data.get("store", b"")
    if not isinstance(store, bytes) or len(store) > STREAM_BYTES:
        raise WireError("control", "store")
    return store
