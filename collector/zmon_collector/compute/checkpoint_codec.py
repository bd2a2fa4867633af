"""Checkpoints as bytes and back: a window's accumulators, samples and failures, by agent. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zmon.batch import Batch, Schema
from zmon.state import pack_state, unpack_state
from zmon_collector.compute.accumulate import Partial
from zmon_collector.compute.sample import Sample

VERSION = 1


@dataclass(slots=True)
class AgentState:
    """State of one agent's rows: their number, partial results by executor, the sample."""

    rows: int = 0
    partials: dict[str, Partial] = field(default_factory=dict)
    sample: Sample | None = None


@dataclass(slots=True)
class Checkpoint:
    """A window's state. `metrics` ran for all of it; `failed` has the error of each that lost its values."""

    metrics: list[str]
    failed: dict[str, str]
    agents: dict[str, AgentState]


def encode(checkpoint: Checkpoint, failures: dict[str, str]) -> bytes:
    """Pack a checkpoint. A metric whose accumulator is not plain data is left out and added to `failures`."""
    agents = {}
    for name, agent in checkpoint.agents.items():
        partials = agent.partials.items()
        agents[name] = {
            "rows": agent.rows,
            "partials": {executor: _pack_accumulators(part.accumulators, failures) for executor, part in partials},
            "segments": {executor: _pack_segments(part.segments, failures) for executor, part in partials},
            "sample": None if agent.sample is None else _plain_sample(agent.sample),
        }
    failed = {**checkpoint.failed, **failures}
    return pack_state({"version": VERSION, "metrics": checkpoint.metrics, "failed": failed, "agents": agents})


def _pack_segments(segments: Mapping[str, Any], failures: Mapping[str, str]) -> bytes:
    """Pack segments without the metrics that failed: what these keep per segment may not be plain data either."""

    def sound(part: Mapping[str, Any]) -> dict[str, Any]:
        kept = {name: accumulator for name, accumulator in part["accumulators"].items() if name not in failures}
        return {**part, "accumulators": kept}

    packed = {}
    for name, column in segments.items():
        values = {value: sound(part) for value, part in column["values"].items()}
        packed[name] = {**column, "values": values, "other": sound(column["other"])}
    return pack_state(packed)


def _pack_accumulators(accumulators: Mapping[str, Any], failures: dict[str, str]) -> dict[str, bytes]:
    packed = {}
    for name, accumulator in accumulators.items():
        try:
            packed[name] = pack_state(accumulator)
        except (TypeError, ValueError, OverflowError) as error:
            failures[name] = f"its accumulator cannot be kept: {error}"
    return packed


def decode(data: bytes, schema: Schema) -> Checkpoint:
    """Read a checkpoint of a window with this schema; ValueError when it is damaged, or of a newer version."""
    packed = unpack_state(data)
    if not isinstance(packed, dict) or packed.get("version") != VERSION:
        raise ValueError("not a checkpoint that this release reads")
    agents = {}
    for name, agent in packed["agents"].items():
        partials = {}
        for executor, accumulators in agent["partials"].items():
            unpacked = {metric: unpack_state(accumulator) for metric, accumulator in accumulators.items()}
            partials[executor] = Partial(unpacked, unpack_state(agent["segments"][executor]))
        agents[name] = AgentState(agent["rows"], partials, _restored_sample(agent["sample"], schema))
    return Checkpoint(packed["metrics"], packed["failed"], agents)


def _plain_sample(sample: Sample) -> dict[str, Any]:
    batch = sample.batch
    dictionaries = {name: [list(column) for column in columns] for name, columns in batch.dictionaries.items()}
    columns = {"columns": dict(batch.raw()), "dictionaries": dictionaries, "rows": batch.rows}
    return {"keys": sample.keys, "bound": sample.bound, **columns}


def _restored_sample(kept: Mapping[str, Any] | None, schema: Schema) -> Sample | None:
    if kept is None:
        return None
    dictionaries = {name: tuple(map(tuple, columns)) for name, columns in kept["dictionaries"].items()}
    return Sample(kept["keys"], Batch(schema, kept["columns"], kept["rows"], dictionaries), kept["bound"])
