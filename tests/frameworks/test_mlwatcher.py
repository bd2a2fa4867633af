"""MLWatcher's agent: its own calls, over the three scenarios, give its series under their names and with its values."""

from __future__ import annotations

import inspect
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

import zmon
from tests.support.collectors import Collector
from tests.support.frameworks import require
from tests.support.points import by_names
from tests.support.ports import free_port
from tests.support.twins import overhead
from tests.support.waiting import settled, until
from zmon.mlwatcher import MonitoringAgent

STATS = ("mean", "median", "std", "range", "q25", "q50", "q75", "iqr")


@pytest.fixture(scope="module")
def digits() -> dict[str, Any]:
    """A good model, one trained on unbalanced classes, and rows to serve."""
    data = load_digits()
    train, serve, truth, later = train_test_split(data.data / 16, data.target, random_state=0)
    even = np.random.default_rng(0).random(len(truth)) < 0.03
    unbalanced = (truth % 2 == 1) | even
    return {
        "good": LogisticRegression(max_iter=300).fit(train, truth),
        "unbalanced": LogisticRegression(max_iter=300).fit(train[unbalanced], truth[unbalanced]),
        "rows": serve,
        "labels": later,
    }


def statistics(values: Any) -> dict[str, float]:
    q25, q50, q75 = np.percentile(values, [25, 50, 75])
    spread = float(np.max(values) - np.min(values))
    return dict(
        zip(STATS, (np.mean(values), np.median(values), np.std(values), spread, q25, q50, q75, q75 - q25), strict=True)
    )


def oracle(p: Any, x: Any, labels: Any, threshold: float) -> dict[tuple[tuple[str, str], ...], float]:
    """The earlier agent's series on these rows, without those that are undefined."""
    found: dict[tuple[tuple[str, str], ...], float] = {}

    def put(what: str, value: float, **names: str) -> None:
        found[tuple(sorted({"what": what, **names}.items()))] = float(value)

    n, k = p.shape
    predicted = (p[:, 1] > threshold).astype(int) if k == 2 else p.argmax(axis=1)
    put("buffer_count", n)
    top = np.sort(p, axis=1)
    for stat, value in statistics(top[:, -1]).items():
        put("max_prediction_proba", value, stat=stat)
    for stat, value in statistics(top[:, -1] - top[:, -2]).items():
        put("spread12_prediction_proba", value, stat=stat)
    for i in range(k):
        name = f"class_{i}"
        put("prediction_count", (predicted == i).sum(), class_name=name)
        put("prediction_freq", (predicted == i).mean(), class_name=name)
        if labels is None:
            continue
        hit, said, true = ((predicted == i) & (labels == i)).sum(), (predicted == i).sum(), (labels == i).sum()
        put("accuracy", ((predicted == i) == (labels == i)).mean(), class_name=name)
        if said:
            put("precision", hit / said, class_name=name)
        if true:
            put("recall", hit / true, class_name=name)
        if said and true and hit:
            put("f1", 2 * hit / (said + true), class_name=name)
    for j in range(0 if x is None else x.shape[1]):
        for stat, value in statistics(x[:, j]).items():
            put("feature_value", value, feat_name=f"feat_{j}", stat=stat)
    return found


def publisher_of(agent: MonitoringAgent) -> zmon.Publisher:
    """MLWatcher's own class offers no counters and no end; the agent's publisher does."""
    return agent._publisher


def series(collector: Collector, agent: str) -> dict[tuple[tuple[str, str], ...], float]:
    """The points of one agent, without the agent's own names."""
    points = [point for point in collector.points() if point["properties"].get("agent_id") == agent]
    found = {}
    for names, value in by_names(points).items():
        found[tuple((key, name) for key, name in names if key != "agent_id")] = value
    return found


def test_the_signatures_are_mlwatchers() -> None:
    def of(function: Callable[..., Any]) -> list[tuple[str, Any]]:
        return [(each.name, each.default) for each in inspect.signature(function).parameters.values()]

    none = inspect.Parameter.empty
    assert of(MonitoringAgent) == [
        *(("frequency", none), ("max_buffer_size", none), ("n_classes", none)),
        *(("agent_id", "1"), ("server_IP", "127.0.0.1"), ("server_port", 8000)),
    ]
    assert of(MonitoringAgent.collect_data) == [
        *(("self", none), ("predict_proba_matrix", none)),
        *(("input_matrix", None), ("label_matrix", None), ("threshold", 0.5)),
    ]
    assert of(MonitoringAgent.run_local_server) == [("self", none), ("n_sockets", 5)]


