"""The page's and the probes' servers, put together and bound. Imports the web server, which takes time and memory."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.routing import Route

from zmon.errors import ConfigurationError
from zmon_collector.dashboard.live import Live
from zmon_collector.dashboard.web.app import build_app
from zmon_collector.dashboard.web.renderers import Renderer
from zmon_collector.dashboard.web.security import DEFAULT_BIND, Access, load_token, split_bind
from zmon_collector.dashboard.web.server import WebServer
from zmon_collector.dashboard.web.sse import Broadcaster
from zmon_collector.telemetry import Telemetry

ANY_PORT = "127.0.0.1:0"


def page_server(live: Live, probes: Sequence[Route], telemetry: Telemetry) -> WebServer:
    """Bind the page with its API.

    Raises
    ------
    ConfigurationError
        The configured address is taken, or a token is required and missing.
    """
    web = live.config.web
    access = Access(load_token(web), {split_bind(web.bind or DEFAULT_BIND)[0], *(web.hosts or ())})
    renderer = Renderer(live, live.wall)
    broadcaster = Broadcaster(renderer.render, web.viewers, live.watch)
    app = build_app(renderer, broadcaster, probes, access)
    try:
        server = WebServer(app, web.bind or DEFAULT_BIND, "web", telemetry)
    except ConfigurationError:
        if web.bind is not None:
            raise
        server = WebServer(app, ANY_PORT, "web", telemetry)  # another collector on this machine has the default port
    live.subscribe(lambda model: server.call(lambda: broadcaster.mark(model)))
    server.before_stop(broadcaster.close)
    return server


def probe_server(bind: str, probes: Sequence[Route], telemetry: Telemetry) -> WebServer:
    """Bind /healthz, /readyz and /metrics on their own."""
    return WebServer(Starlette(routes=probes), bind, "health", telemetry)
