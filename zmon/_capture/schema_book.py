"""The schemas that a publisher goes through: each has more columns than the one before. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zmon._wire.frames import encode_schema, schema_hash
from zmon.batch import Names, Schema

SCHEMA_LIMIT = 256  # schemas of one publisher; columns that come later are left out
SCHEMA_BYTES = 32 * 2**20  # of all of them


class SchemaBook:
    """Schemas and their encoded bodies.

    Attributes
    ----------
    bodies : dict of bytes to bytes
        By hash, for the sender.
    """

    def __init__(self, task: str, threshold: float, tags: Mapping[str, str]) -> None:
        self.bodies: dict[bytes, bytes] = {}
        self._task, self._threshold, self._tags = task, threshold, tags
        self._nbytes = 0
        self._made_of: tuple[Any, ...] = ()
        self._newest: tuple[Schema, bytes] = (Schema(), b"")

    @property
    def room(self) -> bool:
        """Whether the schema may change once more."""
        return len(self.bodies) < SCHEMA_LIMIT and self._nbytes < SCHEMA_BYTES

    def outputs(self, classes: Names) -> Schema:
        """Return a schema without columns."""
        if self._newest[0].classes == classes and self._newest[0].task == self._task:
            return self._newest[0]
        return Schema(self._task, classes)

    def newest(
        self, classes: Names, features: Sequence[Any], segments: Sequence[str], hashed: Sequence[Any]
    ) -> tuple[Schema, bytes]:
        """Return the schema of rows from now on, and its hash. Features and segments are only ever appended."""
        unnamed = tuple(each.name for each in hashed)
        made_of = (classes, len(features), len(segments), unnamed)
        if made_of != self._made_of:
            names, kinds = tuple(each.name for each in features), tuple(each.kind for each in features)
            schema = Schema(self._task, classes, names, kinds, self._threshold, self._tags, tuple(segments), unnamed)
            body = encode_schema(schema)
            digest = schema_hash(body)
            if digest not in self.bodies:
                self._nbytes += len(body)
                self.bodies[digest] = body
            self._made_of, self._newest = made_of, (schema, digest)
        return self._newest
