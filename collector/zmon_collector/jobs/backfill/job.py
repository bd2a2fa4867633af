"""The job that every task of a backfill carries: model, configuration, layout. Plain data, so that it can be sent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from zmon.batch import Array, Batch, Schema
from zmon.errors import ConfigurationError, Rejected
from zmon.names import LENGTH, readable
from zmon.reference import Reader
from zmon_collector.config import Config
from zmon_collector.config.policy import ModelPolicy
from zmon_collector.jobs.tabular import Dataset, FileRows, Layout
from zmon_collector.windows.window import Periods

BAD = 100  # invalid rows that a chunk may have
INSPECTED = 64  # pieces that are inspected for the kinds of columns that are empty at first


class Source(NamedTuple):
    """Model, version and agent of the rows; the agent holds where no column names it."""

    model: str
    version: str
    agent: str


@dataclass(frozen=True)
class Job:
    """One backfill.

    Attributes
    ----------
    agent : str
        Agent of the rows where no column names it.
    beyond : frozenset of str
        Agents beyond ``limits.agents``: they count for the rollup only.
    reference : bytes or None
        Profile that windows are compared with.
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
        """Return the model and its version."""
        return self.model, self.version

    @cached_property
    def periods(self) -> Periods:
        """Return where windows begin."""
        return Periods(ModelPolicy(self.config, self.model).rules.period)

    def agents(self, column: Any, rows: int) -> tuple[Array, list[str]]:
        """Return each row's agent as an index into the names that are returned with it."""
        if column is None:
            return np.zeros(rows, dtype=np.intp), [self.agent]
        if isinstance(column, np.ndarray):
            names, codes = np.unique(column, return_inverse=True)
        else:
            coded = column.dictionary_encode()
            if coded.indices.null_count:
                raise ConfigurationError(
                    f"a row has no --agent {self.layout.columns.agent!r}; name every row's replica"
                )
            names, codes = coded.dictionary.to_numpy(zero_copy_only=False), coded.indices.to_numpy()
        return codes, [readable(str(name), LENGTH) for name in names.tolist()]


def valid_batches(layout: Layout, reader: Reader, chunk: FileRows) -> Iterator[tuple[int, Batch | Rejected]]:
    """Yield (index of the first row, batch) for valid rows, and (index, Rejected) for each invalid row.

    An invalid row is found by halving the chunk. Too many of them raise ConfigurationError: then a column is named
    wrong, rather than a row damaged.
    """
    waiting, bad = [(0, chunk.rows)], 0
    while waiting:
        low, high = waiting.pop()
        part = chunk.columns
        if high - low < chunk.rows:
            part = {name: column[low:high] for name, column in part.items()}
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
                    f"{chunk}: more than {BAD} of them are invalid, among them row {chunk.first + low}: {error} "
                    f"({error.reason}); fix the file, or name its columns"
                ) from None
            yield low, error


def detect_schema(dataset: Dataset) -> tuple[Layout, Schema]:
    """Return the layout with the kinds of its inputs, and the schema, by the first rows with a value in each column."""
    layout = dataset.layout
    reader = layout.reader()
    schema: Schema | None = None
    for piece in islice(dataset.pieces(), INSPECTED):
        for chunk in islice(layout.chunks(piece), 1):
            for _, batch in valid_batches(layout, reader, chunk):
                schema = batch.schema if isinstance(batch, Batch) else schema
        if schema is not None and len(schema.features) == len(layout.inputs):
            break
    if schema is None:
        raise ConfigurationError(f"{dataset.paths[0]}: there are no rows")
    kinds = dict(zip(schema.features, schema.kinds, strict=True))
    return replace(layout, kinds=kinds), schema
