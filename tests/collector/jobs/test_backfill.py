"""History gives the series that a collector would have written, whatever the files, their order, and their end."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from zmon_collector.config import Config, parse
from zmon_collector.config.policy import ModelPolicy
from zmon_collector.config.sections import MetricsSection, ModelSection
from zmon_collector.jobs import row_files
from zmon_collector.jobs.backfill import run
from zmon_collector.jobs.backfill.plan import BackfillPlan
from zmon_collector.jobs.backfill.progress import resume
from zmon_collector.jobs.tabular import Columns, Layout
from zmon_plugins.sinks.anodot_file import AnodotFile

from tests.collector.jobs.history import CONFIG, OPTIONS, START, backfill, points, rows, same
from tests.support.collectors import Collector
from tests.support.waiting import until
from zmon.batch import Schema
from zmon.errors import ConfigurationError
from zmon.state import pack_state

FULL = parse({"metrics": {"preset": "full"}})


def live(collector: Collector, frame: pandas.DataFrame) -> None:
    """Publish the rows as the replicas would have; both are known before one of them comes to a window's end."""
    hosts = dict(tuple(frame.groupby("host")))
    with contextlib.ExitStack() as stack:
        publishers = {
            host: stack.enter_context(collector.publisher("m", classes=["a", "b", "c"], agent_id=host))
            for host in hosts
        }
        for at in range(0, max(map(len, hosts.values())), 500):
            for host, own in hosts.items():
                part = own.iloc[at : at + 500]
                publishers[host].publish(
                    part[["p_a", "p_b", "p_c"]].to_numpy(),
                    part[["x0", "x1", "colour", "vip"]],
                    [each if isinstance(each, str) else None for each in part["y"]],
                    ids=part["id"].to_numpy(),
                    timestamps=part["ts"].to_numpy(),
                    segments={"country": part["country"].tolist()},
                )
                assert at or publishers[host].flush(30)
        assert all(each.flush(30) for each in publishers.values())


def test_the_points_are_those_of_a_collector(tmp_path: Path, collect: Callable[..., Collector]) -> None:
    """Windows of 3000 rows are whole in the sample of 5000: every series is exact."""
    frame = rows(15_000, 5)
    collector = collect(config=FULL)
    live(collector, frame)
    collector.stop()
    for name, order in (("sorted", slice(None)), ("shuffled", np.random.default_rng(1).permutation(len(frame)))):
        path, out = tmp_path / f"{name}.parquet", tmp_path / name
        frame.iloc[order].to_parquet(path, row_group_size=4000)
        result = backfill(out, str(path))
        assert result.exit_code == 0 and "5 windows; 15,000 rows" in result.output, result.output
        assert same(points(collector.folder), points(out)) > 2500
        assert sorted(each.name for each in (out / "anodot").iterdir()) == [each.name for each in collector.files()]


def test_every_kind_of_file_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Csv and npz are cut into pieces, too; a quoted value may hold a line's end."""
    monkeypatch.setattr(row_files, "CSV_PIECE", 100_000)
    monkeypatch.setattr(row_files, "CSV_BLOCK", 30_000)
    monkeypatch.setattr(row_files, "ROWS", 500)
    monkeypatch.setattr(row_files, "PIECE_ROWS", 1500)
    frame = rows(6000, 3)[["p_a", "p_b", "p_c", "x0", "x1", "host", "ts"]]
    frame.loc[::7, "host"] = 'a "quoted"\nname'
    options = ["--model", "m", "--probabilities", "p_*", "--time", "ts", "--agent", "host"]
    frame.to_parquet(tmp_path / "rows.parquet")
    frame.to_csv(tmp_path / "rows.csv", index=False)
    text = {name: frame[name].to_numpy(dtype=str if name == "host" else None) for name in frame}
    np.savez(tmp_path / "rows.npz", **text)  # type: ignore[arg-type]
    assert (
        len(list(row_files.split_file(tmp_path / "rows.csv"))) > 4
        and len(list(row_files.split_file(tmp_path / "rows.npz"))) == 4
    )
    found = []
    for suffix in ("parquet", "csv", "npz"):
        out = tmp_path / suffix
        result = backfill(out, str(tmp_path / f"rows.{suffix}"), options=options)
        assert result.exit_code == 0, result.output
        found.append(points(out))
    assert same(found[0], found[1]) > 100 and same(found[0], found[2])
    agents = {dict(names).get("agent_id", "") for window in found[0].values() for names in window}
    assert all(name.isprintable() for name in agents) and any("quoted" in name for name in agents)


