"""Read a response of Anodot's API: its outcome for every sample. Lenient in shape, strict about success. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from zmon_plugins.http.response import Response, retry_after

SLOW_DOWN = {"1004", "2002", "2003"}  # API rate, concurrent requests, metrics per second
TOKEN_INACTIVE = "2001"
UNREADABLE = "1001"  # the body was not JSON: none of it was accepted
PROTOCOL = "2029"
RETRY_STATUS = {408, 425, 429}
REFUSED_STATUS = {400, 413, 422}
_CODE = re.compile(r"(?<!\d)([12]0\d\d)(?!\d)")
_INDEX = re.compile(r"ind(?:ex|ices)\D{0,5}(\d+)", re.I)


class Outcome(Enum):
    """Next action after a response."""

    TAKEN = "taken"  # every sample is accepted, or in `refused` or `again`
    LATER = "later"  # nothing was accepted: repeat the request
    PAUSE = "pause"  # nothing was accepted, and nothing will be until an operator acts
    SPLIT = "split"  # nothing was accepted because of some samples, but the response does not name them


@dataclass(frozen=True, slots=True)
class ParsedResponse:
    """The meaning of a response.

    Attributes
    ----------
    outcome : Outcome
    why : str
        Reason, for the log.
    after : float
        Seconds that the server asks to wait.
    refused : mapping of int to (str, str)
        Code and description by position in the request.
    again : list of int
        Positions to send again; at once if `why` is empty.
    stray : list of (str, str)
        Refusals that name no sample.
    """

    outcome: Outcome
    why: str = ""
    after: float = 0.0
    refused: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    again: list[int] = field(default_factory=list)
    stray: list[tuple[str, str]] = field(default_factory=list)


def read(response: Response, n: int, now: float) -> ParsedResponse:
    """Return the meaning of a response.

    Parameters
    ----------
    response : Response
        Its headers are looked up as ``Retry-After``.
    n : int
        Samples in the request.
    now : float
        Epoch seconds.

    >>> body = b'{"errors": [{"index": "1", "error": 2026, "description": "NaN"}]}'
    >>> read(Response(200, {}, body), 3, 0.0).refused
    {1: ('2026', 'NaN')}
    """
    status, headers, body = response
    after = retry_after(headers.get("Retry-After"), now)
    content, parsed = _parse(body)
    errors = list(_errors(content))
    codes = {code for _, code, _ in errors}
    text = "; ".join(f"{code} {text}".strip() for _, code, text in errors[:3]) or body[:200].decode(errors="replace")
    why = f"status {status}" + (f": {text}" if text.strip() else "")
    if status in (401, 403) or TOKEN_INACTIVE in codes or PROTOCOL in codes:
        return ParsedResponse(Outcome.PAUSE, why, after)
    if status in RETRY_STATUS or status >= 500:
        return ParsedResponse(Outcome.LATER, why, after)
    if status not in REFUSED_STATUS and not 200 <= status < 300:
        return ParsedResponse(Outcome.PAUSE, f"{why}; is the address right?", after)
    if status < 300 and not parsed:
        return ParsedResponse(Outcome.LATER, f"status {status}, but the response is not JSON: {body[:80]!r}", after)
    return _by_sample(errors, n, why, after, taken=status < 300)


def _by_sample(
    errors: list[tuple[int | None, str, str]], n: int, why: str, after: float, *, taken: bool
) -> ParsedResponse:
    refused: dict[int, tuple[str, str]] = {}
    again: set[int] = set()
    stray = []
    slow = False
    for index, code, text in errors:
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
        again = set(range(n))  # nothing else of the request was accepted
    elif waits and (slow or not taken):
        return ParsedResponse(Outcome.LATER, why, after)
    elif not taken or any(code == UNREADABLE for code, _ in stray):
        if n > 1:
            return ParsedResponse(Outcome.SPLIT, why, after)
        refused[0] = ("unknown", why)
    return ParsedResponse(Outcome.TAKEN, why if waits else "", after, refused, sorted(again - refused.keys()), stray)


def _parse(body: bytes) -> tuple[Any, bool]:
    if not body.strip():
        return None, True
    try:
        return json.loads(body), True
    except (ValueError, RecursionError):
        return None, False


def _errors(content: Any) -> Iterator[tuple[int | None, str, str]]:
    """Yield (index, code, description) of every error, in any of the shapes that the API uses."""
    if isinstance(content, str) and not _CODE.search(content):
        return  # "ok"
    if isinstance(content, dict):
        content = content.get("errors") or ([content] if "error" in content else [])
    if isinstance(content, dict):  # by index
        content = [
            {"index": index, **(entry if isinstance(entry, dict) else {"error": entry})}
            for index, entry in content.items()
        ]
    if isinstance(content, str):
        content = [content]
    if not isinstance(content, list):
        return
    for entry in content:
        if isinstance(entry, dict):
            error = _text(entry.get("error", entry.get("code")))
            text = _text(entry.get("description", entry.get("message")))
            code = _CODE.search(error)
            yield _whole(entry.get("index")), code[1] if code else error or "unknown", text or error
        elif isinstance(entry, str | int):
            text = str(entry)
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
