"""How the publisher's process ends: by itself, by a signal, with a collector that is away, slow or stopped."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest

from tests.host.conftest import Start
from tests.support.collectors import Collector, delivered, received
from tests.support.peer import Peer
from tests.support.processes import ROOT

NOBODY = "tcp://127.0.0.1:59996"

ENDS = {
    "the end of the script": "",
    "sys.exit": "sys.exit(3)",
    "an error": "sys.excepthook = lambda *_: None\nraise RuntimeError('broken')",
    "sys.exit under threads": "threading.Thread(target=time.sleep, args=(1e6,), daemon=True).start()",
    "publishing at exit": "import atexit; atexit.register(lambda: one.publish(TEN))",
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_without_a_collector_a_process_ends_in_less_than_a_second(end: str, child: Start) -> None:
    took: list[float] = []
    while len(took) < 3 and min(took, default=1.0) >= 1.0:  # a machine that stands still says nothing
        one = child(NOBODY, f"one = publisher()\none.publish(TEN)\nprint(time.monotonic(), flush=True)\n{end}\n")
        began = float(one.end())
        took.append(time.monotonic() - began)
    assert min(took) < 1.0


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_with_a_collector_a_process_delivers_at_its_end(end: str, collector: Collector, child: Start) -> None:
    child(collector.data, f"one = publisher()\nfor _ in range(100):\n    one.publish(TEN)\n{end}\n").end()
    delivered(collector, 1000 + (10 if "atexit" in end else 0))


def test_sigterm_that_ends_the_interpreter_delivers(collector: Collector, child: Start) -> None:
    one = child(
        collector.data,
        """
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        one = publisher()
        for _ in range(100):
            one.publish(TEN)
        print("published", flush=True)
        while True:
            time.sleep(1)
        """,
    )
    assert one.line() == "published"
    one.process.terminate()
    one.end()
    assert one.process.returncode == 0
    delivered(collector, 1000)


def test_a_collector_that_is_slow_to_answer_gets_what_is_left(tmp_path: Path, child: Start) -> None:
    """A process that lives for a moment only waits for the subscription once the connection is up."""
    peer = Peer(str(tmp_path / "z"))
    one = child(peer.endpoint, "one = publisher()\none.publish(TEN)\nprint('published', flush=True)")
    assert one.line() == "published"
    time.sleep(0.8)  # twice what it gives a collector that is not there
    peer.ack(peer.greeting("hello").stream, 0)
    (rows,) = [each.rows for each in peer.messages() if each.kind == "batch"]
    assert rows == 10
    one.end()
    peer.close()
    peer.context.term()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_process_loses_what_was_not_acknowledged_and_nothing_else(
    number: int, collector: Collector, child: Start
) -> None:
    one = child(
        collector.data,
        """
        one = publisher()
        for _ in range(50):
            one.publish(TEN)
        assert one.flush(60)
        for _ in range(2000):
            one.publish(TEN)
        os.kill(os.getpid(), int(sys.argv[2]))
        """,
        str(int(number)),
    )
    one.end()
    assert one.process.returncode == -number
    again = child(collector.data, "one = publisher()\none.publish(TEN)\nassert one.flush(60)\nprint('ok')")
    assert again.end().strip() == "ok"
    collector.stop()
    rows = received(collector)
    assert 500 + 10 <= rows <= 20_500 + 10
    assert collector.counts("buffer_count", agent_id="host") == rows, "once each"
    assert collector.service.telemetry.get("lost") == 0


def test_the_pages_say_what_a_killed_process_loses() -> None:
    text = re.sub(r"\s+", " ", (ROOT / "docs/publisher.md").read_text())
    for said in ("SIGKILL", "SIGTERM", "gevent", "multiprocessing", "spawn", "os._exit"):
        assert said in text
