"""Check the structure of msgpack before it is unpacked: a byte may become 77 bytes of objects. Pure."""

from __future__ import annotations

MOST_ITEMS = 2**22  # numbers, strings, lists and maps
MOST_TEXT = 64 * 2**20  # bytes of all strings, each of which may need four times as much
DEEPEST = 16  # lists and maps in each other

# By the first byte: bytes of the length that follows, bytes behind it, and what the length counts.
_KINDS: dict[int, tuple[int, int, str]] = {
    **{0xC4 + i: (2**i, 0, "bytes") for i in range(3)},
    **{0xC7 + i: (2**i, 1, "extension") for i in range(3)},
    **{0xD9 + i: (2**i, 0, "text") for i in range(3)},
    **{0xDC + i: (2 << i, 0, "list") for i in range(2)},
    **{0xDE + i: (2 << i, 0, "map") for i in range(2)},
    0xCA: (0, 4, ""), 0xCB: (0, 8, ""),
    **{0xCC + i: (0, 2**i, "") for i in range(4)}, **{0xD0 + i: (0, 2**i, "") for i in range(4)},
}  # fmt: skip


def check_packed(data: bytes, items: int = MOST_ITEMS) -> None:
    """Raise ValueError if `data` has more values in it, or more text or depth, than a file of ours.

    Extensions hold packed values as well. What is not msgpack is left to msgpack.

    >>> check_packed(bytes([0x92, 0x01, 0xC0]), items=2)
    >>> check_packed(bytes([0x93, 0x01, 0xC0, 0x90]), items=2)
    Traceback (most recent call last):
    ValueError: more than 2 values
    """
    left, text = items, MOST_TEXT
    waiting = [1]  # values that are still to come, by depth
    at, end = 0, len(data)
    while waiting and at < end:
        if not waiting[-1]:
            waiting.pop()
            continue
        waiting[-1] -= 1
        first = data[at]
        at += 1
        kind, count = "", 0
        if first in _KINDS:
            width, behind, kind = _KINDS[first]
            count = int.from_bytes(data[at : at + width], "big")
            at += width + behind
        elif 0x80 <= first < 0xC0:
            kind, count = ("map", first & 15) if first < 0x90 else ("list", first & 15)
            if first >= 0xA0:
                kind, count = "text", first & 31
        elif 0xD4 <= first <= 0xD8:
            kind, count, at = "extension", 1 << first - 0xD4, at + 1
        if kind == "text":
            text -= count
            at += count
        elif kind == "bytes":
            at += count
        elif kind:
            # An extension is entered: what it holds is packed, too, or its bytes count as values.
            number = 1 if kind == "extension" else 2 * count if kind == "map" else count
            left -= number
            waiting.append(number)
        if left < 0:
            raise ValueError(f"more than {items:,} values")
        if text < 0:
            raise ValueError(f"more than {MOST_TEXT // 2**20} MiB of text")
        if len(waiting) > DEEPEST:
            raise ValueError(f"more than {DEEPEST} lists or maps in each other")
