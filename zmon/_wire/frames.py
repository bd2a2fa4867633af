"""Encodes and decodes the frames between publisher and collector. Pure: no sockets, no clock.

A data message is ``[topic, header, array, array, …]``; a schema message is ``[topic, header, body]``. Headers and
bodies are msgpack maps; arrays are raw little-endian buffers. The messages of the control socket are in control.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from itertools import count
from math import prod
from sys import intern
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

import msgpack
import numpy as np

from zmon import categories
from zmon._wire.checks import A_NAME, MAX_COLUMNS, MAX_NAME, MAX_ROWS, MAX_TAGS, check_array, check_schema
from zmon._wire.tally import MAX_NUMBER, check_tally
from zmon.batch import Array, Schema
from zmon.errors import WireError
from zmon.names import is_name

MAJOR = 1
MAX_ARRAYS = 16
MAX_HEADER = 64 * 2**10  # bytes
MAX_SCHEMA = 8 * 2**20  # bytes; 65,536 features with names of 100 characters
SCHEMA_LISTS = 64  # lists and maps in a schema, those of newer minors included
MAX_TOPIC = 4096  # bytes
STREAM_BYTES = 16

SMALL_LAYOUT = 512  # bytes of the descriptions of a batch's arrays, up to which they are remembered

LABEL_COLUMNS = frozenset({"ids", "labels", "timestamps"})  # of labels that arrive after their predictions
# The arrays that carry the dictionaries of columns of codes: bytes, whose number does not depend on the rows.
BLOBS = {"categories": "codes", "segment_values": "segments"}


_plain = re.compile(r"[A-Za-z0-9_.~-]*").fullmatch  # characters that quote() leaves
# Most topics have such names only, and are in canonical form if `hh` is right.
_plain_topic = re.compile(
    rb"z1/([0-9a-f]{2})/([A-Za-z0-9_.~-]{1,%d})/([A-Za-z0-9_.~-]{0,%d})/([A-Za-z0-9_.~-]{1,%d})/" % ((MAX_NAME,) * 3)
).fullmatch


def _quoted(name: str) -> str:
    return name if _plain(name) else quote(name, safe="")


@lru_cache(maxsize=4096)
def _share(model: str) -> str:
    return blake2b(model.encode(), digest_size=1).hexdigest()


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
        parts = "/".join(map(_quoted, (self.model, self.version, self.agent_id)))
        return f"z1/{_share(self.model)}/{parts}/".encode()

    def check(self) -> None:
        """Raise WireError ``topic`` unless a publisher can have these names, see `is_name`."""
        for what, name in (("model", self.model), ("version", self.version or "-"), ("agent", self.agent_id)):
            if not is_name(name):
                raise WireError("topic", f"the {what} is named {name!r:.80}; {A_NAME}")

    @staticmethod
    @lru_cache(maxsize=4096)
    def decode(frame: bytes) -> Topic:
        """Decode a topic frame; WireError ``topic`` or ``version`` if it is malformed."""
        if len(frame) > MAX_TOPIC:
            raise WireError("topic", f"{len(frame)} bytes")
        if (plain := _plain_topic(frame)) is not None:
            share, *parts = plain[0].decode().split("/")[1:-1]
            if share == _share(parts[0]):
                return Topic(*parts)
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


TopicOf = Callable[[bytes, bytes], Topic]  # of a stream and the topic frame of its message


@dataclass(frozen=True, slots=True)
class Message:
    """A decoded data message: the rows ``first … first + rows − 1`` of a stream, or a schema.

    `kind` is ``"batch"``, ``"labels"`` (rows of ids and labels, which are numbered in the same sequence) or
    ``"schema"``.

    `columns` holds the arrays by name in the sender's layout; `tally` holds the stream's cumulative counts, see
    `check_tally`: of rows that will never arrive, and of rows that arrive without a part that was invalid.
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


class _Described(NamedTuple):
    """An array of a batch as it was described; without a dtype, one that is no column."""

    name: str
    dtype: np.dtype[Any] | None
    shape: tuple[int, ...]
    nbytes: int


def pack(value: Any) -> bytes:
    """Return plain data as msgpack."""
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def unpack(data: bytes, reason: str, limit: int = MAX_HEADER, **bounds: Any) -> dict[str, Any]:
    """Read a msgpack map of at most `limit` bytes with string keys; WireError `reason` for anything else.

    `bounds` are further arguments of msgpack, for maps that are large: a list in them may be 56 bytes for one.
    """
    if len(data) > limit:
        raise WireError(reason, f"{len(data)} bytes, at most {limit}")
    try:
        value = msgpack.unpackb(data, raw=False, strict_map_key=True, **bounds)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        # ValueError covers bad UTF-8, extra data, and limits of depth and size.
        raise WireError(reason, type(error).__name__) from error
    if not isinstance(value, dict) or not {str}.issuperset(map(type, value)):
        raise WireError(reason, "not a map with string keys")
    return value


