"""The schemas that batches refer to, bounded in bytes: one that went is asked for again when it is needed."""

from __future__ import annotations

from collections import OrderedDict

from zmon._wire.frames import Message, decode_schema
from zmon.batch import Schema
from zmon.errors import WireError
from zmon_collector.config import LimitsSection
from zmon_collector.telemetry import Telemetry


class SchemaCache:
    """What each schema's name stands for: the schema, and its bytes as they came."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._known: OrderedDict[bytes, tuple[Schema, bytes]] = OrderedDict()
        self._nbytes = 0

    def get(self, name: bytes) -> tuple[Schema, bytes] | None:
        """A schema by its name; it then is the one used last."""
        found = self._known.get(name)
        if found is not None:
            self._known.move_to_end(name)
        return found

    def take(self, message: Message, limits: LimitsSection) -> None:
        """A schema message; WireError when it is not valid or too wide."""
        if message.schema in self._known:
            self._known.move_to_end(message.schema)
            return
        schema = decode_schema(message.body, message.schema)
        if len(schema.features) > limits.features or len(schema.classes) > limits.classes:
            raise WireError("schema_limits", f"{len(schema.features)} features, {len(schema.classes)} classes")
        self._known[message.schema] = schema, message.body
        self._nbytes += len(message.body)
        while self._nbytes > limits.schema_bytes and len(self._known) > 1:
            _, (_, body) = self._known.popitem(last=False)
            self._nbytes -= len(body)
            self._telemetry.count("schemas_forgotten")
