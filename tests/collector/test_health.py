"""One health report for the admin socket, the page and /metrics: the same keys as ever, and the same values."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from zmon_collector.config import Config
from zmon_collector.config.sections import HealthSection, WebSection
from zmon_collector.health import HealthReport, Pause

from tests.support.collectors import answer
from tests.support.waiting import until

SURFACE = Path(__file__).parents[1] / "golden" / "0.1.0" / "surface.json"


def kept_keys() -> set[str]:
    """Return the keys of /api/v1/health in the snapshot of the public surface; the page adds its own clock."""

    def find(tree: Any) -> Any:
        if isinstance(tree, dict):
            return tree["health"] if "health" in tree else next(filter(None, map(find, tree.values())), None)
        return None

    return set(find(json.loads(SURFACE.read_text()))) - {"time", "mono"}


def test_keys_are_those_of_the_release() -> None:
    assert set(HealthReport().as_dict()) >= kept_keys()


def test_a_report_is_immutable_and_plain_data_of_it_is_a_copy() -> None:
    report = HealthReport(models=("m",), sinks={"file": "ok"})
    with pytest.raises(FrozenInstanceError):
        report.streams = 1  # type: ignore[misc]
    plain = report.as_dict()
    plain["models"].append("n")
    plain["sinks"]["file"] = "failing"
    assert (report.models, report.sinks) == (("m",), {"file": "ok"})


def test_every_problem_is_a_sentence_and_degrades() -> None:
    assert (HealthReport().status, HealthReport().problems) == ("ok", [])
    rows = [
        {"kind": "metric", "name": "lift", "state": "stuck", "error": "too slow"},
        {"kind": "plugin", "name": "odd", "state": "quarantined", "error": "no good"},
        {"kind": "metric", "name": "accuracy", "state": "ok", "error": ""},
    ]
    report = HealthReport(
        disk_full=True,
        journal_bytes=2,
        journal_limit=1,
        damaged_files=("state.sqlite.1",),
        paused=(Pause("disk", 12.0, 3.0, "the disk"), Pause("labels", 9.9, 9.9, "the join")),
        failing=("sink file is failing, its reports wait: E",),
        aside={"api": 3},
        plugins=tuple(rows),
        counters={"outbox_dropped{file}": 1, "chunks_damaged": 0, "agents_over_limit": 2},
    )
    assert report.status == "degraded"
    words = ("disk is full", "limits.journal_bytes", "for 12 s (disk)", "state.sqlite.1", "sink file", "3 samples",
             "metric lift is stuck", "plugin odd is quarantined", "limits.agents", "were dropped")  # fmt: skip
    assert len(report.problems) == len(words)
    assert all(word in problem for word, problem in zip(words, report.problems, strict=True)), report.problems


def test_admin_socket_page_and_metrics_agree(collect: Callable[..., Any]) -> None:
    config = Config(web=WebSection(bind="127.0.0.1:0"), health=HealthSection(bind="127.0.0.1:0"))
    collector = collect(config=config)
    with collector.publisher(classes=2) as publisher:
        publisher.publish(np.full((4, 2), 0.5))
        assert publisher.flush(60)
        asked = answer(collector.folder)
        page = until(lambda: (got := get(collector, "api/v1/health"))["counters"] == asked["counters"] and got)
        assert kept_keys() <= set(asked) == set(page) - {"time", "mono"}
        names = kept_keys() - {"journal_bytes", "uncommitted_bytes", "inbox_bytes"}  # these may move meanwhile
        assert {name: page[name] for name in names} == {name: asked[name] for name in names}
        assert asked["web"] == collector.service.site.url

        shown = {}
        for url in (collector.service.site.url, collector.service.site.probes.url):
            text = httpx.get(f"{url}metrics", timeout=30).text
            samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
            shown = {(sample.name, *sample.labels.values()): sample.value for sample in samples}
            assert shown["zmon_problems",] == len(asked["problems"])
            assert shown["zmon_models",] == len(asked["models"])
            assert shown["zmon_rows_total",] == asked["counters"]["rows"] == 4
            for name in ("streams", "connected", "open_windows", "backlog_bytes", "outbox_bytes"):
                assert shown[f"zmon_{name}",] == asked[name]
            for sink, state in asked["sinks"].items():
                assert shown["zmon_sink_ok", sink] == (state == "ok")


def get(collector: Any, path: str) -> Any:
    return httpx.get(f"{collector.service.site.url}{path}", timeout=30).json()