# --- schema ---------------------------------------------------------------------------------------------------------


def encode_schema(schema: Schema) -> bytes:
    """Encode the body of a schema message; its hash is the schema's name on the wire."""
    body = {name: getattr(schema, name) for name in ("task", "classes", "features", "kinds", "threshold", "tags")}
    body |= {name: names for name in ("segments", "hashed") if (names := getattr(schema, name))}
    return pack(body)


def schema_hash(body: bytes) -> bytes:
    """Return the 8 bytes by which batches name a schema."""
    return blake2b(body, digest_size=8).digest()


def decode_schema(body: bytes, declared: bytes) -> Schema:
    """Decode and check a schema body; WireError ``schema`` or ``task`` if it is malformed."""
    if schema_hash(body) != declared:
        raise WireError("schema", "the hash does not match the body")
    lists = count()

    def each(found: Any) -> Any:
        if next(lists) > SCHEMA_LISTS:
            raise ValueError("too many lists and maps")
        return found

    bounds = {"max_array_len": 2 * MAX_COLUMNS, "max_map_len": 2 * MAX_TAGS, "list_hook": each, "object_hook": each}
    data = unpack(body, "schema", MAX_SCHEMA, **bounds)
    task, threshold, tags = data.get("task"), data.get("threshold", 0.5), data.get("tags", {})
    if not isinstance(task, str):
        raise WireError("task", repr(task)[:60])
    if isinstance(threshold, bool) or not isinstance(threshold, float | int):
        raise WireError("schema", "the threshold is not a number")
    if not isinstance(tags, dict) or not all(isinstance(text, str) for pair in tags.items() for text in pair):
        raise WireError("schema", "tags are not a map of strings to strings")
    classes, features, kinds = (_strings(data, key) for key in ("classes", "features", "kinds"))
    if len(kinds) != len(features):
        raise WireError("schema", f"{len(kinds)} kinds for {len(features)} features")
    kinds = tuple(map(intern, kinds))  # one string of each, not one a feature
    segments, hashed = _strings(data, "segments"), _strings(data, "hashed")
    schema = Schema(task, classes, features, kinds, float(threshold), tags, segments, hashed)
    check_schema(schema)
    return schema


def _strings(data: Mapping[str, Any], key: str) -> tuple[str, ...]:
    strings = data.get(key, [])
    if not isinstance(strings, list) or not all(isinstance(string, str) for string in strings):
        raise WireError("schema", f"{key} are not a list of strings")
    return tuple(strings)


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
    withheld: int = 0,
) -> list[bytes | memoryview]:
    """Encode a batch, or labels, as frames. `arrays` describes every one of `buffers`: name, dtype, shape.

    Where the message would have `withheld` bytes, more than the collector takes, it has no arrays, and is refused.
    """
    position = {"first": first, "rows": rows, "base": base, "ts": ts}
    header = {"v": MAJOR, "kind": kind, "stream": stream, **position, "schema": schema, "arrays": arrays}
    if tally:
        header["tally"] = tally
    if withheld:
        header["withheld"] = withheld
    return [topic, pack(header), *buffers]


def encode_schema_message(topic: bytes, stream: bytes, body: bytes) -> list[bytes]:
    """Encode a schema message as frames."""
    return [topic, pack({"v": MAJOR, "kind": "schema", "stream": stream, "schema": schema_hash(body)}), body]


def decode(frames: Sequence[bytes], topic_of: TopicOf | None = None) -> Message:
    """Decode a data message; WireError with a reason for anything else.

    Only codes are copied; the other columns are read-only views of the frames. `topic_of` returns the topic of a stream
    and its topic frame, for callers that know streams: by default the frame is decoded.
    """
    if len(frames) > MAX_ARRAYS + 2:
        raise WireError("frames", f"{len(frames)} frames")
    header, stream, schema = _read_header(frames)
    topic = topic_of(stream, frames[0]) if topic_of is not None else Topic.decode(frames[0])
    nbytes = sum(map(len, frames))
    if header["kind"] == "schema":
        if len(frames) != 3:
            raise WireError("frames", "a schema message has three frames")
        return Message(topic, "schema", stream, schema, body=frames[2], nbytes=nbytes)
    first, rows, base = _position(header)
    if "withheld" in header:
        nbytes = number(header, "withheld")
        raise WireError("message_bytes", f"it has {nbytes} bytes, more than limits.message_bytes of the collector")
    columns, blobs = _columns(header.get("arrays"), frames[2:], rows)
    if header["kind"] == "labels":
        columns = {name: column for name, column in columns.items() if name in LABEL_COLUMNS}
        if not {"ids", "labels"} <= columns.keys():
            raise WireError("arrays", "labels without ids")
    dictionaries = {}
    for name in BLOBS.values():
        if name in columns:
            columns[name], dictionaries[name] = categories.decode(columns[name], blobs.get(name, b""))
    ts, tally = number(header, "ts", 2**63 - 1), check_tally(header.get("tally", {}))
    return Message(
        topic, header["kind"], stream, schema, first, rows, base, ts, columns, dictionaries, tally, b"", nbytes
    )


