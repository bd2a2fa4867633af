"""What an exchange gave, without the library that made it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from zmon.errors import ZmonError

LONGEST_PAUSE = 86_400.0  # seconds of a Retry-After


class Unreachable(ZmonError):  # noqa: N818 - a state of the network, not a fault
    """There was no complete response; the message says why, and holds no address."""


class Response(NamedTuple):
    """A response as the server sent it."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def retry_after(value: str | None, now: float) -> float:
    """Return the seconds of a Retry-After header, a number or a date; 0 if it is absent or unreadable.

    >>> retry_after("7", 0.0), retry_after("Thu, 01 Jan 1970 00:01:00 GMT", 20.0), retry_after("soon", 0.0)
    (7.0, 40.0, 0.0)
    """
    if not value:
        return 0.0
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:20]), LONGEST_PAUSE)
    try:
        when = parsedate_to_datetime(text)
        return min(LONGEST_PAUSE, max(0.0, when.replace(tzinfo=when.tzinfo or UTC).timestamp() - now))
    except (ValueError, TypeError, OverflowError):
        return 0.0
