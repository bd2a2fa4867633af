"""MLWatcher's agent, with the API that its users call, on top of zmon: change the import and nothing else."""

from __future__ import annotations

import atexit
import importlib.util
import logging
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from zmon._main import NEEDED
from zmon.errors import ConfigurationError, MissingExtraError
from zmon.publisher import Publisher

log = logging.getLogger("zmon")

DATA_DIR = Path("zmon-data")
LOOPBACK = ("127.0.0.1", "localhost")
LAST_ROWS = 10.0  # seconds for the local collector to acknowledge the last rows: it may be busy
START_WITHIN = 30.0  # seconds for the local collector to listen: the machine may be busy
STOP_AFTER = 15.0  # seconds for the local collector to write its last windows


class MonitoringAgent:
    """Publishes a classifier's predictions under the names of MLWatcher's series.

    The publisher's model and agent are both named `agent_id`. Use `zmon.Publisher` for what this does not offer:
    rollups over replicas, model versions, ids, timestamps, class names.

    Parameters
    ----------
    frequency : float
        Window length in minutes, for the collector that `run_local_server` starts; a whole number of seconds.
    max_buffer_size : int
        Rows of a window that this collector keeps for quantiles. Counts, means and scores are of all rows.
    n_classes : int
        Columns of the probabilities; at least 2.
    agent_id : str
        Name of this model.
    server_IP : str
        Host of the collector.
    server_port : int
        Data port of the collector; its control port is the next one.

    Raises
    ------
    ConfigurationError
        If an argument is wrong.

    Examples
    --------
    >>> agent = MonitoringAgent(frequency=5, max_buffer_size=500, n_classes=3, server_port=59998)
    >>> agent.collect_data(predict_proba_matrix=np.array([[0.7, 0.2, 0.1]]), label_matrix=np.array([[1, 0, 0]]))
    """

    def __init__(
        self,
        frequency: float,
        max_buffer_size: int,
        n_classes: int,
        agent_id: str = "1",
        server_IP: str = "127.0.0.1",  # noqa: N803 - the name its users type
        server_port: int = 8000,
    ) -> None:
        try:
            self._window, self._sample_rows = round(frequency * 60), int(max_buffer_size)
        except (TypeError, ValueError):
            self._window = self._sample_rows = 0
        if self._window < 1 or self._sample_rows < 1:
            raise ConfigurationError(
                f"frequency is {frequency!r} and max_buffer_size is {max_buffer_size!r}; "
                "they must be minutes, at least 1/60, and rows, at least 1"
            )
        self._host, self._port = server_IP, server_port
        self._server: subprocess.Popen[bytes] | None = None
        self._n_classes = n_classes
        self._publisher = Publisher(
            str(agent_id), classes=n_classes, agent_id=str(agent_id), collector=f"tcp://{server_IP}:{server_port}"
        )

    def collect_data(
        self, predict_proba_matrix: Any, input_matrix: Any = None, label_matrix: Any = None, threshold: float = 0.5
    ) -> None:
        """Publish one batch. Return at once, never raise.

        Parameters
        ----------
        predict_proba_matrix : array_like or DataFrame
            (n, n_classes) probabilities. None publishes nothing.
        input_matrix : array_like or DataFrame, optional
            (n, n_features) numbers; the features are named feat_0, feat_1, …
        label_matrix : array_like or DataFrame, optional
            (n, n_classes) with a single 1 per row, or (n,) or (n, 1) class indices.
        threshold : float
            With two classes, class 1 is predicted if its probability is above this.
        """
        if predict_proba_matrix is None:
            return
        try:
            # As arrays, because frames would bring the names of their columns along.
            probabilities = np.asarray(predict_proba_matrix)
            inputs = None if input_matrix is None else np.asarray(input_matrix)
            predictions = None
            if threshold != 0.5 and self._n_classes == 2 and probabilities.ndim == 2 and probabilities.shape[1] == 2:
                predictions = (probabilities[:, 1] > threshold).astype(np.int64)
        except Exception as error:  # noqa: BLE001 - ragged lists or a bad threshold must not stop the model
            self._publisher.reject("matrix_invalid", f"{type(error).__name__}: {error}")
            return
        self._publisher.publish(probabilities, inputs, label_matrix, predictions=predictions)

    def run_local_server(self, n_sockets: int = 5) -> None:
        """Start a collector on this host that ends with this process, unless something already listens at the port.

        It writes Anodot files to ``zmon-data/anodot`` in the working directory. Returns when the collector listens,
        which takes a second or two; if it cannot start, the log says so and nothing is raised.

        Parameters
        ----------
        n_sockets : int
            Has no effect: a collector accepts any number of agents.

        Raises
        ------
        MissingExtraError
            If the collector is not installed.
        """
        if self._host not in LOOPBACK:
            log.warning("zmon: run_local_server ignored: server_IP is %s; run `zmon collect` on that host", self._host)
            return
        if self._listens():
            log.info("zmon: a collector already listens at %s:%s", self._host, self._port)
            return
        for module in sorted(NEEDED):
            if importlib.util.find_spec(module) is None:
                raise MissingExtraError(f"{module}, which run_local_server needs,", "collector")
        DATA_DIR.mkdir(mode=0o700, exist_ok=True)
        config = DATA_DIR / "mlwatcher.toml"
        earlier = config.read_text() if config.exists() else None
        config.write_text(
            f'[collector]\nbind = "tcp://127.0.0.1:{self._port}"\nwindow = "{self._window}s"\n'
            f'data_dir = "{DATA_DIR}"\nsample_rows = {self._sample_rows}\n'
        )
        # In its own session: Ctrl-C then ends the model only, and the model's last rows still reach the collector.
        self._server = subprocess.Popen(
            [sys.executable, "-m", "zmon_collector", "collect", "--config", str(config), "--flush-on-exit"],
            start_new_session=True,
        )
        atexit.register(self._stop_server, os.getpid())
        deadline = time.monotonic() + START_WITHIN
        while not self._listens() and self._server.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        code = self._server.poll()
        if code is None:
            log.info("zmon: collector %s serves 127.0.0.1:%s", self._server.pid, self._port)
        else:
            self._server = None
            if earlier is not None:
                config.write_text(earlier)  # another agent's, whose collector may read it again
            log.error(
                "zmon: the collector for 127.0.0.1:%s ended with code %s; it printed the reason. If another agent runs "
                "in this folder, give both the same server_port: one collector serves them all",
                self._port,
                code,
            )

    def _listens(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            return probe.connect_ex((self._host, self._port)) == 0

    def _stop_server(self, owner: int) -> None:
        if self._server is None or os.getpid() != owner:  # a forked child leaves its parent's collector alone
            return
        self._publisher.close(LAST_ROWS)
        self._server.terminate()
        try:
            self._server.wait(STOP_AFTER)
        except subprocess.TimeoutExpired:
            log.warning("zmon: collector %s is still writing; it ends by itself when done", self._server.pid)
