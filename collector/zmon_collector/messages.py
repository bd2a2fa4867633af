"""Decode what was received: rows, a publisher's greeting, or an operator's request; hand each to its part."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from zmon._wire.control import Greeting, decode_greeting
from zmon._wire.frames import decode, decode_position, pack
from zmon.errors import WireError
from zmon_collector.admin import Admin
from zmon_collector.build import Parts
from zmon_collector.ingest.receiver import ReceivedMessage
from zmon_collector.ingest.row_placement import INTERNAL
from zmon_collector.windows.window import Now

log = logging.getLogger("zmon.collector")


class MessageHandler:
    """Decodes messages, checks that their senders may send them, and hands them on."""

    def __init__(self, parts: Parts, admin: Admin) -> None:
        self._receiver, self._ingestor, self._telemetry = parts.receiver, parts.ingestor, parts.telemetry
        self._batch_tap = parts.live.batch_tap
        self._admin = admin

    def handle(self, received: ReceivedMessage, now: Now) -> None:
        """Handle a message. A malformed one is counted by its reason and dropped."""
        try:
            if received.kind == "data":
                self._handle_data(received, now)
            elif received.kind == "control":
                if len(received.frames) != 1:
                    raise WireError("frames", f"{len(received.frames)} frames on the control socket")
                greeting = decode_greeting(received.frames[0])
                self._receiver.auth.check(received.user, greeting.topic)
                self._check_names(greeting, received.peer)
                self._ingestor.handle_greeting(greeting, received.peer, now, received.user, received.identity)
            else:
                self._admin.answer(received.frames, partial(self._reply, received.peer))
        except WireError as error:
            self._telemetry.count("rejected_messages", error.reason)
            log.debug("message rejected: %s", error)
        except Exception:  # whatever bytes one sender sends, the others are served
            if not self._telemetry.get("rejected_messages", "internal"):
                log.exception("cannot handle a message on the %s socket; further ones are counted", received.kind)
            self._telemetry.count("rejected_messages", "internal")

    def _check_names(self, greeting: Greeting, peer: bytes) -> None:
        """Refuse a source whose names cannot be shown, and answer that it is not taken here."""
        try:
            greeting.topic.check()
        except WireError:
            self._ingestor.sessions.decline(greeting.stream, peer)
            raise

    def _handle_data(self, received: ReceivedMessage, now: Now) -> None:
        try:
            if received.too_large:
                most = self._ingestor.config.limits.message_bytes
                raise WireError("message_bytes", f"{received.too_large} bytes; limits.message_bytes = {most}")
            message = decode(received.frames, self._ingestor.sessions.topic_of)
        except WireError as error:
            message = decode_position(received.frames)
            message.topic.check()
            self._receiver.auth.check(received.user, message.topic)
            self._ingestor.refuse_message(message, error, now, received.user, received.identity)
            raise
        message.topic.check()
        client = self._receiver.auth.check(received.user, message.topic)
        self._batch_tap.record(message, now.wall, now.mono)
        try:
            self._ingestor.handle_message(message, now, received.user, client, received.identity)
        except WireError:
            raise
        except Exception:  # sent again it would fail again, and everything behind it would wait
            if message.kind != "schema":
                refusal = WireError("internal", INTERNAL)
                self._ingestor.refuse_message(message, refusal, now, received.user, received.identity)
            raise

    def _reply(self, peer: bytes, answer: dict[str, Any]) -> None:
        self._receiver.reply("admin", peer, pack(answer))
        self._receiver.flush()
