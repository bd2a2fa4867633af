"""The page of one collector: application, hub and server put together."""

from __future__ import annotations

from zmon.errors import ConfigurationError
from zmon_collector.dashboard.live import Live
from zmon_collector.dashboard.web.app import build_app, build_probe_app
from zmon_collector.dashboard.web.renderers import Renderer
from zmon_collector.dashboard.web.security import DEFAULT_BIND, load_token, split_bind
from zmon_collector.dashboard.web.server import WebServer
from zmon_collector.dashboard.web.sse import Broadcaster

ANY_PORT = "127.0.0.1:0"


def site(live: Live) -> WebServer:
    """The live page's server, bound and not yet started.

    Raises
    ------
    ConfigurationError
        The address that was given is taken, or a token is required and missing.
    """
    web = live.config.web
    token = load_token(web)
    renderer = Renderer(live)

    def watch(models: frozenset[str]) -> None:
        live.watched = models

    broadcaster = Broadcaster(renderer.render, web.viewers, watch)
    hosts = {split_bind(web.bind or DEFAULT_BIND)[0], *(web.hosts or ())}
    app = build_app(renderer, broadcaster, lambda: live.ready, live.metrics, token, hosts)
    try:
        server = WebServer(app, web.bind or DEFAULT_BIND, "[web]")
    except ConfigurationError:
        if web.bind is not None:
            raise
        server = WebServer(app, ANY_PORT, "[web]")  # another collector has the usual one
    live.changed.append(lambda model: server.call(lambda: broadcaster.mark(model)))
    server.before_stop(broadcaster.close)
    return server


def probe_server(live: Live, bind: str) -> WebServer:
    """/healthz, /readyz and /metrics on their own."""
    return WebServer(build_probe_app(lambda: live.ready, live.metrics), bind, "[health]")
