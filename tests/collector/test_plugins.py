"""Plugins: found, checked, quarantined with an error that names plugin, hook and fix; bad metrics beside good ones."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from zmon_collector.cli.main import cli
from zmon_collector.compute.executors import MetricExecutor, Step
from zmon_collector.compute.window_state import WindowState
from zmon_collector.config import Config, parse
from zmon_collector.config.reload import merged
from zmon_collector.config.sections import WebSection
from zmon_collector.metric_state import DISABLE_AFTER, MetricState
from zmon_collector.plugins import READERS, Registry, builtin_modules
from zmon_collector.windows.window import OpenWindow

import zmon
from tests.support.waiting import until
from zmon import SinkBase
from zmon.batch import Batch
from zmon.contract import Context, Report, Value
from zmon.errors import ConfigurationError
from zmon.hooks import hookimpl

P = np.array([[0.9, 0.1]] * 20)


class Mean:
    """A sound metric: the mean of the highest probability."""

    name = "mean_top"
    needs = frozenset({"probabilities"})

    def create(self, ctx: Context) -> dict[str, float]:
        return {"n": 0, "sum": 0.0}

    def update(self, acc: dict[str, float], batch: Batch, ctx: Context) -> dict[str, float]:
        return {"n": acc["n"] + batch.rows, "sum": acc["sum"] + float(batch.probabilities.max(axis=1).sum())}

    def merge(self, left: dict[str, float], right: dict[str, float]) -> dict[str, float]:
        return {key: left[key] + right[key] for key in left}

    def result(self, acc: dict[str, float], ctx: Context) -> Iterable[Value]:
        yield Value("mean_top", acc["sum"] / acc["n"])


def plugin(*metrics: Any, sinks: Iterable[Any] = (), seen: list[Report] | None = None) -> object:
    class Plugin:
        @hookimpl
        def register_metrics(self, register: Any, options: Any) -> None:
            for metric in metrics:
                register(metric)

        @hookimpl
        def register_sinks(self, register: Any) -> None:
            for sink in sinks:
                register(sink)

        @hookimpl
        def window_closed(self, report: Report) -> None:
            if seen is not None:
                seen.append(report)

    return Plugin()


def registry(**plugins: object) -> Registry:
    made = Registry()
    made.load()
    for name, each in plugins.items():
        made.register(each, name)
    return made


def serve(collect: Any, windows: int = 1, **plugins: object) -> Any:
    """A collector that saw `windows` windows of 20 rows of history."""
    collector = collect(plugins=plugins)
    with collector.publisher(agent_id="a", classes=["x", "y"]) as publisher:
        for window in range(windows):
            publisher.publish(P, timestamps=1_000_000_000 + 60 * window)
            assert publisher.flush(60)
    collector.stop()
    return collector


def whats(collector: Any) -> set[str]:
    return {point["properties"]["what"] for point in collector.points()}


def test_built_in_plugins_are_found_by_walking() -> None:
    names = {name.rpartition(".")[2] for name in builtin_modules()}
    assert names >= {"rows", "predictions", "features", "performance", "anodot_file"}
    assert all(each.state == "ok" for each in registry().plugins.values())


def test_a_third_party_metric_gives_points(collect: Any) -> None:
    collector = serve(collect, acme=plugin(Mean()))
    values = {p["value"] for p in collector.points() if p["properties"]["what"] == "mean_top"}
    assert len(values) == 1
    assert values.pop() == pytest.approx(0.9, rel=1e-9)


def test_observers_see_reports_and_may_raise(collect: Any, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Report] = []

    class Broken:
        @hookimpl
        def window_closed(self, report: Report) -> None:
            raise RuntimeError("observer broke")

    collector = serve(collect, windows=2, broken=Broken(), sound=plugin(seen=seen))
    assert [report.window.start for report in seen] == [999_999_960 + 0, 1_000_000_020]
    assert [report.sequence for report in seen] == [1, 2]
    assert len(collector.files()) == 2
    assert caplog.text.count("observer broke") == 1


# --- quarantine -------------------------------------------------------------------------------------------------


class UnknownHook:
    @hookimpl
    def register_metricks(self, register: Any) -> None: ...


class WrongArgument:
    @hookimpl
    def register_metrics(self, registrar: Any) -> None: ...


class Raises:
    @hookimpl
    def register_metrics(self, register: Any) -> None:
        register(Mean())
        raise RuntimeError("no luck")


class NoMetric:
    @hookimpl
    def register_metrics(self, register: Any) -> None:
        register("mean_top")


class Taken(Mean):
    name = "rows"


QUARANTINED = {
    "an unknown hook": (UnknownHook(), ["register_metricks", "zmon.hooks"]),
    "a wrong argument": (WrongArgument(), ["register_metrics", "registrar"]),
    "a hook that raises": (Raises(), ["register_metrics", "RuntimeError: no luck"]),
    "something that is no metric": (NoMetric(), ["register_metrics", "is not a metric", "update"]),
    "a taken name": (plugin(Taken()), ["'rows'", "already registered by 'rows'", "rename"]),
}


@pytest.mark.parametrize(("bad", "says"), QUARANTINED.values(), ids=QUARANTINED.keys())
def test_a_bad_plugin_is_quarantined_and_the_others_run(
    bad: object, says: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    made = registry(bad=bad, sound=plugin(Mean()))
    assert made.plugins["bad"].state == "quarantined"
    assert made.plugins["bad"].metrics == []
    assert all(part in made.plugins["bad"].error for part in says), made.plugins["bad"].error
    assert "plugin 'bad'" in caplog.text
    assert made.metrics["mean_top"].plugin == "sound"
    assert {each.state for name, each in made.plugins.items() if name != "bad"} == {"ok"}


class NamedSink(SinkBase):
    def __init__(self, name: Any) -> None:
        self.name = name

    def write(self, report: Report) -> None: ...


SINK_NAMES = {
    "history": "the collector's own",
    "Alerts": "the collector's own",
    " observers ": "the collector's own",
    "ｈｉｓｔｏｒｙ": "the collector's own",
    "Anodot_File": "already registered by 'anodot_file' as 'anodot_file'",
    "": "printable characters",
    "a\nb": "printable characters",
    "\ud800": "printable characters",
    "s" * 101: "printable characters",
}


@pytest.mark.parametrize("name", [*SINK_NAMES, None, 7], ids=lambda name: ascii(name)[:20])
def test_a_sink_whose_name_is_not_its_own_is_quarantined(name: Any) -> None:
    made = registry(bad=plugin(sinks=[NamedSink(name)]), sound=plugin(sinks=[NamedSink("mine")]))
    assert made.plugins["bad"].state == "quarantined"
    assert SINK_NAMES.get(name, "is not a") in made.plugins["bad"].error
    assert "rename" in made.plugins["bad"].error or "must have name" in made.plugins["bad"].error
    assert list(made.plugins["sound"].sinks) == ["mine"]


def test_the_names_of_the_collectors_own_readers_are_reserved(collect: Any) -> None:
    collector = collect()
    own = set(collector.service.deliveries.names) - set(collector.registry.sinks)
    assert own == READERS


# --- plugins in a folder --------------------------------------------------------------------------------------------

ONE_FILE = """
from __future__ import annotations
from dataclasses import dataclass
from zmon import Value
from zmon.hooks import hookimpl

