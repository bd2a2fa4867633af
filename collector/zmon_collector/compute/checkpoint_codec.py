"""What a window has come to so far, as bytes and back: accumulators, samples and failures by agent. Pure."""

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
    """One agent's share: how many rows it covers, accumulators by lane, the sample."""

    rows: int = 0
    partials: dict[str, Partial] = field(default_factory=dict)
    sample: Sample | None = None


@dataclass(slots=True)
class Checkpoint:
    """A window's state. `metrics` were running for all of it; `failed` gives the error of those that lost it."""

    metrics: list[str]
    failed: dict[str, str]
    agents: dict[str, AgentState]


def encode(checkpoint: Checkpoint, failures: dict[str, str]) -> bytes:
    """The checkpoint's bytes. A metric whose accumulator is no plain data is left out and added to `failures`."""
    agents = {
        agent: {
            "rows": state.rows,
            "partials": {lane: _packed(partial.accumulators, failures) for lane, partial in state.partials.items()},
            "segments": {lane: _segments(partial.segments, failures) for lane, partial in state.partials.items()},
            "sample": None if state.sample is None else _sample(state.sample),
        }
        for agent, state in checkpoint.agents.items()
    }
    return pack_state(
        {
            "version": VERSION,
            "metrics": checkpoint.metrics,
            "failed": {**checkpoint.failed, **failures},
            "agents": agents,
        }
    )


def _segments(segments: Mapping[str, Any], failures: Mapping[str, str]) -> bytes:
    """Without the metrics that failed: what one of them keeps might be no plain data here either."""

    def sound(part: Mapping[str, Any]) -> dict[str, Any]:
        kept = {name: each for name, each in part["accumulators"].items() if name not in failures}
        return {**part, "accumulators": kept}

    return pack_state(
        {
            name: {
                **found,
                "values": {value: sound(part) for value, part in found["values"].items()},
                "other": sound(found["other"]),
            }
            for name, found in segments.items()
        }
    )


def _packed(accumulators: Mapping[str, Any], failures: dict[str, str]) -> dict[str, bytes]:
    packed = {}
    for name, accumulator in accumulators.items():
        try:
            packed[name] = pack_state(accumulator)
        except (TypeError, ValueError, OverflowError) as error:
            failures[name] = f"its accumulator cannot be kept: {error}"
    return packed


def decode(data: bytes, schema: Schema) -> Checkpoint:
    """Read a checkpoint of a window with this schema; ValueError when it is none, or of a newer version."""
    found = unpack_state(data)
    if not isinstance(found, dict) or found.get("version") != VERSION:
        raise ValueError("not a checkpoint that this release reads")
    agents = {}
    for agent, state in found["agents"].items():
        partials = {
            lane: Partial(
                {name: unpack_state(packed) for name, packed in accumulators.items()},
                unpack_state(state["segments"][lane]),
            )
            for lane, accumulators in state["partials"].items()
        }
        agents[agent] = AgentState(state["rows"], partials, _restored(state["sample"], schema))
    return Checkpoint(found["metrics"], found["failed"], agents)


def _sample(sample: Sample) -> dict[str, Any]:
    batch = sample.batch
    dictionaries = {name: [list(column) for column in found] for name, found in batch.dictionaries.items()}
    return {
        "keys": sample.keys,
        "bound": sample.bound,
        "columns": dict(batch.raw()),
        "dictionaries": dictionaries,
        "rows": batch.rows,
    }


def _restored(kept: Mapping[str, Any] | None, schema: Schema) -> Sample | None:
    if kept is None:
        return None
    dictionaries = {name: tuple(map(tuple, found)) for name, found in kept["dictionaries"].items()}
    return Sample(kept["keys"], Batch(schema, kept["columns"], kept["rows"], dictionaries), kept["bound"])
