"""What has been silent for long goes, with all that is kept of it; what was promised for it holds until then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from zmon_collector.compute.engine import Engine
from zmon_collector.compute.memory import MetricMemory
from zmon_collector.compute.window_contract import Contract
from zmon_collector.config import Config
from zmon_collector.config.policy import PolicyStore
from zmon_collector.config.sections import LimitsSection
from zmon_collector.ingest.ingestor import Ingestor
from zmon_collector.ingest.recovery import Recovery
from zmon_collector.ingest.retention import EVERY, FORGET_AGENT, FORGET_MODEL, Retention
from zmon_collector.ingest.schema_cache import SchemaCache
from zmon_collector.storage import journal, journal_state
from zmon_collector.storage.database import Database
from zmon_collector.telemetry import Telemetry
from zmon_collector.windows import window
from zmon_collector.windows.manager import WindowManager
from zmon_collector.windows.window import ModelKey, Now, OpenWindow, WindowRules

from tests.support.collectors import Collector
from tests.support.databases import in_memory, stored
from tests.support.waiting import until
from zmon import Batch, Schema
from zmon._wire.control import Greeting
from zmon._wire.frames import Message, Topic, decode_schema, encode_schema, schema_hash
from zmon.state import pack_state

DAY = 86400.0
SCHEMA = Schema(classes=("a", "b"), tags={"zone": "eu"})
BODY = encode_schema(SCHEMA)


class Computed:
    """Stands for the engine: keeps what metrics would keep, and finishes windows when it is told to."""

    def __init__(self) -> None:
        self.memory = MetricMemory()
        self.windows: list[tuple[ModelKey, OpenWindow]] = []

    def open(self, *_: object) -> Contract:
        return Contract()

    def add_rows(self, model: ModelKey, window: OpenWindow, *_: object) -> None:
        if (model, window) not in self.windows:
            self.windows.append((model, window))

    def close(self, model: ModelKey, window: OpenWindow) -> None:
        pass

    def forget(self, model: ModelKey) -> None:
        self.memory.forget(model)

    def rows(self, *_: object) -> dict[str, int]:
        return {}

    def unfinished(self) -> list[tuple[ModelKey, OpenWindow]]:
        return self.windows


class Scene:
    """An ingestor with a journal, by a clock that is set."""

    def __init__(self, models: int = 1000, agents: int = 100) -> None:
        self.connection = in_memory()
        self.config = replace(Config(), limits=LimitsSection(models=models, agents=agents))
        self.at = 1_700_000_000.0
        self.telemetry = Telemetry()
        self.streams = 0
        self.begin()

    def begin(self) -> None:
        """A collector starts on what the journal has."""
        self.engine = Computed()
        self.ingestor = Ingestor(
            self.config, PolicyStore(self.config), self.telemetry, cast(Engine, self.engine), journal=True
        )
        self.forgetting = Retention(self.ingestor)
        found = journal_state.load(self.connection)
        database = cast(Database, SimpleNamespace(delete_chunks=lambda window, through: None))
        recovery = Recovery(found, self.ingestor, database, lambda: None)
        recovery.restore(self.now)

    @property
    def now(self) -> Now:
        return Now(self.at, self.at)

    def publish(self, version: str, agent: str = "pod", *, leave: bool = True, when: float | None = None) -> None:
        """A publisher comes, publishes a row (of this moment), and goes."""
        self.streams += 1
        topic, stream = Topic("m", version, agent), self.streams.to_bytes(16, "big")
        tally: dict[str, Any] = {}
        self.ingestor.handle_greeting(Greeting("hello", topic, stream, 1, 0, 1, 0, tally), b"peer", self.now)
        self.ingestor.handle_message(Message(topic, "schema", stream, schema_hash(BODY), 0, 0, 1, body=BODY), self.now)
        batch = Batch(SCHEMA, {"probabilities": np.array([[0.25, 0.75]])}, 1)
        times = int((self.at if when is None else when) * 1e9)
        self.ingestor.handle_message(
            Message(topic, "batch", stream, schema_hash(BODY), 1, 1, 1, ts=times, columns=dict(batch.raw())),
            self.now,
        )
        if leave:
            self.ingestor.handle_greeting(Greeting("bye", topic, stream, 2, 0, 1, 0, tally), b"peer", self.now)
        self.turn()

    def turn(self) -> None:
        self.ingestor.end_streams(self.now)
        self.ingestor.close_due(self.now, hold=False)
        self.forgetting.forget_silent(self.now)
        turn, _, _ = self.ingestor.end_turn(self.now)
        journal.write(turn, self.connection)

    def report(self) -> None:
        """The windows that have closed are finished; a metric has kept something of the agents in them."""
        for number, pending in list(self.ingestor.unreported.items()):
            if pending.window.start not in self.ingestor.models[pending.model].windows.open:
                kept: dict[str, Any] = {"kept": 1}
                memory = {("metric", agent): pack_state(kept) for agent in (*pending.window.tallies, None)}
                for agent in (*pending.window.tallies, None):
                    self.engine.memory.restore(pending.model, "metric", agent, kept)
                journal.write_closed(number, pending.model, memory, self.connection)
                del self.ingestor.unreported[number]
                self.engine.windows = [each for each in self.engine.windows if each[1] is not pending.window]

    def live_on(self, seconds: float, step: float = 1800.0) -> None:
        """Time passes, turn by turn."""
        until = self.at + seconds
        while self.at < until:
            self.at = min(until, self.at + step)
            self.turn()
            self.report()

    def kept(self, table: str) -> set[tuple[str, str]]:
        return set(self.connection.execute(f"SELECT model, version FROM {table}").fetchall())


@pytest.mark.parametrize("restarts", [False, True])
def test_a_version_a_day_never_fills_the_limit(restarts: bool) -> None:
    scene = Scene(models=10)
    for day in range(40):
        scene.publish(f"v{day}")
        scene.live_on(DAY, 7200.0)
        if restarts:
            scene.begin()
    assert len(scene.ingestor.models) <= 10
    assert len(scene.kept("spans")) <= 10, "closed marks go with their model"


def test_too_many_at_a_time_are_refused_as_before() -> None:
    scene = Scene(models=3)
    for number in range(3):
        scene.publish(f"v{number}")
    scene.live_on(DAY)
    scene.publish("v3")
    assert ("m", "v3") not in scene.ingestor.models
    assert scene.telemetry.get("rejected", "models") == 1


def test_everything_of_a_silent_model_goes_and_nothing_of_another() -> None:
    scene = Scene()
    scene.publish("old")
    scene.live_on(DAY)
    scene.publish("new", leave=False)
    for version in ("old", "new"):
        scene.connection.execute(
            "INSERT INTO label_owners (owner, model, version) VALUES (?, 'm', ?)", (hash(version), version)
        )
    scene.live_on(FORGET_MODEL - DAY / 2)
    assert set(scene.ingestor.models) == {("m", "new")}
    assert not scene.engine.memory.of(("m", "old"))
    for table in ("spans", "memory", "label_owners", "heard"):
        assert scene.kept(table) == {("m", "new")}, table
    assert scene.telemetry.get("models_forgotten") == 1


def test_closed_marks_are_kept_as_long_as_the_model() -> None:
    """Also across restarts, one a day: what comes for a closed window is late."""
    scene = Scene()
    scene.publish("v")
    first = scene.at
    scene.live_on(120.0, 10.0)
    for _ in range(6):
        scene.live_on(DAY)
        scene.begin()
    scene.publish("v", when=first)
    assert scene.telemetry.get("late_or_conflicting") == 1
    for _ in range(6):
        scene.live_on(DAY)
        scene.begin()
    assert ("m", "v") in scene.ingestor.models, "it was heard of six days ago"
    scene.live_on(2 * DAY)
    assert ("m", "v") not in scene.ingestor.models
    scene.begin()
    assert ("m", "v") not in scene.ingestor.models
    scene.publish("v", when=first)
    assert scene.telemetry.get("late_or_conflicting") == 1, "the window is a new one"


def test_a_publisher_that_says_nothing_but_that_it_is_there_keeps_its_model() -> None:
    scene = Scene()
    scene.publish("v", leave=False)
    stream = scene.streams.to_bytes(16, "big")
    for _ in range(20):
        scene.live_on(DAY)
        scene.ingestor.handle_greeting(
            Greeting("ping", Topic("m", "v", "pod"), stream, 2, 1, 1, 0, {}), b"p", scene.now
        )
    assert ("m", "v") in scene.ingestor.models


def test_pods_with_random_names_leave_nothing_behind() -> None:
    scene = Scene()
    for pod in range(30):
        scene.publish("v", f"pod-{pod}")
        scene.live_on(FORGET_AGENT / 2)
    scene.live_on(2 * FORGET_AGENT)
    assert not scene.ingestor.models["m", "v"].tags
    assert scene.connection.execute("SELECT count(*) FROM memory WHERE agent != ''").fetchone() == (0,)


@pytest.mark.parametrize("down", [2.0, 8 * DAY])
def test_pods_that_were_forgotten_stay_so_over_a_restart(down: float) -> None:
    """They were killed: nobody said goodbye, so their streams are remembered."""
    scene = Scene(agents=5)
    for pod in range(7 * 12):
        scene.publish("v", f"pod-{pod}", leave=False)
        scene.live_on(7200.0)
    scene.at += down
    scene.begin()
    for pod in range(5):
        scene.publish("v", f"new-{pod}", leave=False)
    assert scene.telemetry.get("agents_over_limit") == 0
    agents = {agent for (agent,) in scene.connection.execute("SELECT agent FROM agents")}
    assert agents == {f"new-{pod}" for pod in range(5)}


@pytest.mark.parametrize("every", [600.0, 2400.0])
def test_an_agent_grows_old_over_restarts_as_without_them(every: float) -> None:
    scene = Scene()
    scene.publish("v", "silent", leave=False)
    gone_after = 0.0
    while scene.ingestor.models["m", "v"].windows.knows("silent"):
        scene.publish("v", "busy", leave=False)
        scene.live_on(every)
        gone_after += every
        scene.begin()
        assert scene.ingestor.models["m", "v"].windows.knows("busy")
        assert gone_after <= FORGET_AGENT + 2 * every
        scene.turn()


def test_an_agent_whose_rows_repeat_old_times_is_heard_of() -> None:
    """What it replays does not advance its time, and it is there all the same, also after a restart."""
    scene = Scene()
    scene.publish("v", "a", leave=False)
    first = scene.at
    for _ in range(10):
        scene.live_on(FORGET_AGENT / 2)
        scene.publish("v", "a", leave=False, when=first)
    scene.live_on(300.0, 10.0)
    scene.begin()
    scene.turn()
    assert scene.ingestor.models["m", "v"].windows.knows("a")


def test_windows_wait_for_the_agents_they_waited_for_before_a_restart() -> None:
    scene = Scene()
    scene.publish("v", "there", leave=False)
    scene.publish("v", "dead", leave=False)
    scene.live_on(600.0, 10.0)
    scene.publish("v", "there", leave=False)
    scene.live_on(300.0, 10.0)
    scene.begin()
    windows = scene.ingestor.models["m", "v"].windows
    assert [scene.at - windows.clock(agent, scene.now)[1] for agent in ("there", "dead")] == [0.0, 600.0]


def test_an_agent_is_kept_until_its_window_is_reported() -> None:
    """Else the report of a window of a day would lack the tags of the agents of its morning, and what metrics keep of
    them would be kept for good."""
    scene = Scene()
    scene.config = replace(scene.config, collector=replace(scene.config.collector, window=int(DAY)))
    scene.begin()
    scene.at = scene.at // DAY * DAY + 60.0
    scene.publish("v")
    scene.live_on(DAY / 2)
    assert scene.ingestor.models["m", "v"].tags["pod"] == {"zone": "eu"}
    scene.live_on(DAY)
    assert not scene.ingestor.models["m", "v"].tags
    assert scene.connection.execute("SELECT count(*) FROM memory WHERE agent != ''").fetchone() == (0,)


def test_closed_stretches_on_disk_follow_those_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "SPANS", 5)
    connection = in_memory()
    manager = WindowManager(WindowRules())
    random = np.random.default_rng(0)
    for start in random.permutation(60).tolist():
        spans = manager.closed.add(start * 10, start * 10 + 3)
        journal.write(journal.Turn(1, spans=[("m", "", *span) for span in spans]), connection)
        rows = connection.execute('SELECT start, "end" FROM spans ORDER BY start').fetchall()
        assert rows == list(zip(manager.closed.starts, manager.closed.ends, strict=True))
    assert len(rows) == 5


def test_a_schema_in_use_is_not_the_one_that_goes() -> None:
    """The one that came first is used all the time; what nobody has used for longest makes room."""
    schemas = SchemaCache(Telemetry())
    given = [Schema(classes=("a", "b"), features=(f"feature_{n}",), kinds=("numeric",)) for n in range(4)]
    bodies = [encode_schema(schema) for schema in given]
    held = [decode_schema(body, schema_hash(body)).nbytes + len(body) for body in bodies]
    limits = LimitsSection(schema_bytes=3 * max(held))
    for body in bodies:
        schemas.store(Message(Topic("m", "", "a"), "schema", b"s" * 16, schema_hash(body), body=body), limits)
        assert schemas.get(schema_hash(bodies[0])), "it is in use"
    assert schemas.get(schema_hash(bodies[1])) is None


def test_a_collector_forgets(collect: Callable[..., Collector], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with sockets, an engine and a file."""
    for name in ("FORGET_AGENT", "FORGET_MODEL", "EVERY"):
        monkeypatch.setattr(f"zmon_collector.ingest.retention.{name}", 0.0)
    collector = collect(window=1, idle=1.0, label_horizon=0.001)
    for version in ("1", "2"):
        with collector.publisher(classes=2, version=version, agent_id="a", tags={"x": "y"}) as publisher:
            publisher.publish(np.eye(2), ids=[1, 2], labels=[0, 1])
            assert publisher.flush(60)
    until(lambda: collector.service.telemetry.get("models_forgotten") == 2, what="both are forgotten")
    collector.stop()
    assert collector.counts("buffer_count", agent_id=None) == 4
    for table in ("spans", "agents", "memory", "label_owners", "heard", "windows"):
        assert stored(collector.folder, f"SELECT count(*) FROM {table}") == [(0,)], table


def test_a_turn_looks_at_few_models_and_every_model_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(models=400)
    for version in range(200):
        scene.publish(str(version))
    looked: Counter[WindowManager] = Counter()
    has_silent_agents = WindowManager.has_silent_agents

    def noted(manager: WindowManager, now: Now, after: float) -> bool:
        looked[manager] += 1
        return has_silent_agents(manager, now, after)

    monkeypatch.setattr(WindowManager, "has_silent_agents", noted)
    for _ in range(int(2 * EVERY / 0.05)):
        scene.at += 0.05
        before = looked.total()
        scene.forgetting.forget_silent(scene.now)
        assert looked.total() - before <= 2
    assert len(looked) == 200
    assert max(looked.values()) <= 3
