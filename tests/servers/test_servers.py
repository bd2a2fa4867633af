"""The server examples in processes of their own: every request's row arrives, under one agent."""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.collectors import Collector, answer
from tests.support.frameworks import require
from tests.support.processes import ROOT
from tests.support.servers import Server
from tests.support.waiting import until

ROWS = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]
REQUESTS = 200
# Some of these warn about themselves; what is looked for is a word of ours, or of forks and threads.
OURS = re.compile(r"zmon|multi-threaded|fork\(\)|Traceback", re.I)

SERVERS = {
    "uvicorn": ("fastapi", "uvicorn", ["--port", "{port}", "--log-level", "warning"], 1),
    "gunicorn, preloaded": ("fastapi", "gunicorn", ["--bind", "127.0.0.1:{port}", "--log-level", "warning"], 4),
    "flask": ("flask", "flask", ["--port", "{port}"], 1),
    "flask under gunicorn": ("flask", "gunicorn", ["--bind", "127.0.0.1:{port}", "--log-level", "warning"], 2),
}


def command(example: str, starts: str) -> list[str]:
    """The README's command line that starts so, without the port it names."""
    for line in (ROOT / "examples" / example / "README.md").read_text().splitlines():
        if line.startswith(f"    {starts} "):
            return shlex.split(re.sub(r" --port \d+", "", line))
    raise AssertionError(f"examples/{example}/README.md has no command {starts}")


@pytest.mark.parametrize(("example", "starts", "options", "workers"), SERVERS.values(), ids=SERVERS.keys())
def test_every_requests_row_arrives(
    example: str, starts: str, options: list[str], workers: int, collect: Callable[..., Collector], tmp_path: Path
) -> None:
    require(example)
    require(starts)
    collector = collect(window=3600)
    server = Server(tmp_path, collector, command(example, starts), options)
    asked: list[int] = []

    def request(number: int) -> None:
        answer = server.post("/predict", {"rows": ROWS, "ids": [f"{number}-a", f"{number}-b"]})
        assert answer == {"species": ["setosa", "virginica"]}
        asked.append(number)

    def streams() -> int:
        return int(answer(collector.folder)["streams"])

    def all_workers_served() -> bool:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(request, range(len(asked), len(asked) + REQUESTS)))
        return streams() >= workers

    try:
        until(all_workers_served, what=f"{workers} streams")
        assert streams() == workers, "a stream for each worker, and none for the process that forked them"
        expected = len(asked) * len(ROWS)
        until(lambda: answer(collector.folder)["counters"].get("rows") == expected, what="all rows")
        # The workers say goodbye as they end. A development server is ended by Ctrl-C.
        said = server.stop(signal.SIGINT if starts == "flask" else signal.SIGTERM)
    finally:
        server.kill()
    until(lambda: streams() == 0, what="the workers' goodbyes")
    collector.stop()
    assert collector.counts("buffer_count", agent_id="host") == expected
    assert collector.counts("buffer_count", agent_id=None) == expected
    assert collector.counts("rows_lost", agent_id="host") == 0
    agents = {point["properties"].get("agent_id") for point in collector.points()}
    assert agents == {"host", None}, "one agent, however many workers"
    names = {point["properties"].get("feat_name") for point in collector.points()} - {None}
    assert names == {"sepal_length", "sepal_width", "petal_length", "petal_width"}
    assert not OURS.search(said), said
