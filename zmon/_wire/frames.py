"""Encodes and decodes the frames between publisher and collector. Pure: no sockets, no clock.

A data message is ``[topic, header, array, array, …]``; a schema message is ``[topic, header, body]``. Headers and
bodies are msgpack maps; arrays are raw little-endian buffers. The messages of the control socket are in control.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from math import prod
from typing import Any
from urllib.parse import quote, unquote

import msgpack
import numpy as np

from zmon import categories
from zmon.batch import KINDS, Array, Schema
from zmon.errors import WireError

MAJOR = 1
MAX_ARRAYS = 16
MAX_HEADER = 64 * 2**10  # bytes
MAX_SCHEMA = 8 * 2**20  # bytes; 65,536 features with names of 100 characters
MAX_TOPIC = 4096  # bytes
MAX_ROWS = 2**20
MAX_COLUMNS = 2**16
MAX_NAME = 1024  # characters of a class or feature name
STREAM_BYTES = 16
TASKS = ("classification", "regression")
TALLY_REASONS = 64
MAX_NUMBER = 2**53  # for row numbers and counts of rows: exact in every format in which points are written

NUMBERS = frozenset({"<f2", "<f4", "<f8", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8", "|b1"})
_TEXT = re.compile(r"\|S([1-9][0-9]{0,2})")
# name → allowed numbers of dimensions, allowed dtype kinds. Arrays with other names, from a newer minor, are ignored.
_COLUMNS: Mapping[str, tuple[tuple[int, ...], str]] = {
    "probabilities": ((1, 2), "f"),
    "predictions": ((1,), "if"),
    "inputs": ((2,), "fiub"),
    "labels": ((1,), "if"),
    "ids": ((1,), "iuS"),
    "timestamps": ((1,), "i"),
    "codes": ((2,), "i"),
    "segments": ((2,), "i"),
}
LABEL_COLUMNS = frozenset({"ids", "labels", "timestamps"})  # of labels that arrive after their predictions
# The arrays that carry the dictionaries of columns of codes: bytes, whose number does not depend on the rows.
BLOBS = {"categories": "codes", "segment_values": "segments"}


@dataclass(frozen=True, slots=True)
class Topic:
    """The source of a message: frame 0 of every data message, ``z1/<hh>/<model>/<version>/<agent_id>/``.

    >>> Topic("fraud", "2.0", "pod/1").encode()
    b'z1/d0/fraud/2.0/pod%2F1/'
    """

    model: str
    version: str
    agent_id: str

    def encode(self) -> bytes:
        """Encode the frame; `hh` spreads models over collectors that subscribe to a share of them."""
        parts = "/".join(quote(part, safe="") for part in (self.model, self.version, self.agent_id))
        return f"z1/{blake2b(self.model.encode(), digest_size=1).hexdigest()}/{parts}/".encode()

    @staticmethod
    @lru_cache(maxsize=4096)
    def decode(frame: bytes) -> Topic:
        """Decode a topic frame; WireError ``topic`` or ``version`` if it is malformed."""
        if len(frame) > MAX_TOPIC:
            raise WireError("topic", f"{len(frame)} bytes")
        try:
            kind, _, model, version, agent, end = frame.decode("ascii").split("/")
            names = [unquote(part, errors="strict") for part in (model, version, agent)]
        except ValueError as error:  # UnicodeDecodeError is one
            raise WireError("topic", repr(frame[:80])) from error
        if kind != "z1":
            raise WireError("version", f"topic starts with {kind[:20]!r}; this release reads z1")
        if end or not names[0] or not names[2] or any(len(name) > MAX_NAME for name in names):
            raise WireError("topic", repr(frame[:80]))
        topic = Topic(*names)
        if topic.encode() != frame:
            raise WireError("topic", f"{frame[:80]!r} is not in canonical form")
        return topic


@dataclass(frozen=True, slots=True)
class Message:
    """A decoded data message: the rows ``first … first + rows − 1`` of a stream, or a schema.

    `kind` is ``"batch"``, ``"labels"`` (rows of ids and labels, which are numbered in the same sequence) or
    ``"schema"``.

    `columns` holds the arrays by name in the sender's layout; `tally` holds the stream's cumulative counts of rows
    that will never arrive (``{"sampled_out": n, "rejected": {reason: n}}``).
    """

    topic: Topic
    kind: str
    stream: bytes
    schema: bytes
    first: int = 0
    rows: int = 0
    base: int = 0
    ts: int = 0
    columns: Mapping[str, Array] = field(default_factory=dict)
    dictionaries: Mapping[str, categories.Dictionaries] = field(default_factory=dict)
    tally: Mapping[str, Any] = field(default_factory=dict)
    body: bytes = b""
    nbytes: int = 0


def pack(value: Any) -> bytes:
    """Return plain data as msgpack."""
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def unpack(data: bytes, reason: str, limit: int = MAX_HEADER) -> dict[str, Any]:
    """Read a msgpack map of at most `limit` bytes with string keys; WireError `reason` for anything else."""
    if len(data) > limit:
        raise WireError(reason, f"{len(data)} bytes, at most {limit}")
    try:
        value = msgpack.unpackb(data, raw=False, strict_map_key=True)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        # ValueError covers bad UTF-8, extra data, and limits of depth and size.
        raise WireError(reason, type(error).__name__) from error
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise WireError(reason, "not a map with string keys")
    return value


# --- schema ---------------------------------------------------------------------------------------------------------


def encode_schema(schema: Schema) -> bytes:
    """Encode the body of a schema message; its hash is the schema's name on the wire."""
    body = {name: getattr(schema, name) for name in ("task", "classes", "features", "kinds", "threshold", "tags")}
    if schema.segments:
        body["segments"] = schema.segments
    return pack(body)


