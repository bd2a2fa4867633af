"""The HTTP API: one function per route, described in openapi.py."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from zmon_collector.dashboard.history_queries import PointQuery, QueryTooLargeError
from zmon_collector.dashboard.web import openapi
from zmon_collector.dashboard.web.budget import BusyError, Places
from zmon_collector.dashboard.web.exports import Export, csv_pieces, json_pieces
from zmon_collector.dashboard.web.query_params import (
    NAMES,
    BadRequestError,
    check_lengths,
    parse_list,
    parse_query,
    parse_seconds,
)
from zmon_collector.dashboard.web.renderers import Renderer
from zmon_collector.dashboard.web.sse import Broadcaster, EventStream, to_json

MOST_SERIES = 1000
QUERIES, QUERIES_WAITING = 2, 32  # that read the history
EXPORTS, EXPORTS_WAITING = 3, 16  # answers with points, each of which holds them until it is read
DOWNLOAD = 'attachment; filename="zmon-points.csv"'
RETRY = {"retry-after": "1"}
LONGEST_NUMBER = 19  # digits


class Api:
    """The functions of the routes.

    Parameters
    ----------
    renderer : Renderer
    broadcaster : Broadcaster
    """

    def __init__(self, renderer: Renderer, broadcaster: Broadcaster) -> None:
        self._renderer, self._broadcaster = renderer, broadcaster
        self.start()

    def start(self) -> None:
        """Begin in a loop, without the places that were taken in an earlier one."""
        self._queries, self._exports = Places(QUERIES, QUERIES_WAITING), Places(EXPORTS, EXPORTS_WAITING)

    async def models(self, request: Request) -> Response:
        async with self._queries.take():
            return _json({"models": await asyncio.to_thread(self._renderer.models)})

    async def series(self, request: Request) -> Response:
        params = request.query_params
        check_lengths(params)
        model = _required(params.get("model"), "model")
        limit = min(parse_seconds(params, "limit") or 200, MOST_SERIES)
        version, search = params.get("version"), params.get("q", "")[:200]
        async with self._queries.take():
            return _json({"series": await asyncio.to_thread(self._renderer.series, model, version, search, limit)})

    async def points(self, request: Request) -> ASGIApp:
        params = request.query_params
        check_lengths(params)
        query = PointQuery(
            _required(params.get("model"), "model"),
            params.get("version"),
            agents=None if params.get("agent") == "*" else (params.get("agent", ""),),
            what=parse_list(_required(params.get("what"), "what"), "what"),
            stat=parse_list(params["stat"], "stat") if "stat" in params else None,
            names={name: params[name] for name in NAMES if params.get(name)},
            start=parse_seconds(params, "from") or 0,
            end=parse_seconds(params, "to") or 2**62,
            step=parse_seconds(params, "step") or 0,
        )
        async with AsyncExitStack() as places:
            await places.enter_async_context(self._exports.take())
            async with self._queries.take():
                series = await asyncio.to_thread(self._renderer.points, query)
            if params.get("format") == "csv":
                headers = {"content-type": "text/csv; charset=utf-8", "content-disposition": DOWNLOAD}
                return Export(csv_pieces(series), headers, places.pop_all())
            return Export(json_pieces(series), {"content-type": "application/json"}, places.pop_all())

    async def view(self, request: Request) -> Response:
        return Response(await self._broadcaster.once(parse_query(request.query_params)), media_type="application/json")

    async def alerts(self, request: Request) -> Response:
        return _json({"alerts": self._renderer.alerts()})

    async def health(self, request: Request) -> Response:
        return _json(self._renderer.health())

    async def events(self, request: Request) -> ASGIApp:
        """Stream a view whenever it changes."""
        params = parse_query(request.query_params)
        if self._broadcaster.is_full(params):
            return JSONResponse({"error": "too many viewers: [web] viewers"}, 503, headers={"retry-after": "10"})
        seen = request.headers.get("last-event-id", "")
        is_number = seen.isascii() and seen.isdigit() and len(seen) <= LONGEST_NUMBER
        return EventStream(self._broadcaster, params, int(seen) if is_number else None)

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(openapi.DOCUMENT)


async def refuse(request: Request, error: Exception) -> Response:
    """Return the response to a query that cannot be answered."""
    return JSONResponse({"error": str(error)}, 413 if isinstance(error, QueryTooLargeError) else 400)


async def put_off(request: Request, error: Exception) -> Response:
    """Return the response to a request for which there is no place."""
    return JSONResponse({"error": "too many requests at a time; try again in a second"}, 503, headers=RETRY)


ERRORS = {BadRequestError: refuse, QueryTooLargeError: refuse, BusyError: put_off}


def _json(data: Any) -> Response:
    return Response(to_json(data), media_type="application/json")


def _required(value: str | None, name: str) -> str:
    if not value:
        raise BadRequestError(f"{name} is missing")
    return value
