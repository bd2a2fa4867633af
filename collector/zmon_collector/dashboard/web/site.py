"""The page of one collector: application, hub and server put together."""

from __future__ import annotations

from zmon.errors import ConfigurationError
from zmon_collector.dashboard.live import Live
from zmon_collector.dashboard.web.app import build, probes
from zmon_collector.dashboard.web.renderers import Pages
from zmon_collector.dashboard.web.security import DEFAULT_BIND, split, token_of
from zmon_collector.dashboard.web.server import WebServer
from zmon_collector.dashboard.web.sse import Hub

ANY_PORT = "127.0.0.1:0"


def site(live: Live) -> WebServer:
    """The live page's server, bound and not yet started.

    Raises
    ------
    ConfigurationError
        The address that was given is taken, or a token is required and missing.
    """
    web = live.config.web
    token = token_of(web)
    pages = Pages(live)

    def watch(models: frozenset[str]) -> None:
        live.watched = models

    hub = Hub(pages.render, web.viewers, watch)
    hosts = {split(web.bind or DEFAULT_BIND)[0], *(web.hosts or ())}
    app = build(pages, hub, lambda: live.ready, live.metrics, token, hosts)
    try:
        server = WebServer(app, web.bind or DEFAULT_BIND, "[web]")
    except ConfigurationError:
        if web.bind is not None:
            raise
        server = WebServer(app, ANY_PORT, "[web]")  # another collector has the usual one
    live.changed.append(lambda model: server.call(lambda: hub.mark(model)))
    server.before_stop(hub.close)
    return server


def probe_server(live: Live, bind: str) -> WebServer:
    """/healthz, /readyz and /metrics on their own."""
    return WebServer(probes(lambda: live.ready, live.metrics), bind, "[health]")
