"""What a window has come to so far, as bytes and back: accumulators, samples and failures by agent. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zmon.batch import Batch, Schema
from zmon.state import pack_state, unpack_state
from zmon_collector.accumulate import Partial
from zmon_collector.sample import Sample

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
            "partials": {lane: _packed(partial, failures) for lane, partial in state.partials.items()},
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


def _packed(partial: Partial, failures: dict[str, str]) -> dict[str, bytes]:
    packed = {}
    for name, accumulator in partial.accumulators.items():
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
            lane: Partial({name: unpack_state(packed) for name, packed in accumulators.items()})
            for lane, accumulators in state["partials"].items()
        }
        agents[agent] = AgentState(state["rows"], partials, _restored(state["sample"], schema))
    return Checkpoint(found["metrics"], found["failed"], agents)


def _sample(sample: Sample) -> dict[str, Any]:
    return {"keys": sample.keys, "bound": sample.bound, "columns": dict(sample.batch.raw()), "rows": sample.batch.rows}


def _restored(kept: Mapping[str, Any] | None, schema: Schema) -> Sample | None:
    if kept is None:
        return None
    return Sample(kept["keys"], Batch(schema, kept["columns"], kept["rows"]), kept["bound"])