def schema_hash(body: bytes) -> bytes:
    """Return the 8 bytes by which batches name a schema."""
    return blake2b(body, digest_size=8).digest()


def decode_schema(body: bytes, declared: bytes) -> Schema:
    """Decode and check a schema body; WireError ``schema`` or ``task`` if it is malformed."""
    if schema_hash(body) != declared:
        raise WireError("schema", "the hash does not match the body")
    data = unpack(body, "schema", MAX_SCHEMA)
    classes, features = _names(data, "classes"), _names(data, "features")
    kinds = _names(data, "kinds", unique=False)
    task, threshold, tags = data.get("task"), data.get("threshold", 0.5), data.get("tags", {})
    if task not in TASKS:
        raise WireError("task", repr(task)[:60])
    if len(kinds) != len(features) or set(kinds) - set(KINDS):
        raise WireError("schema", "kinds do not match the features")
    if (task == "classification") != (len(classes) >= 2):
        raise WireError("schema", f"{len(classes)} classes for a {task}")
    if not isinstance(threshold, float | int) or not 0 <= threshold <= 1:
        raise WireError("schema", "threshold")
    if not isinstance(tags, dict) or len(tags) > 64 or not all(_is_name(t) for kv in tags.items() for t in kv):
        raise WireError("schema", "tags")
    return Schema(task, classes, features, kinds, float(threshold), tags, _names(data, "segments"))


def _names(data: Mapping[str, Any], key: str, *, unique: bool = True) -> tuple[str, ...]:
    names = data.get(key, [])
    if not isinstance(names, list) or len(names) > MAX_COLUMNS or not all(map(_is_name, names)):
        raise WireError("schema", key)
    if unique and len(set(names)) != len(names):
        raise WireError("schema", f"{key} repeat a name")
    return tuple(names)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME


# --- data -----------------------------------------------------------------------------------------------------------


def encode_batch(
    topic: bytes,
    *,
    stream: bytes,
    schema: bytes,
    first: int,
    rows: int,
    base: int,
    ts: int,
    arrays: Sequence[tuple[str, str, Sequence[int]]],
    buffers: Sequence[bytes | memoryview],
    tally: Mapping[str, Any] | None = None,
    kind: str = "batch",
) -> list[bytes | memoryview]:
    """Encode a batch, or labels, as frames. `arrays` describes every one of `buffers`: name, dtype, shape."""
    position = {"first": first, "rows": rows, "base": base, "ts": ts}
    header = {"v": MAJOR, "kind": kind, "stream": stream, **position, "schema": schema, "arrays": arrays}
    if tally:
        header["tally"] = tally
    return [topic, pack(header), *buffers]


def encode_schema_message(topic: bytes, stream: bytes, body: bytes) -> list[bytes]:
    """Encode a schema message as frames."""
    return [topic, pack({"v": MAJOR, "kind": "schema", "stream": stream, "schema": schema_hash(body)}), body]


