"""The HTTP API: one function a route, all of them described in openapi.py."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from zmon_collector.dashboard.history_queries import PointQuery, TooMuch
from zmon_collector.dashboard.timeseries import TimeSeries
from zmon_collector.dashboard.web import openapi
from zmon_collector.dashboard.web.query_params import NAMES, BadRequest, asked, whole
from zmon_collector.dashboard.web.renderers import Pages
from zmon_collector.dashboard.web.sse import EventStream, Hub, written

MOST_SERIES = 1000
FORMULA = tuple("=+-@\t\r")  # a spreadsheet would compute a text that begins so


class Api:
    """The routes' functions.

    Parameters
    ----------
    pages : Pages
    hub : Hub
    ready : callable
        Whether the collector is at work.
    """

    def __init__(self, pages: Pages, hub: Hub, ready: Callable[[], bool]) -> None:
        self._pages, self._hub, self._ready = pages, hub, ready

    async def models(self, request: Request) -> Response:
        return _json({"models": await asyncio.to_thread(self._pages.models)})

    async def series(self, request: Request) -> Response:
        query = request.query_params
        model = _needed(query.get("model"), "model")
        limit = min(whole(query, "limit") or 200, MOST_SERIES)
        version, search = query.get("version"), query.get("q", "")[:200]
        return _json({"series": await asyncio.to_thread(self._pages.series, model, version, search, limit)})

    async def points(self, request: Request) -> Response:
        query = request.query_params
        question = PointQuery(
            _needed(query.get("model"), "model"),
            query.get("version"),
            agents=None if query.get("agent") == "*" else (query.get("agent", ""),),
            what=tuple(_needed(query.get("what"), "what").split(",")),
            stat=tuple(query["stat"].split(",")) if "stat" in query else None,
            names={name: query[name] for name in NAMES if query.get(name)},
            start=whole(query, "from") or 0,
            end=whole(query, "to") or 2**62,
            step=whole(query, "step") or 0,
        )
        lines = await asyncio.to_thread(self._pages.points, question)
        if query.get("format") == "csv":
            text = await asyncio.to_thread(as_csv, lines)
            headers = {"content-disposition": 'attachment; filename="zmon-points.csv"'}
            return Response(text, media_type="text/csv", headers=headers)
        return _json({"series": [_plain(line) for line in lines]})

    async def view(self, request: Request) -> Response:
        return Response(await self._hub.once(asked(request.query_params)), media_type="application/json")

    async def alerts(self, request: Request) -> Response:
        return _json({"alerts": self._pages.alerts()})

    async def health(self, request: Request) -> Response:
        return _json(self._pages.health())

    async def events(self, request: Request) -> ASGIApp:
        """Live: a stream of views."""
        if self._hub.full:
            return JSONResponse({"error": "too many viewers: [web] viewers"}, 503, headers={"retry-after": "10"})
        seen = request.headers.get("last-event-id", "")
        return EventStream(self._hub, asked(request.query_params), int(seen) if seen.isdecimal() else None)

    async def healthz(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        ready = self._ready()
        return JSONResponse({"status": "ready" if ready else "not ready"}, 200 if ready else 503)

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(openapi.DOCUMENT)


async def refused(request: Request, error: Exception) -> Response:
    """What a wrong question is answered with."""
    return JSONResponse({"error": str(error)}, 413 if isinstance(error, TooMuch) else 400)


ERRORS = {BadRequest: refused, TooMuch: refused}


def _json(data: Any) -> Response:
    return Response(written(data), media_type="application/json")


def _needed(value: str | None, name: str) -> str:
    if not value:
        raise BadRequest(f"{name} is missing")
    return value


def _plain(line: TimeSeries) -> dict[str, Any]:
    return {"names": line.names, "times": line.times.tolist(), "values": line.values.tolist()}


def as_csv(lines: Sequence[TimeSeries]) -> str:
    """One point a line, a column for each name that occurs."""
    columns = list(dict.fromkeys(name for line in lines for name in line.names))
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["time", "timestamp", *columns, "value"])
    for line in lines:
        names = [_cell(line.get(name)) for name in columns]
        writer.writerows(_rows(line, names))
    return out.getvalue()


def _rows(line: TimeSeries, names: list[str]) -> Iterable[list[Any]]:
    for time, value in zip(line.times.tolist(), line.values.tolist(), strict=True):
        yield [datetime.fromtimestamp(time, UTC).isoformat(), time, *names, value]


def _cell(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA) else text
