"""The web servers of one collector: the page with its API, and the probes."""

from __future__ import annotations

import logging

from zmon.errors import ConfigurationError
from zmon_collector.dashboard.live import Live
from zmon_collector.dashboard.prometheus import MetricsPage
from zmon_collector.dashboard.web.app import build_app, build_probe_app
from zmon_collector.dashboard.web.renderers import Renderer
from zmon_collector.dashboard.web.security import DEFAULT_BIND, Access, load_token, split_bind
from zmon_collector.dashboard.web.server import WebServer
from zmon_collector.dashboard.web.sse import Broadcaster

log = logging.getLogger("zmon.collector")

ANY_PORT = "127.0.0.1:0"


class Site:
    """Serves the page and the probes, whichever the configuration has, from `start` to `stop`.

    Raises
    ------
    ConfigurationError
        A configured address is taken, or a token is required and missing.
    """

    def __init__(self, live: Live, metrics: MetricsPage) -> None:
        web, health = live.config.web, live.config.health
        self.ready = False  # as /readyz says
        self.page = self._bind_page(live, metrics) if web.enabled else None
        self.probes: WebServer | None = None
        if health.bind is not None:
            app = build_probe_app(lambda: self.ready, metrics.text)
            self.probes = WebServer(app, health.bind, "[health]")

    @property
    def url(self) -> str:
        """The page's address; empty without a page."""
        return self.page.url if self.page is not None else ""

    def start(self) -> None:
        """Answer requests."""
        if self.page is not None:
            self.page.start()
            log.info("live page on %s", self.url)
        if self.probes is not None:
            self.probes.start()
        self.ready = True

    def stop(self) -> None:
        """Disconnect viewers and end."""
        self.ready = False
        for server in (self.page, self.probes):
            if server is not None:
                server.stop()

    def _bind_page(self, live: Live, metrics: MetricsPage) -> WebServer:
        web = live.config.web
        access = Access(load_token(web), {split_bind(web.bind or DEFAULT_BIND)[0], *(web.hosts or ())})
        renderer = Renderer(live)
        broadcaster = Broadcaster(renderer.render, web.viewers, live.watch)
        app = build_app(renderer, broadcaster, lambda: self.ready, metrics.text, access)
        try:
            server = WebServer(app, web.bind or DEFAULT_BIND, "[web]")
        except ConfigurationError:
            if web.bind is not None:
                raise
            server = WebServer(app, ANY_PORT, "[web]")  # another collector on this machine has the default port
        live.subscribe(lambda model: server.call(lambda: broadcaster.mark(model)))
        server.before_stop(broadcaster.close)
        return server
