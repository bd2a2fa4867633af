"""A real server process of an example, asked over real connections."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.collectors import Collector
from tests.support.processes import ROOT
from tests.support.waiting import until


class Server:
    """The command a README gives, on a free port, publishing to a collector.

    Parameters
    ----------
    command : sequence of str
        As in the README, without the port.
    options : sequence of str
        How this server is told its port, with ``{port}`` in it.
    """

    def __init__(self, folder: Path, collector: Collector, command: Sequence[str], options: Sequence[str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._log = folder / "server.log"
        endpoint = collector.data
        environment = {**os.environ, "ZMON_COLLECTOR": endpoint, "ZMON_AGENT_ID": "host", "PYTHONWARNINGS": "default"}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command, *(each.format(port=self.port) for each in options)],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until(self._listens, what=f"{command[0]} to listen; it said {self.said()}")

    def _listens(self) -> bool:
        assert self.process.poll() is None, self.said()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def said(self) -> str:
        return self._log.read_text()

    def post(self, path: str, body: Any) -> Any:
        """One request over a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status == 200, (answer.status, text, self.said())
            return json.loads(text)
        finally:
            connection.close()

    def stop(self, number: int) -> str:
        """Ask it to end, by a signal; what it said."""
        self.process.send_signal(number)
        assert self.process.wait(60) in (0, -number), self.said()
        return self.said()

    def kill(self) -> None:
        """End whatever is left of it."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.process.wait(10)
