"""Schemas that batches refer to, bounded in bytes; an evicted one is requested again when it is needed.

A refused schema is remembered by its hash, so that batches that refer to it are answered instead of requesting it for
ever.
"""

from __future__ import annotations

from collections import OrderedDict

from zmon._wire.checks import published, short_detail
from zmon._wire.frames import Message, decode_schema, encode_schema, schema_hash
from zmon.batch import Schema
from zmon.errors import WireError
from zmon_collector.config.sections import LimitsSection
from zmon_collector.telemetry import Telemetry

REFUSED = 1024  # refused schemas remembered


class SchemaCache:
    """Schemas by name (the hash of their bytes as sent), with the bytes to journal; evicts the least recently used.

    `limits.schema_bytes` bounds what they take in memory, which is a multiple of their bytes where names are short.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._schemas: OrderedDict[bytes, tuple[Schema, bytes]] = OrderedDict()
        self._nbytes = 0
        self._refused: OrderedDict[bytes, WireError] = OrderedDict()

    def get(self, name: bytes) -> tuple[Schema, bytes] | None:
        """Return a schema by its name, if it is here, and mark it as used."""
        entry = self._schemas.get(name)
        if entry is not None:
            self._schemas.move_to_end(name)
        return entry

    def store(self, message: Message, limits: LimitsSection) -> None:
        """Store the schema of a schema message; WireError if it is malformed or too wide."""
        if self.get(message.schema) is not None:
            return
        try:
            given = decode_schema(message.body, message.schema)
            schema = published(given)
            _check_limits(schema, limits)
        except WireError as error:
            # A body under another schema's hash must not shut out that schema.
            if schema_hash(message.body) == message.schema:
                # Without its traceback, which would keep what was decoded.
                self._refused[message.schema] = WireError(error.reason, short_detail(error.detail))
                if len(self._refused) > REFUSED:
                    self._refused.popitem(last=False)
            raise
        self._refused.pop(message.schema, None)
        body = message.body if schema is given else encode_schema(schema)
        self._schemas[message.schema] = schema, body
        self._nbytes += schema.nbytes + len(body)
        while self._nbytes > limits.schema_bytes and len(self._schemas) > 1:
            _, (schema, body) = self._schemas.popitem(last=False)
            self._nbytes -= schema.nbytes + len(body)
            self._telemetry.count("schemas_forgotten")

    def refusal(self, name: bytes) -> WireError | None:
        """Return why the schema of this name was refused; None if it was not."""
        return self._refused.get(name)

    def forget_refusals(self) -> None:
        """Judge refused schemas again when they are sent again, because the limits have changed."""
        self._refused.clear()


def _check_limits(schema: Schema, limits: LimitsSection) -> None:
    for what, limit in (("features", limits.features), ("classes", limits.classes)):
        found = len(getattr(schema, what))
        if found > limit:
            raise WireError("schema_limits", f"{found} {what}; the collector takes limits.{what} = {limit}")
