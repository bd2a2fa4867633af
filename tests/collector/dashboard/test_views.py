"""Views: a share of a core for all of them, bounds of those that are kept, and a limit for those who ask."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from zmon_collector.dashboard.timeseries import TimeSeries
from zmon_collector.dashboard.web import exports, sse
from zmon_collector.dashboard.web.budget import Budget, BusyError, Places
from zmon_collector.dashboard.web.exports import csv_pieces, json_pieces
from zmon_collector.dashboard.web.query_params import QueryParams
from zmon_collector.dashboard.web.sse import Broadcaster


def view(number: int) -> QueryParams:
    return QueryParams("model", f"m{number}")


def broadcast(test: Callable[[Broadcaster], Any], render: Callable[[QueryParams], tuple[Any, float]]) -> None:
    async def run() -> None:
        broadcaster = Broadcaster(render, 10)
        broadcaster.start()
        await test(broadcaster)
        broadcaster.close()

    asyncio.run(run())


def test_views_without_viewers_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "LEAST_PAUSE", 0.0)

    async def test(broadcaster: Broadcaster) -> None:
        for number in range(3 * sse.KEPT):
            assert b"view" in await broadcaster.once(view(number))
        assert len(broadcaster) <= sse.KEPT + 1

    broadcast(test, lambda params: ({"view": params.model}, 0.0))


def test_views_without_viewers_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "LEAST_PAUSE", 0.0)
    monkeypatch.setattr(sse, "KEPT_BYTES", 100_000)

    async def test(broadcaster: Broadcaster) -> None:
        for number in range(20):
            await broadcaster.once(view(number))
        assert len(broadcaster) <= 4

    broadcast(test, lambda params: ({"view": "x" * 30_000}, 0.0))


def test_single_views_are_rendered_once_for_all_who_ask_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "LEAST_PAUSE", 0.0)
    monkeypatch.setattr(sse, "SAVED", 0.01)
    rendered: list[float] = []

    def render(params: QueryParams) -> tuple[Any, float]:
        rendered.append(time.monotonic())
        return {"view": params.model}, 0.05  # of a core

    async def test(broadcaster: Broadcaster) -> None:
        await asyncio.gather(*(broadcaster.once(view(number % 3)) for number in range(12)))

    broadcast(test, render)
    assert len(rendered) == 3
    assert rendered[-1] - rendered[0] >= 2 * 0.05 / sse.SHARE - 0.2


def test_no_more_wait_for_a_rendering_than_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "LEAST_PAUSE", 0.0)

    async def test(broadcaster: Broadcaster) -> None:
        asked = await asyncio.gather(*(broadcaster.once(view(n)) for n in range(50)), return_exceptions=True)
        assert sum(isinstance(each, BusyError) for each in asked) == 50 - sse.ASKING
        assert await broadcaster.once(view(100))

    broadcast(test, lambda params: ({"view": params.model}, 0.0))


def test_a_view_that_is_not_rendered_in_time_is_put_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "PATIENCE", 0.05)
    monkeypatch.setattr(sse, "SAVED", 0.01)

    async def test(broadcaster: Broadcaster) -> None:
        await broadcaster.once(view(1))
        with pytest.raises(BusyError):
            await broadcaster.once(view(2))

    broadcast(test, lambda params: ({"view": params.model}, 60.0))


def test_there_is_no_place_for_further_large_views(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "VIEWED_BYTES", 50_000)

    async def test(broadcaster: Broadcaster) -> None:
        for number in range(2):
            assert not broadcaster.is_full(view(number))
            broadcaster.count(broadcaster.topic(view(number)), 1)
            await broadcaster.once(view(number))
        assert broadcaster.is_full(view(2))
        assert not broadcaster.is_full(view(1)), "it is there already"

    broadcast(test, lambda params: ({"view": "x" * 30_000}, 0.0))


def test_a_budget_is_a_share_and_what_was_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    budget = Budget(0.1, 1.0)
    budget.spend(0.5)
    assert budget.wait() == 0.0
    budget.spend(0.7)
    assert budget.wait() == pytest.approx(2.0)
    now += 100.0
    budget.spend(1.5)
    assert budget.wait() == pytest.approx(5.0), "no more than a second is saved up"


def test_places_refuse_beyond_those_who_wait() -> None:
    async def test() -> None:
        places, release = Places(1, 1), asyncio.Event()

        async def work() -> None:
            async with places.take():
                await release.wait()

        tasks = [asyncio.create_task(work()) for _ in range(3)]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        assert [type(each.exception()) for each in done] == [BusyError]
        release.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with places.take():
            pass

    asyncio.run(test())


def test_points_are_written_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "PIECE", 3)
    series = [
        TimeSeries({"what": "a", "model": "m"}, np.arange(7, dtype=np.int64), np.arange(7) / 4),
        TimeSeries({"what": "b"}, np.empty(0, dtype=np.int64), np.empty(0)),
    ]
    assert b"".join(json_pieces(series)) == (
        b'{"series":[{"names":{"what":"a","model":"m"},"times":[0,1,2,3,4,5,6],'
        b'"values":[0.0,0.25,0.5,0.75,1.0,1.25,1.5]},{"names":{"what":"b"},"times":[],"values":[]}]}'
    )
    assert b"".join(json_pieces([])) == b'{"series":[]}'
    lines = b"".join(csv_pieces(series)).decode().split("\r\n")
    assert (lines[0], len(lines)) == ("time,timestamp,what,model,value", 9)
    assert lines[7] == "1970-01-01T00:00:06+00:00,6,a,m,1.5"
