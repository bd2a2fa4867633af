"""A collector takes over a changed configuration while it runs, or says why not; and what `journal = "off"` means."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from zmon_collector.config import load, parse
from zmon_collector.config.reload import merged
from zmon_collector.windows.window import NANO, Periods

from tests.support.collectors import answer
from tests.support.processes import OLD, Running, command
from tests.support.waiting import until
from zmon._transport.keys import read_file

P = np.array([[0.9, 0.1]])


def windows(folder: Path) -> dict[tuple[int, int], int]:
    """Rows by start and file, of the rollup."""
    found = {}
    for number, path in enumerate(sorted((folder / "anodot").glob("*.json"))):
        for sample in json.loads(path.read_text()):
            if sample["properties"]["what"] == "buffer_count" and "agent_id" not in sample["properties"]:
                found[sample["timestamp"], number] = sample["value"]
    return found


def test_a_changed_period_takes_effect_behind_what_is_open(tmp_path: Path) -> None:
    config = tmp_path / "zmon.toml"
    config.write_text('[collector]\nwindow = "60s"\ngrace = "0s"\nidle = "60s"\n')
    running = Running(tmp_path / "data", "--config", str(config))
    with running.publisher(agent_id="a") as publisher:
        publisher.publish(P, timestamps=OLD)
        assert publisher.flush(60)
        config.write_text(
            '[collector]\nwindow = "10s"\ngrace = "0s"\nidle = "60s"\ndata_dir = "elsewhere"\nworkers = 7\n'
        )
        done = command("reload", "--data-dir", str(running.folder))
        assert done.returncode == 0, done.stderr
        assert "[collector] workers" in done.stdout
        for second in range(1, 120):
            publisher.publish(P, timestamps=OLD + second)
        assert publisher.flush(60)
    running.end()
    found = windows(running.folder)
    assert sum(found.values()) == 120
    assert {start: rows for (start, _), rows in found.items()} == {OLD: 60, **{OLD + 60 + 10 * i: 10 for i in range(6)}}


def test_nothing_of_an_unchanged_file_waits_for_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPS_URL", "http://127.0.0.1:9/")
    path = tmp_path / "zmon.toml"
    path.write_text(
        '[collector]\nwindow = "10s"\nmodels = ["a*"]\n[limits]\nagents = 7\n[web]\nenabled = false\n'
        '[metrics]\nexpect = { agents = 3 }\n[models.m]\nwindow = "1m"\nstats = ["p9*"]\n'
        "[models.m.metrics.numeric_features]\nquantiles = [0.5, 0.9]\n[plugins.drift]\nlimit = { a = [1] }\n"
        '[sinks.anodot_file]\nkeep = "3d"\n[[alerts]]\nname = "low"\nwhat = "accuracy"\nbelow = 0.9\n'
        '[notify.ops]\nkind = "webhook"\nurl_env = "OPS_URL"\n'
    )
    config = load(path)
    assert merged(config, load(path)) == (config, [])


def test_sighup_reloads_and_a_wrong_file_changes_nothing(tmp_path: Path) -> None:
    config = tmp_path / "zmon.toml"
    config.write_text('[metrics]\npreset = "minimal"\n')
    running = Running(tmp_path / "data", "--config", str(config))
    config.write_text('[metrics]\npreset = "larg"\n')
    done = command("reload", "--data-dir", str(running.folder))
    assert done.returncode == 2
    assert "nothing was changed" in done.stderr
    assert "'larg'" in done.stderr
    os.kill(running.process.pid, signal.SIGHUP)
    until(lambda: "the configuration is not valid" in running.said(), what="the refusal")
    with running.publisher(agent_id="a") as publisher:
        publisher.publish(P, timestamps=OLD)
        publisher.publish(P, timestamps=OLD + 70)
        assert publisher.flush(60)
        until(lambda: windows(running.folder), what="the first window")
        config.write_text('[metrics]\npreset = "minimal"\n')
        same = command("reload", "--data-dir", str(running.folder))
        assert same.stdout == "reloaded\n", "nothing waits for a restart, though the configuration was in use"
        config.write_text('[metrics]\npreset = "full"\n[models.m]\nwindow = "30s"\n')
        os.kill(running.process.pid, signal.SIGHUP)
        until(lambda: command("plugins", "--data-dir", str(running.folder)).returncode == 0)
        publisher.publish(P, timestamps=OLD + 75)
        publisher.publish(P, timestamps=OLD + 125)
        assert publisher.flush(60)
    said = running.end()
    assert said.count("the configuration is not valid and nothing is changed") == 1
    assert said.count("configuration reloaded") == 2
    first, second, third = (json.loads(path.read_text()) for path in sorted((running.folder / "anodot").glob("*.json")))
    assert len(second) == len(first), "it was open when the file was read"
    assert len(third) > len(first), "the full preset has more"


def test_a_client_that_is_allowed_by_a_reload_gets_in(tmp_path: Path) -> None:
    for name, role in (("server", "--collector"), ("pod", "--out=.")):
        assert command("keygen", role, name, "--out", str(tmp_path)).returncode == 0
    config, clients = tmp_path / "zmon.toml", tmp_path / "clients.toml"
    config.write_text(f"[security]\nsecret_key_file = '{tmp_path}/server.key_secret'\nclients_file = '{clients}'\n")
    clients.write_text("")
    running = Running(tmp_path / "data", "--config", str(config))
    keys = {"secret_key": tmp_path / "pod.key_secret", "server_key": tmp_path / "server.key"}
    with running.publisher(agent_id="a", **keys) as publisher:
        publisher.publish(P)
        until(lambda: any("refused_clients" in name for name in answer(running.folder)["counters"]))
        clients.write_text("[clients.pod]\nkey = 'short'\nmodels = ['*']")
        refused = command("reload", "--data-dir", str(running.folder))
        assert refused.returncode == 2
        assert "pod key: it is not a public key" in refused.stderr
        public = read_file("test", tmp_path / "pod.key", "public-key")
        clients.write_text(f"[clients.pod]\nkey = '{public}'\nmodels = ['m']")
        done = command("reload", "--data-dir", str(running.folder))
        assert done.returncode == 0, done.stderr
        assert "restart" not in done.stdout
        assert publisher.flush(60)
    assert "secret" not in running.end().replace("key_secret", "")


def test_no_collector_to_reload(tmp_path: Path) -> None:
    done = command("reload", "--data-dir", str(tmp_path))
    assert done.returncode == 1
    assert "no collector answers" in done.stderr


def test_what_waits_for_a_restart_is_named() -> None:
    old = parse({})
    new = parse(
        {"collector": {"bind": "tcp://127.0.0.1:1234", "idle": "5s"}, "limits": {"agents": 7}, "sinks": {"x": {}}}
    )
    kept, waiting = merged(old, new)
    assert waiting == ["[collector] bind", "[sinks]"]
    assert (kept.collector.bind, kept.collector.idle, kept.limits.agents) == (old.collector.bind, 5.0, 7)
    assert merged(old, old) == (old, [])


@given(st.lists(st.tuples(st.integers(1, 7), st.integers(0, 300)), max_size=4), st.integers(1, 9))
def test_windows_of_changing_length_tile_the_time(changes: list[tuple[int, int]], first: int) -> None:
    """Every second lies in one window; windows neither overlap nor leave a gap; each is aligned to its length."""
    periods = Periods(first)
    for length, after in changes:
        periods.change(length, after)
    seconds = np.arange(3000, dtype=np.int64)
    starts = periods.starts(seconds * NANO)
    assert isinstance(starts, np.ndarray)
    assert [periods.starts(int(second) * NANO) for second in seconds[:200]] == starts[:200].tolist()
    end = 0
    for start in np.unique(starts).tolist():
        assert start == end, "no gap, no overlap"
        assert start % periods.length(start) == 0
        end = start + periods.length(start)


def test_without_a_journal_no_rows_reach_the_disk(tmp_path: Path) -> None:
    config = tmp_path / "zmon.toml"
    config.write_text('[collector]\njournal = "off"\nwindow = "1h"\n')
    running = Running(tmp_path / "data", "--config", str(config))
    with running.publisher(agent_id="a", features=["secret"]) as publisher:
        publisher.publish(np.repeat(P, 50, axis=0), inputs=np.full((50, 1), 0.123456789), timestamps=OLD)
        assert publisher.flush(60)
        needle = np.float64(0.123456789).tobytes()
        for path in running.folder.glob("state.sqlite*"):
            assert needle not in path.read_bytes(), path
        assert answer(running.folder)["counters"]["rows"] == 50
    running.end()
    assert list(windows(running.folder).values()) == [50]


def test_with_a_journal_open_windows_go_on_after_a_proper_end(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    first = Running(folder, "--window", "1h", flush=False)
    with first.publisher(agent_id="a") as publisher:
        publisher.publish(np.repeat(P, 30, axis=0), timestamps=OLD)
        assert publisher.flush(60)
    first.end()
    assert windows(folder) == {}
    second = Running(folder, "--window", "1h")
    with second.publisher(agent_id="a") as publisher:
        publisher.publish(np.repeat(P, 12, axis=0), timestamps=OLD + 1)
        assert publisher.flush(60)
    second.end()
    assert list(windows(folder).values()) == [42]
