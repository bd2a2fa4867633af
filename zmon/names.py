"""Names that peers and data give: which are taken as they are, and how others are written. Pure.

A publisher and a collector apply the same functions, so a collector takes every name that a publisher sends.
"""

from __future__ import annotations

import unicodedata
from hashlib import blake2b

LENGTH = 150  # characters of the name of a model, version, agent, class, tag or segment; Anodot's limit for a property
OTHER_REASON = "other"  # the reason of rows whose own is not counted by name
_REPLACEMENT = "�"
_JOINERS = "\u200c\u200d"  # letters of Persian and many emoji are written with them
_HARMLESS = {"Zs", "Co", "Cn"}  # wide spaces, private use, and what a newer Unicode may have assigned


def is_name(name: str) -> bool:
    """Return whether a string can name a model, version, agent, class, tag or segment.

    >>> is_name("fraud"), is_name(""), is_name("a\\x1b[2J"), is_name("a\\u202eb"), is_name("x" * 151)
    (True, False, False, False, False)
    """
    return 0 < len(name) <= LENGTH and name.isprintable()


def reason_word(reason: str) -> str:
    """Return a reason as it is counted: a word of at most LENGTH characters; anything else is OTHER_REASON.

    >>> reason_word("labels_dtype"), reason_word("out of memory")
    ('labels_dtype', 'other')
    """
    return reason if len(reason) <= LENGTH and reason.isidentifier() else OTHER_REASON


def readable(name: str, length: int) -> str:
    """Return a name of at most so many characters that cannot steer a terminal, a log or the direction of writing.

    A longer name is cut, control and formatting characters are replaced; such a name ends in its hash, so that names
    stay different.

    >>> readable("abc", 12), readable("x" * 20, 12)[:4], readable("a\\nb", 12)[:4]
    ('abc', 'xxx…', 'a�b…')
    """
    if len(name) <= length and name.isprintable():
        return name
    shown = name if name.isprintable() else "".join(char if _is_harmless(char) else _REPLACEMENT for char in name)
    if len(name) <= length and shown == name:
        return name
    digest = blake2b(name.encode(errors="surrogatepass"), digest_size=4).hexdigest()
    return f"{shown[: length - 9]}…{digest}"


def printable(text: str) -> str:
    """Return a text that may come from anywhere as a terminal and a log can show it, in one line.

    >>> printable("a\\x1b[2J")
    'a?[2J'
    """
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)


def _is_harmless(char: str) -> bool:
    return char.isprintable() or char in _JOINERS or unicodedata.category(char) in _HARMLESS
