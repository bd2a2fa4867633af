"""Checkpoints as bytes and back: a window's accumulators, samples and failures, by agent. Pure.

Accumulators are packed on the executor of their plugin, each under the guard of its metric (`pack_partials`). What is
put together afterwards (`encode`) is bytes and plain data of the collector's own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from zmon.batch import Batch, Schema
from zmon.contract import Metric
from zmon.state import pack_state, unpack_state
from zmon_collector.compute import sample as samples
from zmon_collector.compute.accumulate import Partial, StepProgress
from zmon_collector.compute.packing import CHECKPOINT_BYTES, MIB, check_size, largest_first
from zmon_collector.compute.sample import Sample

VERSION = 2  # 1 had no `added` and `covered`, and all metrics of an executor in one blob of segments

PackedPartial = dict[
    str, Any
]  # {"accumulators": {metric: bytes}, "segments": {metric: bytes}, "parts": …, "covered": …}


@dataclass(slots=True)
class AgentState:
    """State of one agent's rows: their number, partial results by executor, the sample.

    `added` are the rows with the pairs that late labels have completed.
    """

    rows: int = 0
    added: int = 0
    partials: dict[str, Partial] = field(default_factory=dict)
    sample: Sample | None = None


@dataclass(slots=True)
class Checkpoint:
    """A window's state. `failed` has the error of each metric that lost its values."""

    failed: dict[str, str] = field(default_factory=dict)
    agents: dict[str, AgentState] = field(default_factory=dict)


# --- packing ---------------------------------------------------------------------------------------------------------


def pack_partials(
    metrics: Sequence[Metric[Any]], partials: Mapping[str, Partial], progress: StepProgress
) -> dict[str, PackedPartial]:
    """Pack an executor's partial results by agent; a metric that cannot be packed fails, and is in none of them."""
    packed: dict[str, PackedPartial] = {
        agent: {"accumulators": {}, "segments": {}, "parts": _sizes(part.segments), "covered": {}}
        for agent, part in partials.items()
    }
    for metric in metrics:
        name, nbytes = metric.name, 0
        for agent, part in partials.items():
            by_segment = _of_metric(name, part.segments)
            held = {"accumulators": part.accumulators[name]} if name in part.accumulators else {}
            for kind, value in (held | ({"segments": by_segment} if by_segment else {})).items():
                data = progress.guard(name, _pack, value, nbytes)
                if data is not None:
                    packed[agent][kind][name] = data
                    nbytes += len(data)
            if name in part.covered:
                packed[agent]["covered"][name] = part.covered[name]
    for agent_partial in packed.values():
        for kind in ("accumulators", "segments", "covered"):
            for name in progress.failures.keys() & agent_partial[kind].keys():
                del agent_partial[kind][name]
    return packed


def _pack(value: Any, nbytes: int) -> bytes:
    data = pack_state(value)
    check_size("its accumulators", nbytes + len(data))
    return data


