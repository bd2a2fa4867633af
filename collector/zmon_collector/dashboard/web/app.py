"""The web application: routes, the page's files, login, and the guard in front."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from zmon_collector.dashboard.plotly_js import plotly_js
from zmon_collector.dashboard.prometheus import CONTENT_TYPE
from zmon_collector.dashboard.theme import TEMPLATES
from zmon_collector.dashboard.web.api import ERRORS, Api
from zmon_collector.dashboard.web.assets import MEDIA_TYPES, Asset
from zmon_collector.dashboard.web.budget import Places
from zmon_collector.dashboard.web.renderers import Renderer
from zmon_collector.dashboard.web.security import COOKIE, Access, Guard, content_security_policy
from zmon_collector.dashboard.web.sse import Broadcaster

STATIC = Path(__file__).parent / "static"
WRONG_TOKEN_PAUSE = 0.5  # seconds
WRONG_TOKENS = 8  # pauses at a time
LONGEST_LOGIN = 4096  # bytes


def build_app(renderer: Renderer, broadcaster: Broadcaster, probes: Sequence[Route], access: Access) -> Guard:
    """Build the page and its API behind the guard."""
    api = Api(renderer, broadcaster)
    wrong = Places(WRONG_TOKENS, 0)
    assets = {path.name: Asset(path) for path in STATIC.iterdir() if path.suffix in MEDIA_TYPES}
    plotly = Asset(plotly_js(), "max-age=86400")

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        broadcaster.start()
        api.start()
        yield
        broadcaster.close()

    async def templates(_: Request) -> Response:
        return JSONResponse(TEMPLATES)

    async def login(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > LONGEST_LOGIN:
                return JSONResponse({"error": "too long"}, 413)
        try:
            given = json.loads(body)["token"]
        except (ValueError, KeyError, TypeError, RecursionError):
            given = None
        if not isinstance(given, str) or not guard.matches(given):
            async with wrong.take():
                await asyncio.sleep(WRONG_TOKEN_PAUSE)
            return JSONResponse({"error": "this is not the token"}, 401)
        response = Response(status_code=204)
        response.set_cookie(
            COOKIE, guard.cookie, httponly=True, samesite="strict", secure=request.url.scheme == "https"
        )
        return response

    routes = [
        Route("/", assets["index.html"], methods=["GET"]),
        Route("/login", login, methods=["POST"]),
        Route("/api/v1/models", api.models),
        Route("/api/v1/series", api.series),
        Route("/api/v1/points", api.points),
        Route("/api/v1/view", api.view),
        Route("/api/v1/events", api.events),
        Route("/api/v1/alerts", api.alerts),
        Route("/api/v1/health", api.health),
        *probes,
        Route("/openapi.json", api.openapi),
        Route("/static/plotly.js", plotly, methods=["GET"]),
        Route("/static/templates.json", templates),
        Mount("/static", routes=[Route(f"/{name}", asset, methods=["GET"]) for name, asset in assets.items()]),
    ]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=ERRORS)
    guard = Guard(app, access, content_security_policy(plotly.content.decode()))
    return guard


def probe_routes(
    ready: Callable[[], bool], metrics: Callable[[], bytes], failures: Callable[[], list[str]] = list
) -> list[Route]:
    """Return /healthz, /readyz and /metrics, for an orchestrator and Prometheus.

    Parameters
    ----------
    ready, metrics : callable
    failures : callable
        Returns why the collector cannot do its job.
    """

    async def healthz(_: Request) -> Response:
        reasons = failures()
        if reasons:
            return JSONResponse({"status": "failing", "reasons": reasons}, 503)
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        is_ready = ready()
        return JSONResponse({"status": "ready" if is_ready else "not ready"}, 200 if is_ready else 503)

    def text(_: Request) -> Response:  # not a coroutine, so Starlette runs it in a worker thread
        return Response(metrics(), media_type=CONTENT_TYPE)

    return [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", text)]