@dataclass
class Rows:
    name: str = "NAME"
    needs = frozenset({"probabilities"})
    def create(self, ctx): return {"n": 0}
    def update(self, acc, batch, ctx): return {"n": acc["n"] + batch.rows}
    def merge(self, left, right): return {"n": left["n"] + right["n"]}
    def result(self, acc, ctx): yield Value("NAME", float(acc["n"] * ctx.options.get("times", 1)))

@hookimpl
def register_metrics(register, options):
    register(Rows())
"""


def folder_of(path: Path, **files: str) -> Path:
    path.mkdir(mode=0o700)
    for name, text in files.items():
        (path / f"{name}.py").write_text(text)
    return path


def test_a_metric_in_one_file_gives_points(collect: Any, tmp_path: Path) -> None:
    """Also one that is named like a module of the standard library, which stays what it is."""
    text = ONE_FILE.replace("NAME", "mine")
    collector = collect(
        plugins_dir=folder_of(tmp_path / "plugins", json=text, broken="raise OSError('no luck')", _odd="1 +"),
        config=Config(plugins={"json": {"times": 2}}, web=WebSection(enabled=False)),
    )
    with collector.publisher(classes=["x", "y"]) as publisher:
        publisher.publish(P, timestamps=1_000_000_000)
        assert publisher.flush(60)
    collector.stop()
    assert collector.counts("mine", agent_id=None) == 40
    assert "prediction_freq" in whats(collector)
    assert json.loads("1") == 1
    states = {name: state for name, state in collector.registry.plugins.items() if state.state != "ok"}
    assert list(states) == ["_odd", "broken"], "in the order of their names"
    assert states["broken"].error == "it cannot be imported: OSError: no luck"
    assert states["_odd"].origin == str(tmp_path / "plugins" / "_odd.py")
    assert "SyntaxError" in states["_odd"].error
    assert collector.registry.by_executor()["json"], "an executor of its own"


def test_a_file_does_not_replace_a_plugin_or_a_metric(tmp_path: Path) -> None:
    text = ONE_FILE.replace("NAME", "twice")
    made = Registry()
    made.load(folder_of(tmp_path / "plugins", rows=text, a=text, b=text))
    path = tmp_path / "plugins" / "rows.py"
    assert made.plugins["rows"].origin == "zmon_plugins.metrics.rows"
    assert "the name is taken by zmon_plugins.metrics.rows" in made.plugins[f"rows ({path})"].error
    assert made.metrics["twice"].plugin == "a"
    assert "already registered by 'a'" in made.plugins["b"].error


def test_the_folder_must_be_there_and_be_ours_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere is not a folder; create it"):
        Registry().load(tmp_path / "nowhere")
    folder = folder_of(tmp_path / "plugins", open=ONE_FILE.replace("NAME", "open"))
    (folder / "open.py").chmod(0o666)
    (folder / ".hidden.py").write_text("1 +")
    made = Registry()
    made.load(folder)
    assert "can be written by every user" in made.plugins["open"].error
    assert not made.plugins.keys() & {".hidden", "hidden"}
    folder.chmod(0o777)
    with pytest.raises(ConfigurationError, match="can be written by every user"):
        Registry().load(folder)


def test_a_file_may_refuse_the_start(tmp_path: Path) -> None:
    text = ONE_FILE.replace("import Value", "import ConfigurationError, Value")
    text = text.replace("register(Rows())", "raise ConfigurationError('below 1')")
    with pytest.raises(ConfigurationError, match="below 1"):
        Registry().load(folder_of(tmp_path / "plugins", refuses=text))


def test_commands_load_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("zmon.collector"), "propagate", True)  # commands turn it off
    folder = folder_of(tmp_path / "plugins", mine=ONE_FILE.replace("NAME", "mine"))
    data = str(tmp_path / "data")
    listed = CliRunner().invoke(cli, ["plugins", "--plugins-dir", str(folder), "--data-dir", data])
    assert listed.exit_code == 0, listed.output
    assert f"metric  mine                     ok           {folder / 'mine.py'}" in listed.output
    config = tmp_path / "zmon.toml"
    config.write_text("[plugins.mine]\ntimes = 2\n")
    assert CliRunner().invoke(cli, ["validate", str(config), "--plugins-dir", str(folder)]).exit_code == 0
    without = CliRunner().invoke(cli, ["validate", str(config)])
    assert "no such plugin" in str(without.exception)


def test_another_folder_needs_a_restart(tmp_path: Path) -> None:
    old, new = parse({}), parse({"collector": {"plugins_dir": str(tmp_path)}})
    assert merged(old, new) == (old, ["[collector] plugins_dir"])


# --- metrics that misbehave while windows are computed --------------------------------------------------------------


class RaisesInUpdate(Mean):
    name = "raises"
    calls = 0

    def update(self, acc: Any, batch: Batch, ctx: Context) -> Any:
        type(self).calls += 1
        raise ZeroDivisionError("of plugin")


class RaisesInResult(Mean):
    name = "raises"

    def result(self, acc: Any, ctx: Context) -> Iterable[Value]:
        yield Value("early", 1.0)
        raise ZeroDivisionError("of plugin")


class NotFinite(Mean):
    name = "raises"

    def result(self, acc: Any, ctx: Context) -> Iterable[Value]:
        yield Value("undefined", float("nan"))


class NameOfNone(Mean):
    name = "raises"

    def result(self, acc: Any, ctx: Context) -> Iterable[Value]:
        yield Value("undefined", 1.0, class_name=None)  # type: ignore[arg-type]


class NameOfNumber(Mean):
    name = "raises"

    def result(self, acc: Any, ctx: Context) -> Iterable[Value]:
        yield Value("undefined", 1.0, class_name=3)  # type: ignore[arg-type]


class LoneSurrogate(Mean):
    name = "raises"

    def result(self, acc: Any, ctx: Context) -> Iterable[Value]:
        yield Value("undefined", 1.0, class_name="\ud800")


class LeavesASet(Mean):
    name = "raises"

    def result(self, acc: Any, ctx: Context) -> Iterable[Value]:
        ctx.memory["seen"] = {1}
        yield Value("undefined", 1.0)


@pytest.mark.parametrize(
    "bad", [RaisesInUpdate, RaisesInResult, NotFinite, NameOfNone, NameOfNumber, LoneSurrogate, LeavesASet]
)
def test_a_metric_that_raises_loses_only_its_own_values(
    bad: Any, collect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    collector = serve(collect, windows=DISABLE_AFTER + 2, bad=plugin(bad()), sound=plugin(Mean()))
    assert len(collector.files()) == DISABLE_AFTER + 2
    found = whats(collector)
    assert {"mean_top", "buffer_count", "prediction_freq"} <= found
    assert not {"early", "undefined", "raises"} & found
    state = collector.registry.metrics["raises"]
    assert state.state == "disabled"
    assert state.errors >= DISABLE_AFTER
    errors = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
    assert len(errors) == 2, "once when it first fails, once when it is disabled"
    assert "metric 'raises' of plugin 'bad'" in errors[0]
    assert collector.registry.metrics["mean_top"].state == "ok"


class Hangs(Mean):
    name = "hangs"
    release: threading.Event

    def __init__(self, where: str) -> None:
        self.where = where
        self.release = threading.Event()

    def update(self, acc: Any, batch: Batch, ctx: Context) -> Any:
        if self.where == "update":
            self.release.wait(60)
        return super().update(acc, batch, ctx)

    def result(self, acc: Any, ctx: Context) -> Iterable[Value]:
        if self.where == "result":
            self.release.wait(60)
        yield Value("hangs", 1.0)


class Beside(Mean):
    """A sound metric in the same plugin as one that hangs."""

    name = "beside"

    def result(self, acc: Any, ctx: Context) -> Iterable[Value]:
        yield Value("beside", acc["n"])


@pytest.mark.parametrize("where", ["update", "result"])
def test_a_metric_that_hangs_is_left_behind(where: str, collect: Any, caplog: pytest.LogCaptureFixture) -> None:
    bad = Hangs(where)
    collector = collect(plugins={"bad": plugin(bad, Beside()), "sound": plugin(Mean())}, metric_timeout=0.5)
    try:
        with collector.publisher(agent_id="a", classes=["x", "y"]) as publisher:
            for window in range(20):  # receiving goes on while the metric hangs, for a minute
                publisher.publish(P, timestamps=1_000_000_000 + 60 * window)
                assert publisher.flush(60)
            until(lambda: collector.registry.metrics["hangs"].state == "stuck", what="left behind")
        collector.stop()
    finally:
        bad.release.set()
    assert len(collector.files()) == 20
    assert "hangs" not in whats(collector)
    beside = [p["value"] for p in collector.points() if p["properties"]["what"] == "beside"]
    assert beside == [20] * 40, "in every window, for the agent and rolled up"
    assert collector.counts("buffer_count", agent_id=None) == 400
    assert "did not return within 0.5 s" in caplog.text
    assert collector.registry.metrics["mean_top"].state == "ok"


class Remembers(Mean):
    """Counts windows in its memory; fails in the third."""

    name = "remembers"

    def result(self, acc: Any, ctx: Context) -> Iterable[Value]:
        ctx.memory["windows"] = ctx.memory.get("windows", 0) + 1
        if ctx.window.start == 1_000_000_080:
            raise RuntimeError("third window")
        yield Value("remembered", ctx.memory["windows"])


def test_memory_is_kept_from_window_to_window_by_agent_and_only_when_it_closed(collect: Any) -> None:
    collector = serve(collect, windows=5, acme=plugin(Remembers()))
    for agent in ("a", None):
        values = [
            point["value"]
            for point in collector.points()
            if point["properties"]["what"] == "remembered" and point["properties"].get("agent_id") == agent
        ]
        assert values == [1, 2, 3, 4]


class Compares(Mean):
    name = "compares"

    def compare(self, by_agent: dict[str, Any], ctx: Context) -> Iterable[Value | zmon.Point]:
        yield Value("spread", max(a["sum"] for a in by_agent.values()) - min(a["sum"] for a in by_agent.values()))
        for agent, acc in by_agent.items():
            yield zmon.Point(agent, Value("own_rows", acc["n"]))


def test_siblings_are_compared_before_they_are_merged(collect: Any) -> None:
    collector = collect(plugins={"acme": plugin(Compares())})
    publishers = [collector.publisher(agent_id=agent, classes=["x", "y"]) for agent in "ab"]
    for publisher, rows in zip(publishers, (5, 15), strict=True):
        publisher.publish(P[:rows], timestamps=1_000_000_000)
        assert publisher.flush(60)
    for publisher in publishers:
        publisher.close()
    collector.stop()
    points = {(p["properties"]["what"], p["properties"].get("agent_id")): p["value"] for p in collector.points()}
    assert points["spread", None] == pytest.approx(9.0)
    assert (points["own_rows", "a"], points["own_rows", "b"]) == (5, 15)
    assert points["mean_top", None] == pytest.approx(0.9)


# --- presets and options --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "has", "lacks"),
    [
        (
            "minimal",
            {"buffer_count", "prediction_freq", "accuracy", "rows_lost"},
            {"prediction_count", "feature_value"},
        ),
        ("default", {"prediction_count", "feature_value", "spread12_prediction_proba"}, {"class_proba", "label_count"}),
        ("full", {"class_proba", "label_count", "confusion_count"}, set()),
    ],
)
def test_presets(preset: str, has: set[str], lacks: set[str], collect: Any) -> None:
    collector = collect(config=parse({"models": {"model": {"preset": preset}}}))
    with collector.publisher(agent_id="a", classes=["x", "y"]) as publisher:
        publisher.publish(P, inputs=np.ones((20, 2)), labels=[0] * 20, timestamps=1_000_000_000)
        assert publisher.flush(60)
    collector.stop()
    found = whats(collector)
    assert has <= found
    assert not lacks & found
    stats = {
        p["properties"].get("stat") for p in collector.points() if p["properties"]["what"] == "max_prediction_proba"
    }
    assert (
        stats
        == {
            "minimal": {"mean", "median", "iqr"},
            "default": {"mean", "median", "iqr", "std", "range", "q25", "q50", "q75"},
            "full": {"mean", "median", "iqr", "std", "range", "q25", "q50", "q75", "min", "max", "q05", "q95", "q99"},
        }[preset]
    )


def test_the_reason_of_a_stuck_metric_is_not_that_of_a_later_failure_elsewhere() -> None:
    state = MetricState(Mean(), "acme")
    state.mark_stuck(("m", ""), 3.0)
    state.record_failure(("n", ""), "ValueError: no luck")
    assert (state.state, state.models, state.reason) == ("stuck", ["m"], "did not return within 3 s")
    state.forget(("m", ""))
    assert (state.state, state.reason) == ("ok", "ValueError: no luck")


def test_a_process_that_stood_still_is_no_fault_of_a_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the time in which somebody could look counts: a container is paused, a machine frozen."""
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    state = MetricState(Mean(), "acme")
    release = threading.Event()
    executor = MetricExecutor("acme", [state], 1, lambda *_: None)
    window = WindowState(("m", ""), OpenWindow(0, 60))
    step = Step(window, lambda _, progress: progress.guard("mean_top", lambda: release.wait(60)), lambda *_: None)
    executor.submit(step)
    while not step.progress.metric:
        pass
    for seconds in (0.05, 50.0, 0.05):
        clock[0] += seconds
        assert executor.abandon_overdue(30.0) == []
    found = []
    while not found and clock[0] < 200.0:
        clock[0] += 0.5
        found = executor.abandon_overdue(30.0)
    assert found == [state], "it does take too long"
    assert clock[0] > 175.0
    release.set()
    executor.shutdown()
