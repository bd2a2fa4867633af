"""The HTTP API: one function per route, described in openapi.py."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from zmon_collector.dashboard.history_queries import PointQuery, QueryTooLargeError
from zmon_collector.dashboard.timeseries import TimeSeries
from zmon_collector.dashboard.web import openapi
from zmon_collector.dashboard.web.query_params import NAMES, BadRequestError, parse_query, parse_seconds
from zmon_collector.dashboard.web.renderers import Renderer
from zmon_collector.dashboard.web.sse import Broadcaster, EventStream, to_json

MOST_SERIES = 1000
FORMULA = tuple("=+-@＝＋－＠\t\r\n")  # a spreadsheet computes a cell that begins with one of these


class Api:
    """The functions of the routes.

    Parameters
    ----------
    renderer : Renderer
    broadcaster : Broadcaster
    """

    def __init__(self, renderer: Renderer, broadcaster: Broadcaster) -> None:
        self._renderer, self._broadcaster = renderer, broadcaster

    async def models(self, request: Request) -> Response:
        return _json({"models": await asyncio.to_thread(self._renderer.models)})

    async def series(self, request: Request) -> Response:
        params = request.query_params
        model = _required(params.get("model"), "model")
        limit = min(parse_seconds(params, "limit") or 200, MOST_SERIES)
        version, search = params.get("version"), params.get("q", "")[:200]
        return _json({"series": await asyncio.to_thread(self._renderer.series, model, version, search, limit)})

    async def points(self, request: Request) -> Response:
        params = request.query_params
        query = PointQuery(
            _required(params.get("model"), "model"),
            params.get("version"),
            agents=None if params.get("agent") == "*" else (params.get("agent", ""),),
            what=tuple(_required(params.get("what"), "what").split(",")),
            stat=tuple(params["stat"].split(",")) if "stat" in params else None,
            names={name: params[name] for name in NAMES if params.get(name)},
            start=parse_seconds(params, "from") or 0,
            end=parse_seconds(params, "to") or 2**62,
            step=parse_seconds(params, "step") or 0,
        )
        series = await asyncio.to_thread(self._renderer.points, query)
        if params.get("format") == "csv":
            text = await asyncio.to_thread(as_csv, series)
            headers = {"content-disposition": 'attachment; filename="zmon-points.csv"'}
            return Response(text, media_type="text/csv", headers=headers)
        return _json({"series": [_plain(ts) for ts in series]})

    async def view(self, request: Request) -> Response:
        return Response(await self._broadcaster.once(parse_query(request.query_params)), media_type="application/json")

    async def alerts(self, request: Request) -> Response:
        return _json({"alerts": self._renderer.alerts()})

    async def health(self, request: Request) -> Response:
        return _json(self._renderer.health())

    async def events(self, request: Request) -> ASGIApp:
        """Stream a view whenever it changes."""
        if self._broadcaster.full:
            return JSONResponse({"error": "too many viewers: [web] viewers"}, 503, headers={"retry-after": "10"})
        seen = request.headers.get("last-event-id", "")
        return EventStream(
            self._broadcaster, parse_query(request.query_params), int(seen) if seen.isdecimal() else None
        )

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(openapi.DOCUMENT)


async def refuse(request: Request, error: Exception) -> Response:
    """Return the response to a query that cannot be answered."""
    return JSONResponse({"error": str(error)}, 413 if isinstance(error, QueryTooLargeError) else 400)


ERRORS = {BadRequestError: refuse, QueryTooLargeError: refuse}


def _json(data: Any) -> Response:
    return Response(to_json(data), media_type="application/json")


def _required(value: str | None, name: str) -> str:
    if not value:
        raise BadRequestError(f"{name} is missing")
    return value


def _plain(ts: TimeSeries) -> dict[str, Any]:
    return {"names": ts.names, "times": ts.times.tolist(), "values": ts.values.tolist()}


def as_csv(series: Sequence[TimeSeries]) -> str:
    """Write one point per line, with a column for each name that occurs."""
    columns = list(dict.fromkeys(name for ts in series for name in ts.names))
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["time", "timestamp", *columns, "value"])
    for ts in series:
        names = [_cell(ts.get(name)) for name in columns]
        for time, value in zip(ts.times.tolist(), ts.values.tolist(), strict=True):
            writer.writerow([datetime.fromtimestamp(time, UTC).isoformat(), time, *names, value])
    return out.getvalue()


def _cell(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA) else text