def test_the_three_scenarios(digits: dict[str, Any], collect: Callable[..., Collector]) -> None:
    pandas = require("pandas")
    port = free_port()
    collector = collect(bind=f"tcp://127.0.0.1:{port}", window=3600)
    rows, labels = digits["rows"], digits["labels"]
    scenarios = {
        "good": (digits["good"], rows, np.eye(10)[labels]),
        "inverted": (digits["good"], 1 - rows, labels.reshape(-1, 1)),
        "unbalanced": (digits["unbalanced"], rows, pandas.DataFrame(np.eye(10, dtype=int)[labels])),
    }
    agents, expected = [], {}
    for name, (model, x, y) in scenarios.items():
        agent = MonitoringAgent(60, 500, 10, name, "127.0.0.1", port)
        p = model.predict_proba(x)
        agent.collect_data(p[:100], x[:100], y[:100])
        rest = pandas.DataFrame(x[100:], columns=[f"pixel {i}" for i in range(64)])
        agent.collect_data(
            predict_proba_matrix=pandas.DataFrame(p[100:]), input_matrix=rest, label_matrix=y[100:], threshold=0.5
        )
        expected[name] = oracle(p, x, labels, 0.5)
        agents.append(agent)
    some, wanted = rows[:32], labels[:32]
    given = digits["good"].predict_proba(some)
    costs = MonitoringAgent(60, 500, 10, "costs", "127.0.0.1", port)
    overhead("MLWatcher's collect_data", lambda: None, lambda: costs.collect_data(given, some, wanted))
    agents.append(costs)
    for agent in agents:
        assert publisher_of(agent).flush(60), publisher_of(agent).stats
        assert not publisher_of(agent).stats.rejected
        publisher_of(agent).close()
    collector.stop()
    for name, points in expected.items():
        found = series(collector, name)
        missing = points.keys() - found.keys()
        assert not missing, (name, sorted(missing)[:5])
        for key, value in points.items():
            assert found[key] == pytest.approx(value, rel=1e-9, abs=1e-12), (name, key)
    accuracy = {name: series(collector, name)[(("what", "accuracy"),)] for name in scenarios}
    assert accuracy["inverted"] < accuracy["unbalanced"] < accuracy["good"]


@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_two_classes_and_a_threshold(threshold: float, collect: Callable[..., Collector]) -> None:
    port = free_port()
    collector = collect(bind=f"tcp://127.0.0.1:{port}", window=3600)
    random = np.random.default_rng(0)
    p = random.dirichlet((2, 3), 300).astype(np.float32)
    labels = random.integers(0, 2, 300)
    agent = MonitoringAgent(frequency=1, max_buffer_size=1000, n_classes=2, server_port=port)
    agent.collect_data(p[:50], threshold=threshold)
    agent.collect_data(p[50:], None, labels[50:], threshold)
    assert publisher_of(agent).flush(60)
    publisher_of(agent).close()
    collector.stop()
    found = series(collector, "1")
    every, labelled = (
        oracle(p.astype(float), None, None, threshold),
        oracle(p[50:].astype(float), None, labels[50:], threshold),
    )
    scores = {
        key: value for key, value in labelled.items() if dict(key)["what"] in ("accuracy", "precision", "recall", "f1")
    }
    for key, value in {**every, **scores}.items():
        assert found[key] == pytest.approx(value, rel=1e-6), key


def test_nothing_it_is_given_raises(caplog: pytest.LogCaptureFixture) -> None:
    agent = MonitoringAgent(1, 100, 2, server_port=free_port())
    agent.collect_data(None)
    agent.collect_data([[0.5, 0.5]], threshold="high", label_matrix="?")  # type: ignore[arg-type]
    agent.collect_data([[0.5, 0.5], [0.1]])
    agent.collect_data(np.ones((3, 5)))
    agent.collect_data([[0.5, 0.5]], label_matrix=[[0, 0]])
    stats = settled(publisher_of(agent))
    assert (stats.published, stats.rejected) == (1, {"matrix_invalid": 2, "probabilities_shape": 3})
    assert dict(publisher_of(agent).stats.degraded) == {"label_one_hot": 1}, "the label alone is lost"
    publisher_of(agent).close(0)


@pytest.mark.parametrize(
    "wrong", [(0, 100, 3), (1, 0, 3), ("often", 100, 3), (1, 100, 1), (1, 100, 3, "1", "::", 70000)]
)
def test_a_wrong_construction_is_reported(wrong: tuple[Any, ...]) -> None:
    with pytest.raises(zmon.ConfigurationError):
        MonitoringAgent(*wrong)


