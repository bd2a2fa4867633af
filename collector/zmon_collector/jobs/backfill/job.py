"""What every task of a backfill knows: model, configuration, how rows are read. Plain data, so that it travels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np

from zmon.batch import Array, Batch, Schema
from zmon.errors import ConfigurationError, Rejected
from zmon.reference import Reader
from zmon_collector.config import Config
from zmon_collector.config.policy import ModelPolicy
from zmon_collector.jobs.row_files import FilePiece
from zmon_collector.jobs.tabular import Layout, Table
from zmon_collector.windows.window import Periods

Chunk = Mapping[str, Any]
BAD = 100  # rows of a chunk that may be none
LOOKED_AT = 64  # pieces that are looked into for the kinds of columns that are empty before


@dataclass(frozen=True)
class Job:
    """One backfill.

    Attributes
    ----------
    agent : str
        Whose the rows are where no column says so.
    beyond : frozenset of str
        Agents beyond ``limits.agents``: they count for the rollup only.
    reference : bytes or None
        The profile that windows are measured against.
    """

    model: str
    version: str
    agent: str
    config: Config
    layout: Layout
    schema: Schema
    beyond: frozenset[str] = field(default_factory=frozenset)
    reference: bytes | None = None

    @property
    def key(self) -> tuple[str, str]:
        """The model and its version, together."""
        return self.model, self.version

    @cached_property
    def periods(self) -> Periods:
        """Where windows begin."""
        return Periods(ModelPolicy(self.config, self.model).rules.period)

    def agents(self, column: Any, rows: int) -> tuple[Array, list[str]]:
        """For each row the place of its agent among the names given beside."""
        if column is None:
            return np.zeros(rows, dtype=np.intp), [self.agent]
        if isinstance(column, np.ndarray):
            names, codes = np.unique(column, return_inverse=True)
            return codes, [str(name) for name in names.tolist()]
        coded = column.dictionary_encode()
        if coded.indices.null_count:
            raise ConfigurationError(f"a row without --agent {self.layout.columns.agent!r}; name every row's replica")
        return coded.indices.to_numpy(), [str(name) for name in coded.dictionary.to_pylist()]


def sound(
    layout: Layout, reader: Reader, piece: FilePiece, first: int, rows: int, chunk: Chunk
) -> Iterator[tuple[int, Batch | Rejected]]:
    """The rows of a chunk as batches, and each that is none with the reason; beside, the place of the first row.

    ConfigurationError when too many are none: then a column is named wrong, rather than a row.
    """
    waiting, bad = [(0, rows)], 0
    while waiting:
        low, high = waiting.pop()
        part = chunk if high - low == rows else {name: column[low:high] for name, column in chunk.items()}
        try:
            for batch in layout.read(reader, part):
                yield low, batch
                low += batch.rows
        except Rejected as error:
            if high - low > 1:
                middle = (low + high) // 2
                waiting += [(middle, high), (low, middle)]
                continue
            bad += 1
            if bad > BAD:
                raise ConfigurationError(
                    f"{piece.path}: more than {BAD} of the rows {first} to {first + rows - 1} cannot be used, among "
                    f"them row {first + low}: {error} ({error.reason}); mend the file, or name its columns"
                ) from None
            yield low, error


def settled(table: Table) -> tuple[Layout, Schema]:
    """The layout with the kinds of its inputs, and the schema: by the first rows in which each column has a value."""
    reader = table.layout.reader()
    schema: Schema | None = None
    for piece in islice(table.pieces(), LOOKED_AT):
        for first, rows, chunk in islice(table.layout.chunks(piece), 1):
            for _, found in sound(table.layout, reader, piece, first, rows, chunk):
                schema = found.schema if isinstance(found, Batch) else schema
        if schema is not None and len(schema.features) == len(table.layout.inputs):
            break
    if schema is None:
        raise ConfigurationError(f"{table.paths[0]}: there are no rows")
    kinds = dict(zip(schema.features, schema.kinds, strict=True))
    return replace(table.layout, kinds=kinds), schema