def test_windows_are_gone_through_in_rounds_when_memory_would_not_do(tmp_path: Path) -> None:
    frame = rows(6000, 20)
    frame.sample(frac=1, random_state=1).to_parquet(tmp_path / "rows.parquet", row_group_size=1000)
    assert backfill(tmp_path / "one", str(tmp_path / "rows.parquet")).exit_code == 0
    small = CONFIG + "[limits]\nsample_bytes = 1000000\n"
    result = backfill(tmp_path / "many", str(tmp_path / "rows.parquet"), config=small)
    assert result.exit_code == 0, result.output
    assert same(points(tmp_path / "one"), points(tmp_path / "many")) > 1000
    plan = BackfillPlan()
    plan.register_piece({(60 * i, "a"): 100 for i in range(20)})
    assert len(plan.rounds(0, 0, 5000, 100, 10**9)) == 1
    assert [len(each.windows) for each in plan.rounds(3, 0, 5000, 100, 250_000)] == [3, 3, 3, 3, 3, 2]
    assert [each.windows[0] for each in plan.rounds(0, 5, 5000, 100, 10**9)] == [0, 300]


def test_what_is_learned_is_learned_first(tmp_path: Path) -> None:
    """Drift is measured from the first window behind those that the reference is made of; nothing depends on timing."""
    rows(6000, 6).to_parquet(tmp_path / "rows.parquet", row_group_size=500)
    config = CONFIG + "reference_windows = 2\n"
    assert backfill(tmp_path / "out", str(tmp_path / "rows.parquet"), config=config).exit_code == 0
    measured = {start: any(("what", "feature_drift") in names for names in window)
                for start, window in points(tmp_path / "out").items()}  # fmt: skip
    assert list(measured.values()) == [False, False, True, True, True, True]


SLOW = """
import time
import zmon
from zmon.hooks import hookimpl

class Slow(zmon.MetricBase):
    name = "slow_rows"
    needs = frozenset({"probabilities"})

    def create(self, ctx):
        return 0

    def update(self, acc, batch, ctx):
        time.sleep(0.05)
        return acc + batch.rows

    def merge(self, left, right):
        return left + right

    def result(self, acc, ctx):
        yield zmon.Value("slow_rows", float(acc))

@hookimpl
def register_metrics(register, options):
    register(Slow())
"""


def test_a_slow_plugin_has_its_values_in_every_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A live collector goes on without it when it has rows to take; files wait."""
    monkeypatch.setattr("zmon_collector.compute.checkpointer.PATIENCE", 0.0)
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "slow.py").write_text(SLOW)
    rows(3000, 6).to_parquet(tmp_path / "rows.parquet", row_group_size=1000)
    config = CONFIG + f'[collector]\nplugins_dir = "{tmp_path / "plugins"}"\n'
    result = backfill(tmp_path / "out", str(tmp_path / "rows.parquet"), config=config)
    assert result.exit_code == 0, result.output
    found = [window[(("what", "slow_rows"),)] for window in points(tmp_path / "out").values()]
    assert len(found) == 6
    assert sum(found) == 3000


# --- ends before it is done -------------------------------------------------------------------------------------------


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """Files of history, and in ``whole`` what comes of them undisturbed."""
    (tmp_path / "rows").mkdir()
    frame = rows(20_000, 10)
    for i in range(2):
        frame.iloc[i * 10_000 : (i + 1) * 10_000].to_parquet(tmp_path / "rows" / f"{i}.parquet", row_group_size=1000)
    assert backfill(tmp_path / "whole", str(tmp_path / "rows")).exit_code == 0
    return tmp_path


@pytest.mark.parametrize("after", [False, True])
def test_a_run_that_ends_goes_on(whole: Path, monkeypatch: pytest.MonkeyPatch, after: bool) -> None:
    """Before a window's file is there, and when it is, but not yet known to be."""
    write = AnodotFile.write
    written = []

    def dying(self: AnodotFile, report: Any) -> None:
        if after:
            write(self, report)
        if len(written) == 4:
            raise KeyboardInterrupt
        if not after:
            write(self, report)
        written.append(report.window.start)

    with monkeypatch.context() as patched:
        patched.setattr(AnodotFile, "write", dying)
        result = backfill(whole / "out", str(whole / "rows"))
    assert result.exit_code == 1 and "rerun the same command to resume" in result.output
    assert len(points(whole / "out")) == 4 + after

    def noted(self: AnodotFile, report: Any) -> None:
        written.append(report.window.start)
        write(self, report)

    monkeypatch.setattr(AnodotFile, "write", noted)
    result = backfill(whole / "out", str(whole / "rows"))
    assert result.exit_code == 0 and "10 windows" in result.output, result.output
    assert written == sorted(set(written)) and len(written) == 10  # no window is computed again
    assert same(points(whole / "whole"), points(whole / "out")) > 1000
    again = backfill(whole / "out", str(whole / "rows"))
    assert again.exit_code == 0 and "10 windows; 0 rows" in again.output and len(written) == 10


