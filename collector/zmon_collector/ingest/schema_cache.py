"""Schemas that batches refer to, bounded in bytes; an evicted one is requested again when it is needed."""

from __future__ import annotations

from collections import OrderedDict

from zmon._wire.frames import Message, decode_schema
from zmon.batch import Schema
from zmon.errors import WireError
from zmon_collector.config.sections import LimitsSection
from zmon_collector.telemetry import Telemetry


class SchemaCache:
    """Schemas by name (the hash of their bytes), with the bytes as they were sent; evicts the least recently used."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._schemas: OrderedDict[bytes, tuple[Schema, bytes]] = OrderedDict()
        self._nbytes = 0

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
        schema = decode_schema(message.body, message.schema)
        if len(schema.features) > limits.features or len(schema.classes) > limits.classes:
            raise WireError("schema_limits", f"{len(schema.features)} features, {len(schema.classes)} classes")
        self._schemas[message.schema] = schema, message.body
        self._nbytes += len(message.body)
        while self._nbytes > limits.schema_bytes and len(self._schemas) > 1:
            _, (_, body) = self._schemas.popitem(last=False)
            self._nbytes -= len(body)
            self._telemetry.count("schemas_forgotten")
