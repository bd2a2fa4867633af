"""What an answer of Anodot's API means for each sample of the request: lenient in shape, strict in success. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any

SLOW_DOWN = {"1004", "2002", "2003"}  # API rate, concurrent requests, metrics per second
TOKEN_INACTIVE = "2001"
UNREADABLE = "1001"  # the body was no JSON: nothing of it was taken
PROTOCOL = "2029"
RETRY_STATUS = {408, 425, 429}
REFUSED_STATUS = {400, 413, 422}
_CODE = re.compile(r"(?<!\d)([12]0\d\d)(?!\d)")
_INDEX = re.compile(r"ind(?:ex|ices)\D{0,5}(\d+)", re.I)


class Outcome(Enum):
    """What to do next."""

    TAKEN = "taken"  # each sample is in, or in `refused` or `again`
    LATER = "later"  # nothing is in: the same request again
    PAUSE = "pause"  # nothing is in, and nothing will be until somebody looks
    SPLIT = "split"  # nothing is in, for the sake of some of the samples, not said which


@dataclass(frozen=True, slots=True)
class ParsedResponse:
    """An answer, read.

    Attributes
    ----------
    outcome : Outcome
    why : str
        For the log.
    after : float
        Seconds the server asks to wait.
    refused : mapping of int to (str, str)
        Code and description by position in the request.
    again : list of int
        Positions to send again; at once when `why` is empty.
    stray : list of (str, str)
        Refusals that do not say of which sample.
    """

    outcome: Outcome
    why: str = ""
    after: float = 0.0
    refused: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    again: list[int] = field(default_factory=list)
    stray: list[tuple[str, str]] = field(default_factory=list)


def read(status: int, headers: Mapping[str, str], body: bytes, n: int, now: float) -> ParsedResponse:
    """What an answer means.

    Parameters
    ----------
    status : int
    headers : mapping
        Looked up as ``Retry-After``.
    body : bytes
    n : int
        Samples in the request.
    now : float
        Epoch seconds.

    >>> body = b'{"errors": [{"index": "1", "error": 2026, "description": "NaN"}]}'
    >>> read(200, {}, body, 3, 0.0).refused
    {1: ('2026', 'NaN')}
    """
    after = retry_after(headers.get("Retry-After"), now)
    found, parsed = _parsed(body)
    entries = list(_entries(found))
    codes = {code for _, code, _ in entries}
    said = "; ".join(f"{code} {text}".strip() for _, code, text in entries[:3]) or body[:200].decode(errors="replace")
    why = f"status {status}" + (f": {said}" if said.strip() else "")
    if status in (401, 403) or TOKEN_INACTIVE in codes or PROTOCOL in codes:
        return ParsedResponse(Outcome.PAUSE, why, after)
    if status in RETRY_STATUS or status >= 500:
        return ParsedResponse(Outcome.LATER, why, after)
    if status not in REFUSED_STATUS and not 200 <= status < 300:
        return ParsedResponse(Outcome.PAUSE, f"{why}; is the address right?", after)
    if status < 300 and not parsed:
        return ParsedResponse(Outcome.LATER, f"status {status}, but the answer is no JSON: {body[:80]!r}", after)
    return _each(entries, n, why, after, taken=status < 300)


def _each(entries: list[tuple[int | None, str, str]], n: int, why: str, after: float, *, taken: bool) -> ParsedResponse:
    refused: dict[int, tuple[str, str]] = {}
    again: set[int] = set()
    stray = []
    slow = False
    for index, code, text in entries:
        if index is not None and 0 <= index < n:
            if code in SLOW_DOWN:
                again.add(index)
            else:
                refused.setdefault(index, (code, text))
        elif code in SLOW_DOWN:
            slow = True
        else:
            stray.append((code, text))
    if stray and n == 1 and not refused:
        refused[0] = stray.pop(0)
    waits = slow or bool(again)
    if (slow or not taken) and refused:
        again = set(range(n))  # nothing else of the request was taken
    elif waits and (slow or not taken):
        return ParsedResponse(Outcome.LATER, why, after)
    elif not taken or any(code == UNREADABLE for code, _ in stray):
        if n > 1:
            return ParsedResponse(Outcome.SPLIT, why, after)
        refused[0] = ("unknown", why)
    return ParsedResponse(Outcome.TAKEN, why if waits else "", after, refused, sorted(again - refused.keys()), stray)


def _parsed(body: bytes) -> tuple[Any, bool]:
    if not body.strip():
        return None, True
    try:
        return json.loads(body), True
    except (ValueError, RecursionError):
        return None, False


def _entries(found: Any) -> Iterator[tuple[int | None, str, str]]:
    """(index, code, description) of each error, in whatever shape."""
    if isinstance(found, str) and not _CODE.search(found):
        return  # "ok"
    if isinstance(found, dict):
        found = found.get("errors") or ([found] if "error" in found else [])
    if isinstance(found, dict):  # by index
        found = [
            {"index": index, **(each if isinstance(each, dict) else {"error": each})} for index, each in found.items()
        ]
    if isinstance(found, str):
        found = [found]
    if not isinstance(found, list):
        return
    for each in found:
        if isinstance(each, dict):
            error = _text(each.get("error", each.get("code")))
            text = _text(each.get("description", each.get("message")))
            code = _CODE.search(error)
            yield _whole(each.get("index")), code[1] if code else error or "unknown", text or error
        elif isinstance(each, str | int):
            text = str(each)
            code, index = _CODE.search(text), _INDEX.search(text)
            yield int(index[1]) if index else None, code[1] if code else "unknown", text


def _text(value: Any) -> str:
    return "" if value is None else str(value)[:500]


def _whole(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    text = str(value).strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def retry_after(value: str | None, now: float) -> float:
    """Seconds of a Retry-After header, a number or a date; 0 when it is absent or unreadable.

    >>> retry_after("7", 0.0), retry_after("Thu, 01 Jan 1970 00:01:00 GMT", 20.0), retry_after("soon", 0.0)
    (7.0, 40.0, 0.0)
    """
    if not value:
        return 0.0
    try:
        if value.strip().isdigit():
            return float(min(int(value), 86_400))
        when = parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return 0.0
    return min(86_400.0, max(0.0, when.replace(tzinfo=when.tzinfo or UTC).timestamp() - now))
