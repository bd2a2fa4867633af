"""The worked bytes of docs/wire.md: made from the code, put under their marks in the page."""

from __future__ import annotations

import re
import struct
from pathlib import Path

from zmon import categories
from zmon._wire import control
from zmon._wire import frames as wire
from zmon.batch import Schema

PAGE = Path(__file__).parents[1] / "docs/wire.md"
TOPIC = wire.Topic("fraud", "2", "pod/1").encode()
STREAM = bytes(range(16))
STORE = bytes(range(0xA0, 0xA8))
TS = 1_700_000_000_000_000_000
BODY = wire.encode_schema(
    Schema("classification", ("ok", "fraud"), ("amount",), ("numeric",), 0.5, {"zone": "eu"}, ("country",))
)
PROBABILITIES = struct.pack("<4d", 0.9, 0.1, 0.25, 0.75)
LABELS = struct.pack("<2i", 0, -1)
IDS = struct.pack("4s4s", b"tx-1", b"tx-2")
OUTCOMES = struct.pack("<2i", 1, 0)
CODES = struct.pack("<2b", 0, -1)
VALUES = categories.encode(2, (("de", "fr"),))
_BLOCK = re.compile(r"<!-- bytes: ([a-z ]+) -->\n(?:```text\n.*?```\n)?", re.S)


def schema_frames() -> list[bytes]:
    return wire.encode_schema_message(TOPIC, STREAM, BODY)


def batch_frames() -> list[bytes]:
    """Rows 41 and 42 of the stream; what was before 40 is no longer held."""
    return wire.encode_batch(
        TOPIC,
        stream=STREAM,
        schema=wire.schema_hash(BODY),
        first=41,
        rows=2,
        base=40,
        ts=TS,
        arrays=[
            ("probabilities", "<f8", [2, 2]),
            ("labels", "<i4", [2]),
            ("segments", "|i1", [2, 1]),
            ("segment_values", "|u1", [len(VALUES)]),
        ],
        buffers=[PROBABILITIES, LABELS, CODES, VALUES],
        tally={"sampled_out": 0, "rejected": {"probabilities_nan": 3}},
    )


def label_frames() -> list[bytes]:
    return [
        bytes(frame)
        for frame in wire.encode_batch(
            TOPIC,
            stream=STREAM,
            schema=wire.schema_hash(BODY),
            first=43,
            rows=2,
            base=43,
            ts=TS,
            arrays=[("ids", "|S4", [2]), ("labels", "<i4", [2])],
            buffers=[IDS, OUTCOMES],
            kind="labels",
        )
    ]


def frames() -> dict[str, bytes]:
    """Every worked frame by its mark."""
    _, labels_header, ids, outcomes = label_frames()
    topic, schema_header, body = schema_frames()
    _, batch_header, probabilities, labels, segments, values = batch_frames()
    return {
        "topic": topic,
        "schema header": schema_header,
        "schema body": body,
        "batch header": batch_header,
        "probabilities": probabilities,
        "labels": labels,
        "segments": segments,
        "segment values": values,
        "labels header": labels_header,
        "ids": ids,
        "late labels": outcomes,
        "hello": control.encode_greeting(
            "hello",
            topic=TOPIC,
            stream=STREAM,
            base=40,
            acked=39,
            issued=42,
            clock=TS,
            tally={"sampled_out": 7},
            store=STORE,
            counted={"sampled_out": 5},
        ),
        "ack": control.encode_ack(
            STREAM,
            42,
            65_536,
            store=STORE,
            message_bytes=16 * 2**20,
            refused={"label_unknown": (2, "class 'maybe'")},
            degraded={"schema_conflict": (7, "feature 'amount' is text, not numeric")},
            tally={"sampled_out": 7},
        ),
        "held off": control.encode_hold_off(STREAM, {"streams": (0, "pod-a fills its share of limits.streams")}),
        "ack that needs a schema": control.encode_ack(STREAM, 39, 65_536, need=wire.schema_hash(BODY), store=STORE),
        "decline": control.encode_decline(STREAM),
        "bye": control.encode_greeting(
            "bye", topic=TOPIC, stream=STREAM, base=45, acked=44, issued=44, clock=TS, tally={}, store=STORE
        ),
    }


def dump(data: bytes) -> str:
    """Offset, hex, and what is printable, 16 bytes a line."""
    lines = []
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{at:04x}  {row.hex(' '):<47}  {text}".rstrip())
    return "\n".join(lines)


def undump(text: str) -> bytes:
    """The bytes of a dump."""
    return b"".join(bytes.fromhex(line[6:53]) for line in text.splitlines())


def blocks(text: str) -> dict[str, str]:
    """The dumps of a page by their marks."""
    return dict(re.findall(r"<!-- bytes: ([a-z ]+) -->\n```text\n[^\n]*\n(.*?)\n```", text, re.S))


def page() -> str:
    """docs/wire.md with its bytes made anew."""
    made = frames()

    def block(match: re.Match[str]) -> str:
        name = match[1]
        return f"<!-- bytes: {name} -->\n```text\n{name}, {len(made[name])} bytes\n{dump(made[name])}\n```\n"

    return _BLOCK.sub(block, PAGE.read_text())
