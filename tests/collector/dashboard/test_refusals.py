"""Rejected and degraded rows on a model's view: by reason, with the newest detail, as text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
from zmon_collector.dashboard.refusals import SHOWN, refusal_table
from zmon_collector.dashboard.timeseries import TimeSeries
from zmon_collector.ingest.answers import Detail

from tests.support.collectors import Collector
from tests.support.pages import Start
from tests.support.waiting import until

Client = Callable[..., httpx.Client]
LONG_AGO = 1_000_000_020.0  # its minute is over, so the window closes as soon as nobody is waited for


def counts(kind: str, reason: str, agent: str, *values: float) -> TimeSeries:
    names = {"what": f"rows_{kind}", "agent_id": agent, "reason": reason}
    return TimeSeries(names, np.arange(len(values)), np.array(values))


def test_reasons_are_summed_and_explained_by_the_newest_detail() -> None:
    series = [
        counts("rejected", "r", "a", 3, 0, 4),
        counts("rejected", "r", "b", 1),
        counts("degraded", "r", "a", 20),
        counts("degraded", "none", "a", 0),
        counts("lost", "r", "a", 99),
    ]
    details = [Detail("rejected", "r", "b", "new", 2.0), Detail("rejected", "r", "a", "old", 1.0)]
    assert refusal_table(series, details) == [
        {"kind": "degraded", "reason": "r", "rows": 20},
        {"kind": "rejected", "reason": "r", "rows": 8, "detail": "new", "agent": "b", "time": 2.0},
    ]
    assert refusal_table(series, details, "a")[1] == {
        "kind": "rejected", "reason": "r", "rows": 7, "detail": "old", "agent": "a", "time": 1.0,
    }  # fmt: skip


def test_the_table_is_bounded() -> None:
    series = [counts("rejected", f"{i}" + "x" * 1000, "a", i + 1) for i in range(200)]
    table = refusal_table(series, [])
    assert len(table) == SHOWN
    assert table[0]["rows"] == 200
    assert max(len(row["reason"]) for row in table) == 200


def test_the_view_of_a_model_has_them(paged: Start, client: Client) -> None:
    """From the publisher to the page."""
    collector = paged(window=60)
    p = np.array([[0.9, 0.1], [0.2, 0.8]])
    with (
        collector.publisher(classes=["no", "yes"], agent_id="a", kinds={"z": "numeric"}) as sound,
        collector.publisher(classes=["no", "yes"], agent_id="b", kinds={"z": "categorical"}) as other,
    ):
        sound.publish(p, inputs=[{"z": 1.0}] * 2, timestamps=LONG_AGO)
        assert sound.flush(60)
        other.publish(p, inputs=[{"z": "u"}] * 2, timestamps=LONG_AGO)
        assert other.flush(60)
        sound.publish(p * 30, timestamps=LONG_AGO)
        sound.flush(60)
    collector.close_windows()

    def table() -> Any:
        view = client(collector).get("/api/v1/view", params={"view": "model", "model": "model"}).json()
        return {(row["kind"], row["reason"]): row for row in view.get("refusals", [])}

    found = until(lambda: len(table()) == 2 and table(), what="both reasons")
    conflict = found["degraded", "schema_conflict"]
    assert (conflict["rows"], conflict["agent"]) == (2, "b")
    assert "feature 'z' is categorical" in conflict["detail"]
    assert found["rejected", "probabilities_range"]["rows"] == 2
    entry = client(collector).get("/api/v1/models").json()["models"][0]
    assert (entry["rejected"], entry["degraded"]) == (2, 2)


def test_degraded_rows_are_in_every_place_of_rejected_ones(paged: Start, client: Client) -> None:
    collector: Collector = paged(window=60)
    with (
        collector.publisher(classes=2, agent_id="a", kinds={"z": "numeric"}) as one,
        collector.publisher(classes=2, agent_id="b", kinds={"z": "categorical"}) as two,
    ):
        one.publish(np.full((4, 2), 0.5), inputs=[{"z": 1.0}] * 4, timestamps=LONG_AGO)
        assert one.flush(60)
        two.publish(np.full((3, 2), 0.5), inputs=[{"z": "u"}] * 3, timestamps=LONG_AGO)
        assert two.flush(60)
    collector.close_windows()
    until(lambda: collector.counts("rows_degraded"), what="the window")
    assert collector.counts("rows_degraded", agent_id="b", reason="schema_conflict") == 3
    assert collector.counts("buffer_count", agent_id=None) == 7
    entry = until(lambda: client(collector).get("/api/v1/models").json()["models"], what="the model")[0]
    assert (entry["degraded"], entry["rejected"]) == (3, 0)
    assert [(agent["agent"], agent["degraded"]) for agent in entry["agents"]] == [("a", 0), ("b", 3)]
    health = client(collector).get("/api/v1/health").json()
    assert health["counters"]["degraded{schema_conflict}"] == 3