def encode(
    agents: Mapping[str, AgentState], packed: Mapping[str, Mapping[str, PackedPartial]], failed: Mapping[str, str]
) -> tuple[bytes, dict[str, str]]:
    """Put a checkpoint together from the executors' packed partial results.

    Metrics are left out, the largest first, and then samples are cut, until it is within CHECKPOINT_BYTES. Return it
    with the metrics that lost their values by that.
    """
    lost: dict[str, str] = {}
    sizes: Counter[str] = Counter()
    for partials in packed.values():
        for part in partials.values():
            for kind in ("accumulators", "segments"):
                for name, data in part[kind].items():
                    sizes[name] += len(data)
    kept = {name: agent.sample for name, agent in agents.items() if agent.sample is not None}
    sampled = Counter({name: sample.nbytes for name, sample in kept.items()})
    room = max(CHECKPOINT_BYTES // 2, CHECKPOINT_BYTES - sampled.total())
    for name in largest_first(sizes, room):
        lost[name] = f"the window's checkpoint would have more than {CHECKPOINT_BYTES // MIB} MiB"
    room = CHECKPOINT_BYTES - sum(size for name, size in sizes.items() if name not in lost)
    while sampled.total() > room:
        ((largest, _),) = sampled.most_common(1)
        kept[largest] = samples.merge([kept[largest]], len(kept[largest].keys) // 2)
        sampled[largest] = kept[largest].nbytes
    plain = {
        name: {
            "rows": agent.rows,
            "added": agent.added,
            "partials": {key: _without(lost, part[name]) for key, part in packed.items() if name in part},
            "sample": _plain_sample(kept[name]) if name in kept else None,
        }
        for name, agent in agents.items()
    }
    return pack_state({"version": VERSION, "failed": {**failed, **lost}, "agents": plain}), lost


def _without(lost: Mapping[str, str], part: PackedPartial) -> PackedPartial:
    plain = dict(part)
    for kind in ("accumulators", "segments", "covered"):
        plain[kind] = {name: held for name, held in part[kind].items() if name not in lost}
    return plain


def _sizes(segments: Mapping[str, Any]) -> dict[str, Any]:
    """Return what segments have without accumulators: rows and bounds."""
    return {
        name: {
            "values": {value: part["rows"] for value, part in column["values"].items()},
            "other": column["other"]["rows"],
            "bound": column["bound"],
        }
        for name, column in segments.items()
    }


def _of_metric(metric: str, segments: Mapping[str, Any]) -> dict[str, Any]:
    """Return a metric's accumulators by segment; empty when it has none."""
    found = {}
    for name, column in segments.items():
        values = {
            value: part["accumulators"][metric]
            for value, part in column["values"].items()
            if metric in part["accumulators"]
        }
        others = column["other"]["accumulators"]
        if values or metric in others:
            found[name] = {"values": values, "other": [others[metric]] if metric in others else []}
    return found


def _plain_sample(sample: Sample) -> dict[str, Any]:
    batch = sample.batch
    dictionaries = {name: [list(column) for column in columns] for name, columns in batch.dictionaries.items()}
    columns = {"columns": dict(batch.raw()), "dictionaries": dictionaries, "rows": batch.rows}
    return {"keys": sample.keys, "bound": sample.bound, **columns}


# --- reading ---------------------------------------------------------------------------------------------------------


def decode(data: bytes, schema: Schema) -> Checkpoint:
    """Read a checkpoint of a window with this schema; ValueError when it is damaged, or of a newer version."""
    packed = unpack_state(data)
    if not isinstance(packed, dict) or packed.get("version") not in (1, VERSION):
        raise ValueError("not a checkpoint that this release reads")
    checkpoint = Checkpoint(packed["failed"])
    for name, agent in packed["agents"].items():
        if packed["version"] == 1:
            added, partials = agent["rows"], _first_version(agent, packed)
        else:
            added = agent["added"]
            partials = {key: _restored_partial(part, checkpoint.failed) for key, part in agent["partials"].items()}
        checkpoint.agents[name] = AgentState(agent["rows"], added, partials, _restored_sample(agent["sample"], schema))
    return checkpoint


def _restored_partial(part: PackedPartial, failed: dict[str, str]) -> Partial:
    accumulators: dict[str, Any] = {}
    by_metric: dict[str, Any] = {}
    for kind, unpacked in (("accumulators", accumulators), ("segments", by_metric)):
        for name, data in part[kind].items():
            try:
                unpacked[name] = unpack_state(data)
            except (ValueError, TypeError) as error:  # a map with lists as keys, for instance
                failed.setdefault(name, f"its accumulator cannot be read back: {error}")
    segments: dict[str, Any] = {}
    for name, column in part["parts"].items():
        held = {metric: of[name] for metric, of in by_metric.items() if name in of}
        values = {
            value: {
                "rows": rows,
                "accumulators": {m: of["values"][value] for m, of in held.items() if value in of["values"]},
            }
            for value, rows in column["values"].items()
        }
        others = {metric: of["other"][0] for metric, of in held.items() if of["other"]}
        segments[name] = {
            "values": values, "other": {"rows": column["other"], "accumulators": others}, "bound": column["bound"]
        }  # fmt: skip
    return Partial(accumulators, segments, covered=part["covered"])


def _first_version(agent: Mapping[str, Any], packed: Mapping[str, Any]) -> dict[str, Partial]:
    """Read an agent's partial results of version 1, in which each metric that had not failed had seen all rows."""
    partials = {}
    for executor, accumulators in agent["partials"].items():
        unpacked = {metric: unpack_state(accumulator) for metric, accumulator in accumulators.items()}
        partials[executor] = Partial(unpacked, unpack_state(agent["segments"][executor]))
    held = {metric for part in partials.values() for metric in part.accumulators}
    for part in partials.values():
        covering = [name for name in packed["metrics"] if name in part.accumulators or name not in held]
        part.covered = {name: agent["rows"] for name in covering if name not in packed["failed"]}
    return partials


def _restored_sample(kept: Mapping[str, Any] | None, schema: Schema) -> Sample | None:
    if kept is None:
        return None
    dictionaries = {name: tuple(map(tuple, columns)) for name, columns in kept["dictionaries"].items()}
    return Sample(kept["keys"], Batch(schema, kept["columns"], kept["rows"], dictionaries), kept["bound"])
