"""``zmon collect``: run the collector until a signal ends it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import click

from zmon_collector import config as configuration
from zmon_collector import garbage, log_lines
from zmon_collector.cli.options import ADDRESS, CONFIG, ENDPOINT, FAILED, FOLDER, PERIOD, PLUGINS_DIR
from zmon_collector.private_files import writes_rows
from zmon_collector.service import Service

log = logging.getLogger("zmon.collector")

THREADS_WAIT = 2.0  # seconds that threads get to end


@click.command()
@click.option("--config", "path", type=CONFIG, help="Configuration file (zmon.toml).")
@click.option("--bind", type=ENDPOINT, help="Where publishers connect; control is the next port.")
@click.option("--window", type=PERIOD, help="Length of a window, whole seconds.")
@click.option("--data-dir", type=FOLDER, help="Folder for everything written.")
@PLUGINS_DIR
@click.option("--flush-on-exit", is_flag=True, default=None, help="Close and write open windows at the end.")
@click.option("--web", type=ADDRESS, help="Where the live page is served; default 127.0.0.1:8787, or any free port.")
@click.option("--no-web", is_flag=True, help="Do not serve the live page.")
@click.option("--print-config", is_flag=True, help="Print the effective configuration as TOML, and exit.")
@writes_rows
def collect(path: Path | None, print_config: bool, **options: Any) -> None:
    """Receive from publishers, compute metrics, write Anodot JSON files to DATA_DIR/anodot.

    Options on the command line override the file. SIGTERM and Ctrl-C end the collector: open windows stay in the
    journal and continue after a restart, unless --flush-on-exit is given. A second signal ends it at once.
    """
    before = threading.enumerate()
    config = configuration.load(path, **options)
    if print_config:
        click.echo(configuration.dump(config))
        return
    log_lines.begin(logging.INFO, log_lines.SERVICE)
    signals = _Signals()  # before anything listens: whoever sees a port open may send a signal at once
    service = Service(config, read=lambda: configuration.load(path, **options))
    signals.reach(service)
    service.start()
    with garbage.settled():
        service.run()
    code = FAILED if service.failed else 0
    if _is_held(before):
        logging.shutdown()
        os._exit(code)
    sys.exit(code)


def _is_held(before: Collection[threading.Thread]) -> bool:
    """Return whether a thread begun since `before` would keep the interpreter from ending, for which it waits.

    A metric that hangs may hold one, or a disk that does not answer. All that is to be written is written by then.
    """
    until = time.monotonic() + THREADS_WAIT
    for thread in threading.enumerate():
        if thread.daemon or thread in before:
            continue
        thread.join(max(0.0, until - time.monotonic()))
        if thread.is_alive():
            log.warning("the thread %s does not end; the process ends without it", thread.name)
            return True
    return False


class _Signals:
    """Passes signals on to the service; those that come before there is one are remembered.

    SIGTERM and SIGINT end it, a second one ends the process at once. SIGHUP reloads, after the start.
    """

    def __init__(self) -> None:
        self._service: Service | None = None
        self._ending = self._reloading = False
        signal.signal(signal.SIGHUP, self._reload)
        signal.signal(signal.SIGTERM, self._end)
        signal.signal(signal.SIGINT, self._end)

    def reach(self, service: Service) -> None:
        """Pass signals on to this service, with those that came before."""
        self._service = service
        if self._ending:
            service.stop()
        if self._reloading:
            service.request_reload()

    def _end(self, number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        self._ending = True
        if self._service is not None:
            self._service.stop()

    def _reload(self, *_: object) -> None:
        self._reloading = True
        if self._service is not None:
            self._service.request_reload()
