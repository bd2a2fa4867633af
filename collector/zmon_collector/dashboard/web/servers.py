"""The page's and the probes' servers, put together and bound. Imports the web server, which takes time and memory."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.routing import Route

from zmon.errors import ConfigurationError
from zmon_collector.dashboard.live import Live
from zmon_collector.dashboard.web.app import build_app
from zmon_collector.dashboard.web.connections import descriptor_share
from zmon_collector.dashboard.web.renderers import Renderer
from zmon_collector.dashboard.web.security import DEFAULT_BIND, Access, load_token, refuse_foreign, split_bind
from zmon_collector.dashboard.web.server import WebServer
from zmon_collector.dashboard.web.sse import Broadcaster
from zmon_collector.telemetry import Telemetry

ANY_PORT = "127.0.0.1:0"
NOT_VIEWERS = 64  # connections to the page besides those of live viewers
PAGE_SHARE, PROBE_SHARE = 4, 16  # one part in so many of the descriptors
PROBES = 64  # connections to the probes


def page_server(live: Live, probes: Sequence[Route], telemetry: Telemetry) -> WebServer:
    """Bind the page with its API.

    Raises
    ------
    ConfigurationError
        The configured address is taken, or a token is required and missing.
    """
    web = live.config.web
    access = Access(load_token(web), {split_bind(web.bind or DEFAULT_BIND)[0], *(web.hosts or ())})
    most = min(web.viewers + NOT_VIEWERS, descriptor_share(PAGE_SHARE))
    renderer = Renderer(live, live.wall)
    broadcaster = Broadcaster(renderer.render, min(web.viewers, most * 3 // 4), live.watch)
    app = build_app(renderer, broadcaster, probes, access)
    try:
        server = WebServer(app, web.bind or DEFAULT_BIND, "web", telemetry, most)
    except ConfigurationError:
        if web.bind is not None:
            raise
        # Another collector on this machine has the default port.
        server = WebServer(app, ANY_PORT, "web", telemetry, most)
    live.subscribe(lambda model: server.call(lambda: broadcaster.mark(model)))
    server.before_stop(broadcaster.close)
    return server


def probe_server(bind: str, probes: Sequence[Route], telemetry: Telemetry) -> WebServer:
    """Bind /healthz, /readyz and /metrics on their own."""
    most = min(PROBES, descriptor_share(PROBE_SHARE))
    return WebServer(refuse_foreign(Starlette(routes=probes)), bind, "health", telemetry, most)