def decode_position(frames: Sequence[bytes]) -> Message:
    """Decode only whose rows a batch holds, and which: for the answer to a message that `decode` refuses.

    WireError if not even that can be read, or if the message has no rows.
    """
    header, stream, schema = _read_header(frames)
    topic = Topic.decode(frames[0])
    if header["kind"] == "schema":
        raise WireError("kind", "a schema has no rows")
    first, rows, base = _position(header)
    return Message(topic, header["kind"], stream, schema, first, rows, base, nbytes=sum(map(len, frames)))


def _read_header(frames: Sequence[bytes]) -> tuple[dict[str, Any], bytes, bytes]:
    """Return a message's header, and the stream and the schema that it names."""
    if len(frames) < 2:
        raise WireError("frames", f"{len(frames)} frames")
    header = unpack(frames[1], "header")
    check_version(header)
    kind, stream, schema = header.get("kind"), header.get("stream"), header.get("schema")
    if not isinstance(stream, bytes) or len(stream) != STREAM_BYTES:
        raise WireError("header", "stream is not 16 bytes")
    if not isinstance(schema, bytes) or len(schema) != 8:
        raise WireError("header", "schema is not 8 bytes")
    if kind not in ("batch", "labels", "schema"):  # a tuple, because the value may be unhashable
        raise WireError("kind", repr(kind)[:60])
    return header, stream, schema


def _position(header: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return a batch's first row, its number of rows, and the oldest row that its publisher still holds."""
    first, rows, base = number(header, "first"), number(header, "rows"), number(header, "base")
    if not 1 <= base <= first or not 1 <= rows <= MAX_ROWS:
        raise WireError("header", f"first {first}, rows {rows}, base {base}")
    return first, rows, base


def _columns(described: object, buffers: Sequence[bytes], rows: int) -> tuple[dict[str, Array], dict[str, bytes]]:
    if not isinstance(described, list) or len(described) != len(buffers):
        raise WireError("arrays", f"{len(buffers)} buffers do not match the descriptions")
    columns: dict[str, Array] = {}
    blobs: dict[str, bytes] = {}
    for (name, dtype, shape, nbytes), buffer in zip(_described(described, rows), buffers, strict=True):
        if dtype is not None:
            if nbytes != len(buffer):
                raise WireError("length", f"{name}: {len(buffer)} bytes for shape {list(shape)} of {dtype.str}")
            columns[name] = np.ndarray(shape, dtype, buffer)
        elif name in BLOBS:
            blobs[BLOBS[name]] = bytes(buffer)
    return columns, blobs


def _described(described: list[Any], rows: int) -> Sequence[_Described]:
    """Check the descriptions of a batch's arrays, which are mostly those of an earlier batch."""
    try:
        packed = pack(described)
    except ValueError as error:
        raise WireError("arrays", "the descriptions are nested too deeply") from error
    return _layout(packed, rows) if len(packed) <= SMALL_LAYOUT else _layout.__wrapped__(packed, rows)


@lru_cache(maxsize=4096)
def _layout(packed: bytes, rows: int) -> Sequence[_Described]:
    found: list[_Described] = []
    names: set[str] = set()  # of arrays that this release reads
    for description in msgpack.unpackb(packed):
        match description:
            case [str(name), str(dtype), list(shape)]:
                pass
            case _:
                raise WireError("arrays", "a description is not [name, dtype, shape]")
        if name in names:
            raise WireError("arrays", f"{name} twice")
        itemsize = check_array(name, dtype, shape, rows)
        if itemsize is None:
            found.append(_Described(name, None, (), 0))
        else:
            found.append(_Described(name, np.dtype(dtype), tuple(shape), prod(shape) * itemsize))
        if itemsize is not None or name in BLOBS:
            names.add(name)
    if names <= BLOBS.keys():
        raise WireError("arrays", "no array that this release reads")
    return found


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
