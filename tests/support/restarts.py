"""A collector that is started on the folder of an earlier one, and a publisher that knew it, played step by step."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from tests.support.leftovers import FEATURES, SCHEMA, Leftover
from tests.support.ports import free_port
from tests.support.processes import environment
from zmon._wire.control import Ack, decode_ack, encode_greeting
from zmon._wire.frames import Topic, encode_batch, encode_schema, encode_schema_message, schema_hash

PATIENCE = 120.0  # seconds


class Caller:
    """A publisher, step by step; all its rows up to `row` are acknowledged."""

    def __init__(self, data: str, control: str, stream: bytes, topic: Topic, row: int, store: bytes = b"") -> None:
        self._context = zmq.Context()
        self._control = self._context.socket(zmq.DEALER)
        self._data = self._context.socket(zmq.PUB)
        for socket in (self._control, self._data):
            socket.setsockopt(zmq.RECONNECT_IVL, 10)
            socket.setsockopt(zmq.LINGER, 0)
        self._data.connect(data)
        self._control.connect(control)
        self._stream, self._topic, self._row, self._store = stream, topic.encode(), row, store

    def hello(self) -> Ack:
        """Send a hello, and return the answer."""
        common: dict[str, Any] = {"base": self._row + 1, "acked": self._row, "issued": self._row, "tally": {}}
        self._control.send(encode_greeting(
            "hello", topic=self._topic, stream=self._stream, clock=time.time_ns(), store=self._store, counted={},
            **common,
        ))  # fmt: skip
        assert self._control.poll(PATIENCE * 1000), "no answer"
        return decode_ack(self._control.recv())

    def publish(self, rows: int) -> Ack:
        """Send rows, again and again as a publisher does, until they are acknowledged."""
        body = encode_schema(SCHEMA)
        arrays = [("probabilities", "<f4", [rows, 2]), ("inputs", "<f4", [rows, FEATURES])]
        buffers = [np.full((rows, 2), 0.5, "f4").tobytes(), np.zeros((rows, FEATURES), "f4").tobytes()]
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            self._data.send_multipart(encode_schema_message(self._topic, self._stream, body))
            self._data.send_multipart(encode_batch(
                self._topic, stream=self._stream, schema=schema_hash(body), first=self._row + 1, rows=rows,
                base=self._row + 1, ts=time.time_ns(), arrays=arrays, buffers=buffers, tally={},
            ))  # fmt: skip
            while self._control.poll(100):
                ack = decode_ack(self._control.recv())
                if ack.row >= self._row + rows:
                    self._row += rows
                    return ack
        raise AssertionError("the rows are not acknowledged")

    def close(self) -> None:
        self._context.destroy(0)


class Restart:
    """A start on a folder; seconds, of the clock and of the processor, until it is bound, answers, and takes rows.

    The publisher is the first one of the second model, which `leftovers.damage` spares.
    """

    def __init__(self, folder: Path, what: Leftover, *arguments: str) -> None:
        port, model = free_port(), 1 % (what.models or 1)
        data, control = f"tcp://127.0.0.1:{port}", f"tcp://127.0.0.1:{port + 1}"
        topic = Topic(f"model-{model:04}", "", "agent-000")
        self.log = folder.with_name(f"{folder.name}.log")
        self.caller = Caller(data, control, what.stream(model, 0), topic, what.rows)
        self.figures: dict[str, float] = {}
        with self.log.open("wb") as log:
            began = time.monotonic()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "zmon_collector", "collect", "--bind", data, "--no-web", *arguments,
                 "--data-dir", str(folder)],
                stderr=log, env=environment(),
            )  # fmt: skip
        try:
            while not (folder / "admin.sock").exists():
                assert self.process.poll() is None, self.log.read_text()
                time.sleep(0.005)
            self._note("bound", began)
            self.caller.hello()
            self._note("hello", began)
            self.caller.publish(10)
            self._note("rows", began)
        except BaseException:
            self.end()
            raise

    def _note(self, name: str, began: float) -> None:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        used = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        self.figures |= {f"{name}_s": time.monotonic() - began, f"{name}_cpu_s": used}

    def end(self) -> None:
        self.caller.close()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