def decode(frames: Sequence[bytes]) -> Message:
    """Decode a data message; WireError with a reason for anything else.

    Only codes are copied; the other columns are read-only views of the frames.
    """
    if not 2 <= len(frames) <= MAX_ARRAYS + 2:
        raise WireError("frames", f"{len(frames)} frames")
    topic = Topic.decode(frames[0])
    header = unpack(frames[1], "header")
    check_version(header)
    kind, stream, schema = header.get("kind"), header.get("stream"), header.get("schema")
    if not isinstance(stream, bytes) or len(stream) != STREAM_BYTES:
        raise WireError("header", "stream is not 16 bytes")
    if not isinstance(schema, bytes) or len(schema) != 8:
        raise WireError("header", "schema is not 8 bytes")
    nbytes = sum(map(len, frames))
    if kind == "schema":
        if len(frames) != 3:
            raise WireError("frames", "a schema message has three frames")
        return Message(topic, "schema", stream, schema, body=frames[2], nbytes=nbytes)
    if kind not in ("batch", "labels"):
        raise WireError("kind", repr(kind)[:60])
    first, rows, base = (number(header, key) for key in ("first", "rows", "base"))
    if not 1 <= base <= first or not 1 <= rows <= MAX_ROWS:
        raise WireError("header", f"first {first}, rows {rows}, base {base}")
    columns, blobs = _columns(header.get("arrays"), frames[2:], rows)
    if kind == "labels":
        columns = {name: column for name, column in columns.items() if name in LABEL_COLUMNS}
        if not {"ids", "labels"} <= columns.keys():
            raise WireError("arrays", "labels without ids")
    dictionaries = {}
    for name in BLOBS.values():
        if name in columns:
            columns[name], dictionaries[name] = categories.decode(columns[name], blobs.get(name, b""))
    return Message(
        topic,
        kind,
        stream,
        schema,
        first=first,
        rows=rows,
        base=base,
        ts=number(header, "ts", 2**63 - 1),
        columns=columns,
        dictionaries=dictionaries,
        tally=check_tally(header.get("tally", {})),
        nbytes=nbytes,
    )


def _columns(described: object, buffers: Sequence[bytes], rows: int) -> tuple[dict[str, Array], dict[str, bytes]]:
    if not isinstance(described, list) or len(described) != len(buffers):
        raise WireError("arrays", f"{len(buffers)} buffers do not match the descriptions")
    columns: dict[str, Array] = {}
    blobs: dict[str, bytes] = {}
    for description, buffer in zip(described, buffers, strict=True):
        match description:
            case [str(name), str(dtype), list(shape)]:
                pass
            case _:
                raise WireError("arrays", "a description is not [name, dtype, shape]")
        if name in columns or BLOBS.get(name) in blobs:
            raise WireError("arrays", f"{name} twice")
        if name in BLOBS:
            blobs[BLOBS[name]] = bytes(buffer)
        if name not in _COLUMNS:
            continue
        dimensions, kinds = _COLUMNS[name]
        itemsize = _itemsize(dtype)
        if dtype[1] not in kinds or (name == "timestamps" and dtype != "<i8"):
            raise WireError("dtype", f"{name} as {dtype}")
        if len(shape) not in dimensions or not all(type(n) is int and 0 <= n <= MAX_ROWS for n in shape):
            raise WireError("shape", f"{name} of shape {shape!r:.60}")
        if shape[0] != rows or (len(shape) == 2 and not 1 <= shape[1] <= MAX_COLUMNS):
            raise WireError("shape", f"{name} of shape {shape} for {rows} rows")
        if prod(shape) * itemsize != len(buffer):
            raise WireError("length", f"{name}: {len(buffer)} bytes for shape {shape} of {dtype}")
        columns[name] = np.frombuffer(buffer, dtype=dtype).reshape(shape)
    if not columns:
        raise WireError("arrays", "no array that this release reads")
    return columns, blobs


def _itemsize(dtype: str) -> int:
    if dtype in NUMBERS:
        return int(dtype[2])
    text = _TEXT.fullmatch(dtype)
    if text is None:
        raise WireError("dtype", repr(dtype)[:40])
    return int(text[1])


def check_tally(tally: object) -> Mapping[str, Any]:
    """Check a stream's cumulative counts: WireError ``tally`` unless they are small non-negative integers."""
    if not isinstance(tally, dict) or not isinstance(tally.get("rejected", {}), dict):
        raise WireError("tally")
    rejected = tally.get("rejected", {})
    counts = [tally.get("sampled_out", 0), *rejected.values()]
    if len(rejected) > TALLY_REASONS or not all(map(_is_name, rejected)):
        raise WireError("tally", "reasons")
    if not all(type(count) is int and 0 <= count <= MAX_NUMBER for count in counts):
        raise WireError("tally", "counts")
    return tally


def number(header: Mapping[str, Any], key: str, most: int = MAX_NUMBER) -> int:
    """Read a non-negative integer from a header, at most `most`; WireError for anything else."""
    value = header.get(key)
    if type(value) is not int or not 0 <= value <= most:
        raise WireError("header", f"{key} is {value!r:.40}")
    return value


def check_version(header: Mapping[str, Any]) -> None:
    """Raise WireError ``version`` for another major; a newer minor only adds keys, which are ignored."""
    if type(header.get("v")) is not int or header["v"] != MAJOR:
        raise WireError("version", f"{header.get('v')!r:.40}; this release reads {MAJOR}")