SCRIPT = """
    import sys, time
    import numpy as np
    from zmon.mlwatcher import MonitoringAgent

    agent = MonitoringAgent(frequency=1/60, max_buffer_size=7, n_classes=3, agent_id='script', server_port={port})
    agent.run_local_server(n_sockets=5)
    p = np.random.default_rng(0).dirichlet((1, 2, 3), 10)
    until = time.monotonic() + 3
    while time.monotonic() < until:
        agent.collect_data(predict_proba_matrix=p, input_matrix=p, label_matrix=p.argmax(axis=1))
        time.sleep(0.05)
    while not agent._publisher.stats.acknowledged:
        time.sleep(0.05)
    agent.run_local_server()  # it is there already
    try:
        print(agent._publisher.stats.published, agent._server.pid, flush=True)  # Ctrl-C may come at once
        time.sleep({wait})
    finally:
        time.sleep({pause})
        agent.collect_data(p)  # the last rows, as the script ends
"""


@pytest.mark.parametrize(("wait", "stalls"), [(0, 0), (60, 0), (60, 9)], ids=["end", "Ctrl-C", "Ctrl-C, stalled"])
def test_the_local_server_runs_with_the_script(wait: int, stalls: int, tmp_path: Path) -> None:
    """It starts, takes everything, and writes its last windows when the script ends, by itself or by Ctrl-C.

    Also when it makes no progress just then, for so long that the connection is given up before the last rows.
    """
    port = free_port()
    script = textwrap.dedent(SCRIPT).format(port=port, wait=wait, pause=5 if stalls else 0.5)
    options: dict[str, Any] = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.DEVNULL,
        "text": True,
        "start_new_session": True,
    }
    with subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, **options) as process:
        published, server = map(int, process.stdout.readline().split())
        if stalls:
            os.kill(server, signal.SIGSTOP)
            threading.Timer(stalls, os.kill, (server, signal.SIGCONT)).start()
        if wait:
            os.killpg(process.pid, signal.SIGINT)  # Ctrl-C goes to everything the terminal runs
        assert process.wait(40) == (-signal.SIGINT if wait else 0)

    def gone() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) != 0

    until(gone, what="the collector to end")
    points = [p for path in (tmp_path / "zmon-data/anodot").glob("*.json") for p in json.loads(path.read_text())]
    rows = [p["value"] for p in points if p["properties"]["what"] == "buffer_count" and "agent_id" in p["properties"]]
    assert sum(rows) == published + 10
    assert oct((tmp_path / "zmon-data").stat().st_mode)[-3:] == "700"
    assert "sample_rows = 7" in (tmp_path / "zmon-data/mlwatcher.toml").read_text()


FOLDER = """
    import logging
    from zmon.mlwatcher import MonitoringAgent

    logging.basicConfig(format="%(message)s", level=logging.INFO)
    first = MonitoringAgent(1, 10, 3, "first", server_port={first})
    first.run_local_server()
    assert first._listens(), "the collector listens when run_local_server returns"
    written = open("zmon-data/mlwatcher.toml").read()
    second = MonitoringAgent(1, 10, 3, "second", server_port={second})
    second.run_local_server()
    assert second._server is None
    assert open("zmon-data/mlwatcher.toml").read() == written
    third = MonitoringAgent(1, 10, 3, "third", server_port={first})
    third.run_local_server()
    for agent in (first, third):
        agent.collect_data([[0.2, 0.3, 0.5]])
        assert agent._publisher.flush(60), agent._publisher.stats
"""


def test_two_agents_in_one_folder(tmp_path: Path) -> None:
    """The second collector cannot use the first one's folder: one sentence says so, and what to do."""
    script = textwrap.dedent(FOLDER).format(first=free_port(), second=free_port())
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "is in use: another collector runs on this folder" in done.stderr
    assert "ended with code 2; it printed the reason" in done.stderr
    assert "give both the same server_port: one collector serves them all" in done.stderr
    assert "a collector already listens" in done.stderr


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "pluggy" else True)
    agent = MonitoringAgent(1, 100, 3, server_port=free_port())
    with pytest.raises(zmon.MissingExtraError, match=r'pip install "zmon-agent\[collector\]"'):
        agent.run_local_server()
    assert not os.listdir(tmp_path)  # noqa: PTH208


def test_another_host_runs_its_own(caplog: pytest.LogCaptureFixture) -> None:
    agent = MonitoringAgent(1, 100, 3, server_IP="192.0.2.1", server_port=8000)
    with caplog.at_level(logging.WARNING, "zmon"):
        agent.run_local_server()
    assert "run `zmon collect` on that host" in caplog.text