def test_a_run_that_is_killed_goes_on(whole: Path) -> None:
    command = [sys.executable, "-m", "zmon_collector", "backfill", *OPTIONS, "--config", str(whole / "whole.toml"),
               "--data-dir", str(whole / "out"), str(whole / "rows")]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def held() -> bool:
        """Stopped with two windows written; it goes on while there are fewer."""
        process.send_signal(signal.SIGSTOP)
        if len(list((whole / "out" / "anodot").glob("*.json"))) >= 2:
            return True
        process.send_signal(signal.SIGCONT)
        return False

    until(held, what="two windows")
    process.kill()
    assert process.wait(60) == -signal.SIGKILL, "it was done before it could be killed"
    assert len(points(whole / "out")) < 10
    assert backfill(whole / "out", str(whole / "rows")).exit_code == 0
    same(points(whole / "whole"), points(whole / "out"))


def test_it_goes_on_with_nothing_else(whole: Path) -> None:
    for arguments, config in (
        ((str(whole / "rows" / "0.parquet"),), CONFIG),
        ((str(whole / "rows"), "--window", "30s"), CONFIG),
        ((str(whole / "rows"),), CONFIG + "max_segments = 1\n"),
    ):
        result = backfill(whole / "whole", *arguments, config=config)
        assert isinstance(result.exception, ConfigurationError) and "another --data-dir" in str(result.exception)
    other = ["--model", "other", *OPTIONS[2:]]
    assert backfill(whole / "whole", str(whole / "rows" / "0.parquet"), options=other).exit_code == 0
    names = sorted(path.name.rpartition("-")[2] for path in (whole / "whole" / "anodot").iterdir())
    assert names == [f"{i:012d}.json" for i in range(1, 17)]  # ten and six, numbered on (a minute is in both files)


def test_names_that_progress_on_disk_depends_on() -> None:
    """Their repr is in the digest of a run; a renamed class would strand the unfinished backfills of 0.1.0."""
    rules = repr(ModelPolicy(Config(), "m").rules)
    assert rules.startswith("WindowRules("), "the digest replaces this name with that of 0.1.0"
    names = [kept.__name__ for kept in (Layout, Columns, Schema, MetricsSection, ModelSection)]
    assert names == ["Layout", "Columns", "Schema", "MetricsSection", "ModelSection"]


# --- bad input --------------------------------------------------------------------------------------------------------


def test_a_bad_row_costs_itself(tmp_path: Path) -> None:
    frame = rows(3000, 3)
    good = frame.drop(index=[10, 1234, 1235])
    frame.loc[10, "p_a"] = 7.5
    frame.loc[[1234, 1235], "p_b"] = np.nan
    frame.to_parquet(tmp_path / "bad.parquet")
    good.to_parquet(tmp_path / "good.parquet")
    for name in ("bad", "good"):
        assert backfill(tmp_path / name, str(tmp_path / f"{name}.parquet")).exit_code == 0
    bad, good_points = points(tmp_path / "bad"), points(tmp_path / "good")
    counted = sum(value for window in bad.values() for names, value in window.items()
                  if dict(names)["what"] == "rows_rejected" and "agent_id" in dict(names))  # fmt: skip
    assert counted == 3
    for window in (*bad.values(), *good_points.values()):
        for names in [names for names in window if dict(names)["what"].startswith("rows_")]:
            del window[names]
    same(bad, good_points)


