"""The site of one collector: the page with its API, and the probes, whichever the configuration has."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from zmon_collector.dashboard.live import Live
from zmon_collector.dashboard.prometheus import MetricsPage
from zmon_collector.telemetry import Telemetry

if TYPE_CHECKING:
    from zmon_collector.dashboard.web.server import WebServer

log = logging.getLogger("zmon.collector")


class Site:
    """Serves the page and the probes from `start` to `stop`.

    Parameters
    ----------
    live : Live
    metrics : MetricsPage
    telemetry : Telemetry
    failures : callable
        Returns why the collector cannot do its job, for /healthz. It must answer whatever the collector's thread does.
    """

    def __init__(
        self, live: Live, metrics: MetricsPage, telemetry: Telemetry, failures: Callable[[], list[str]] = list
    ) -> None:
        self.ready = False  # as /readyz answers
        self.page: WebServer | None = None
        self.probes: WebServer | None = None
        self._live = live
        self._metrics = metrics
        self._telemetry = telemetry
        self._failures = failures

    @property
    def servers(self) -> list[WebServer]:
        """The servers that were started."""
        return [server for server in (self.page, self.probes) if server is not None]

    @property
    def url(self) -> str:
        """The page's address; empty without a page."""
        return self.page.url if self.page is not None else ""

    def start(self) -> None:
        """Bind, and answer requests before it is ready.

        Raises
        ------
        ConfigurationError
            An address is taken, or a token is missing.
        """
        web, health = self._live.config.web, self._live.config.health
        if web.enabled or health.bind is not None:
            from zmon_collector.dashboard.web import app, servers  # only who serves something pays for a web server

            probes = app.probe_routes(lambda: self.ready, self._metrics.text, self._failures)
            if web.enabled:
                self.page = servers.page_server(self._live, probes, self._telemetry)
                self.page.start()
                log.info("live page on %s", self.url)
            if health.bind is not None:
                self.probes = servers.probe_server(health.bind, probes, self._telemetry)
                self.probes.start()

    def stop(self) -> None:
        """Disconnect viewers and end."""
        self.ready = False
        for server in self.servers:
            server.stop()
