"""Schemas in memory: their bound counts what is held, not what was sent."""

from __future__ import annotations

import tracemalloc

import pytest
from zmon_collector.config.sections import LimitsSection
from zmon_collector.ingest.schema_cache import SchemaCache
from zmon_collector.telemetry import Telemetry
from zmon_collector.windows import window as windows
from zmon_collector.windows.fit import Fit
from zmon_collector.windows.window import OpenWindow

from zmon._wire import frames as wire
from zmon.batch import Schema
from zmon.errors import WireError

TOPIC = wire.Topic("fraud", "2", "pod").encode()
MIB = 2**20


def wide(number: int, features: int = 10_000) -> Schema:
    return Schema("regression", (), tuple(f"{number}.{i}" for i in range(features)), ("numeric",) * features)


def message(schema: Schema) -> wire.Message:
    return wire.decode(wire.encode_schema_message(TOPIC, b"s" * 16, wire.encode_schema(schema)))


def test_a_schema_knows_what_it_takes() -> None:
    tracemalloc.start()
    body = wire.encode_schema(wide(0))
    before = tracemalloc.get_traced_memory()[0]
    schema = wire.decode_schema(body, wire.schema_hash(body))
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert held * 0.8 < schema.nbytes < held * 1.5
    assert schema.nbytes > 4 * len(body)


def test_what_is_held_stays_within_the_limit() -> None:
    cache = SchemaCache(Telemetry())
    limits = LimitsSection(schema_bytes=8 * MIB)
    tracemalloc.start()
    try:
        for number in range(40):
            cache.store(message(wide(number)), limits)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < 9 * MIB, held
    newest = wire.schema_hash(wire.encode_schema(wide(39)))
    assert cache.get(newest) is not None


def test_a_refused_schema_is_remembered_by_its_reason_alone() -> None:
    cache = SchemaCache(Telemetry())
    limits = LimitsSection(features=5)
    tracemalloc.start()
    try:
        for number in range(40):
            with pytest.raises(WireError, match="the collector takes"):
                cache.store(message(wide(number)), limits)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < MIB, held
    refusal = cache.refusal(wire.schema_hash(wire.encode_schema(wide(3))))
    assert refusal is not None
    assert refusal.reason == "schema_limits"


def test_a_window_remembers_how_few_wide_schemas_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    schemas = [wide(number, 100) for number in range(30)]
    monkeypatch.setattr(windows, "SCHEMAS_HELD", 5 * schemas[0].nbytes)
    window = OpenWindow(0, 60, 1, schemas[0])
    found = [window.fit(schema) for schema in schemas]
    assert all(isinstance(fit, Fit) for fit in found)
    assert len(window.fits) <= 6
    assert window.fit(schemas[-1]) is found[-1]