def broken(frame: pandas.DataFrame) -> Iterator[tuple[pandas.DataFrame, list[str], str]]:
    yield frame.assign(p_a=frame["p_a"] + 3), OPTIONS, "more than 100 of them are invalid"
    yield frame.assign(ts=frame["ts"] * 1000), OPTIONS, "not in seconds"
    yield frame.assign(ts=np.where(frame.index == 5, np.nan, frame["ts"])), OPTIONS, "missing, infinite or not a time"
    yield frame.assign(ts=4e9), OPTIONS, "ahead of this machine's clock"
    yield frame.assign(host=[None, *frame["host"][1:]]), OPTIONS, "a row has no --agent 'host'"
    yield frame.iloc[:0], OPTIONS, "there are no rows"
    yield frame, [each for each in OPTIONS if each not in ("--time", "ts")], "give --time"


@pytest.mark.parametrize("number", range(7))
def test_what_cannot_be_used_is_said(tmp_path: Path, number: int) -> None:
    frame, options, said = list(broken(rows(1000, 2)))[number]
    frame.to_parquet(tmp_path / "rows.parquet")
    result = backfill(tmp_path / "out", str(tmp_path / "rows.parquet"), options=options)
    assert isinstance(result.exception, ConfigurationError), result.output
    assert said in str(result.exception)
    assert not list(tmp_path.glob("out/anodot/*.json"))


def test_a_folder_belongs_to_one(tmp_path: Path) -> None:
    rows(100, 1).to_parquet(tmp_path / "rows.parquet")
    with run.locked(tmp_path / "out"):
        result = backfill(tmp_path / "out", str(tmp_path / "rows.parquet"))
        assert "another backfill is writing there" in str(result.exception)
    (tmp_path / "out" / "state.sqlite").touch()
    assert "belongs to a collector" in str(backfill(tmp_path / "out", str(tmp_path / "rows.parquet")).exception)


def test_agents_beyond_the_limit_count_for_the_rollup(tmp_path: Path) -> None:
    frame = rows(2000, 2).assign(host=[f"h{i % 5}" for i in range(2000)])
    frame.to_parquet(tmp_path / "rows.parquet")
    result = backfill(tmp_path / "out", str(tmp_path / "rows.parquet"), config=CONFIG + "[limits]\nagents = 3\n")
    assert result.exit_code == 0, result.output
    found = [dict(names) | {"value": value} for names, value in points(tmp_path / "out")[START].items()]
    agents = {each.get("agent_id") for each in found if each["what"] == "mean_prediction_proba"} | {
        each.get("agent_id") for each in found if each["what"] == "buffer_count"}  # fmt: skip
    assert {"h0", "h1", "h2", None} <= agents and "h3" not in agents
    whole = [each for each in found if not {"agent_id", "segment_name"} & each.keys()]
    total = sum(each["value"] for each in whole if each["what"] == "buffer_count")
    assert total == int((frame["ts"] < START + 60).sum())


@pytest.mark.parametrize(
    "content",
    [b"", b"\xc1", b"\x80", b"\x91\x80", b"\x81\xa7version\x01", b"\x81\x90\x01", b"\x91" * 1000,
     pack_state({"version": 1, "of": "x", "first": "1", "windows": 1, "closed": 0, "memory": []}),
     pack_state({"version": 1, "of": "x", "first": 1, "windows": 1, "closed": 0, "memory": [["a", "b"]]})],
    ids=range(9),
)  # fmt: skip
def test_progress_that_is_damaged_is_not_resumed(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.backfill").write_bytes(content)
    with pytest.raises(
        ConfigurationError, match=r"cannot resume the backfill in .*x\.backfill; give another --data-dir"
    ):
        resume(tmp_path, ("m", ""), "x", 1)
