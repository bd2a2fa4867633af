"""Threads give signs of life, go on after errors, and /healthz says when the collector cannot do its job."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from zmon_collector import lifecycle, pauses, supervision, watchdog
from zmon_collector.alerts import notifier
from zmon_collector.config import Config
from zmon_collector.config.sections import HealthSection, WebSection
from zmon_collector.delivery import dispatch
from zmon_collector.ingest import receiver
from zmon_collector.supervision import SupervisedThread
from zmon_collector.telemetry import Telemetry
from zmon_collector.watchdog import Vital, Watchdog

from tests.support.waiting import until
from zmon import MetricBase, SinkBase
from zmon.batch import Batch
from zmon.contract import Context, Report, Value, Window
from zmon.hooks import hookimpl

EVERYTHING = Config(web=WebSection(bind="127.0.0.1:0"), health=HealthSection(bind="127.0.0.1:0"))
PROBES = Config(web=WebSection(enabled=False), health=HealthSection(bind="127.0.0.1:0"))


# --- a thread goes on ------------------------------------------------------------------------------------------------


def supervised(run: Callable[[], None]) -> tuple[SupervisedThread, threading.Event, Telemetry]:
    stop, telemetry = threading.Event(), Telemetry()
    thread = SupervisedThread("zmon-test", run, telemetry, stop)
    thread.start()
    return thread, stop, telemetry


@pytest.mark.parametrize(
    "error", [ValueError("no"), MemoryError(), SystemExit(1)], ids=lambda each: type(each).__name__
)
def test_a_thread_goes_on_after_an_error(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervision, "FIRST_WAIT", 0.001)
    errors = [error, error]

    def run() -> None:
        if errors:
            raise errors.pop()

    thread, _, telemetry = supervised(run)
    assert thread.join(60)
    assert telemetry.get("threads_restarted", "zmon-test") == 2
    assert type(error).__name__ in thread.error
    assert sum("zmon-test" in message for message in caplog.messages) == 1, "an error of one kind is logged once"
    monkeypatch.setattr(supervision, "FAILING", 0.0)
    assert not thread.error, "an error of long ago is no problem"


def test_a_thread_that_is_to_end_is_not_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "FIRST_WAIT", 3600.0)

    def run() -> None:
        raise ValueError

    thread, stop, telemetry = supervised(run)
    until(lambda: telemetry.get("threads_restarted"), what="the error")
    assert thread.is_alive()
    stop.set()
    assert thread.join(60)


# --- the watchdog's verdict ------------------------------------------------------------------------------------------


class Watched:
    """A watchdog over one thread that a test moves."""

    def __init__(self, **options: Any) -> None:
        self.alive, self.beat = True, 0
        self.stalled: list[str] = []
        self.dog = Watchdog(lambda: self.stalled)
        self.dog.watch(Vital("zmon-x", lambda: self.alive, lambda: self.beat, 5.0, **{"essential": True, **options}))

    def look(self, times: int, seconds: float = 1.0) -> None:
        for _ in range(times):
            self.dog.look(seconds)


def test_a_thread_without_signs_of_life_is_a_fault_until_it_goes_on() -> None:
    watched = Watched()
    watched.look(6)
    assert not watched.dog.failures()
    watched.look(1)
    assert watched.dog.failures() == watched.dog.problems() == ["the thread zmon-x has given no sign of life for 6 s"]
    watched.beat += 1
    watched.look(1)
    assert not watched.dog.failures()
    assert watched.dog.states() == {"zmon-x": "ok"}


def test_a_thread_that_waits_for_work_gives_no_signs() -> None:
    watched = Watched()
    watched.beat = None  # type: ignore[assignment]
    watched.look(60)
    assert not watched.dog.failures()


def test_a_thread_that_has_ended_is_a_fault_at_once() -> None:
    watched = Watched()
    watched.alive = False
    watched.look(1)
    assert "zmon-x has ended" in watched.dog.failures()[0]


def test_time_in_which_the_process_was_stopped_does_not_count() -> None:
    watched = Watched()
    watched.look(2)
    watched.look(1, seconds=3600.0)
    assert not watched.dog.failures()


def test_what_a_collector_can_do_without_is_a_problem_only() -> None:
    watched = Watched(essential=False)
    watched.look(10)
    assert watched.dog.problems()
    assert not watched.dog.failures()


def test_a_pause_in_which_nothing_moves_is_a_failure() -> None:
    watched = Watched()
    watched.stalled = ["no rows have been accepted"]
    assert watched.dog.failures() == ["no rows have been accepted"]


def test_where_a_thread_hangs_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()
    thread = threading.Thread(target=release.wait)
    thread.start()
    try:
        Watched(ident=lambda: thread.ident).look(10)
    finally:
        release.set()
        thread.join()
    assert len(caplog.messages) == 1
    assert "it is in" in caplog.messages[0]
    assert "threading.py" in caplog.messages[0]


# --- a whole collector -----------------------------------------------------------------------------------------------


def healthz(collector: Any) -> httpx.Response:
    return httpx.get(f"{collector.service.site.probes.url}healthz", timeout=30)


def test_healthz_answers_and_fails_while_the_collectors_thread_hangs(
    collect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "EVERY", 0.02)
    collector = collect(config=PROBES)
    assert (healthz(collector).status_code, healthz(collector).json()) == (200, {"status": "ok"})
    release = threading.Event()
    monkeypatch.setattr(collector.service.live, "record_health", lambda *_: release.wait())
    collector.service.watchdog.look(0.0)
    own = next(vital for vital in collector.service.watchdog.vitals if vital.name == "collector")
    own.limit = 0.1
    try:
        until(lambda: healthz(collector).status_code == 503, what="the failure")
        assert any("the thread collector" in reason for reason in healthz(collector).json()["reasons"])
    finally:
        monkeypatch.undo()
        own.limit = lifecycle.TURN_LIMIT
        release.set()
    until(lambda: healthz(collector).status_code == 200, what="the recovery")


def test_an_error_of_the_collectors_own_thread_ends_it(
    collect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("no")

    collector = collect()
    monkeypatch.setattr(collector.service.live, "record_health", fail)
    until(lambda: collector.service.failed, what="the end")
    collector.stop()
    assert any("own thread failed" in message for message in caplog.messages)
    assert not collector.service.database.is_alive()


def test_a_database_whose_thread_has_ended_ends_the_collector(
    collect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    collector = collect()
    monkeypatch.setattr(collector.service.database, "is_alive", lambda: False)
    until(lambda: collector.service.failed, what="the end")
    collector.stop()
    assert any("own thread failed" in message for message in caplog.messages)


def test_an_error_in_a_reload_does_not_end_the_collector(
    collect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise OSError("the disk of the configuration is gone")

    collector = collect()
    monkeypatch.setattr(collector.service.reloader, "read", fail)
    collector.service.request_reload()
    until(lambda: any("cannot be reloaded" in message for message in caplog.messages), what="the log")
    with collector.publisher(classes=2) as publisher:
        publisher.publish(np.full((4, 2), 0.5))
        assert publisher.flush(60)


def test_an_error_while_receiving_costs_one_message(
    collect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = [MemoryError(), ValueError()]

    class Inbox(deque[Any]):
        def append(self, message: Any) -> None:
            if errors and message.kind == "control":
                raise errors.pop()
            super().append(message)

    monkeypatch.setattr(receiver, "deque", Inbox)
    collector = collect()
    with collector.publisher(classes=2) as publisher:
        publisher.publish(np.full((4, 2), 0.5))
        assert publisher.flush(60)
    assert not errors
    assert collector.service.telemetry.get("threads_restarted", "zmon-receive") == 2
    assert any("zmon-receive" in problem for problem in collector.service.health().problems)
    collector.stop()
    assert collector.counts("buffer_count", agent_id=None) == 4


class Reluctant(SinkBase):
    """A sink that cannot be attached at first."""

    name = "reluctant"

    def __init__(self) -> None:
        self.attached, self.reports = 0, 0

    def attach(self, ledger: object) -> None:
        self.attached += 1
        if self.attached < 3:
            raise ValueError("not yet")

    def write(self, report: Report) -> None:
        self.reports += 1


def test_a_sink_that_cannot_be_attached_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "FIRST_WAIT", 0.01)
    sink, done = Reluctant(), []
    waiting = [Report(1, "m", "", Window(0, 60), [])]
    outbox = SimpleNamespace(
        wait_for_next=lambda reader: waiting.pop() if waiting else None,
        mark_done=lambda reader, sequence: done.append(sequence),
    )
    dead_letters = SimpleNamespace(ledger=lambda name, stopped: None)
    delivery = dispatch.SinkDelivery(sink, outbox, dead_letters, Telemetry())  # type: ignore[arg-type]
    delivery.start()
    assert delivery.join(60)
    assert (sink.attached, sink.reports, done) == (3, 1, [1])


def test_the_notifier_goes_on_after_an_error(collect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier, "POLL", 0.01)
    errors = [ValueError()]
    turn = notifier.Notifier.turn

    def fail(one: notifier.Notifier, wall: float) -> None:
        if errors:
            raise errors.pop()
        turn(one, wall)

    monkeypatch.setattr(notifier.Notifier, "turn", fail)
    collector = collect()
    until(lambda: collector.service.telemetry.get("threads_restarted", "zmon-notify"), what="the restart")
    assert all(state == "ok" for state in collector.service.health().threads.values())


@pytest.mark.parametrize("server", ["page", "probes"])
def test_a_web_server_that_has_ended_is_started_again_on_its_port(
    collect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    def end() -> None:
        raise SystemExit(1)

    monkeypatch.setattr(supervision, "FIRST_WAIT", 0.01)
    collector = collect(config=EVERYTHING)
    chosen = getattr(collector.service.site, server)
    with httpx.stream(
        "GET", f"{collector.service.site.url}api/v1/events", params={"view": "health"}, timeout=60
    ) as old:
        assert next(old.iter_lines())
        chosen.call(end)
        until(lambda: collector.service.telemetry.get("threads_restarted", chosen.thread.name), what="the restart")
        assert httpx.get(f"{chosen.url}healthz", timeout=60).status_code == 200
    assert any(chosen.thread.name in problem for problem in collector.service.health().problems)
    with httpx.stream(
        "GET", f"{collector.service.site.url}api/v1/events", params={"view": "health"}, timeout=60
    ) as new:
        assert any("event: view" in line for line in new.iter_lines()), "viewers are served again"


def test_every_thread_is_watched(collect: Callable[..., Any]) -> None:
    collector = collect(config=EVERYTHING, plugins={"acme": HangingPlugin(Hang())})
    of_pools = {"zmon-publisher"} | {thread.name for thread in threading.enumerate() if "-metrics-" in thread.name}
    running = {
        thread.name.removesuffix("_0") for thread in threading.enumerate() if thread.name.startswith("zmon-")
    } - of_pools
    watched = set(collector.service.health().threads)
    assert running - {"zmon-watch"} <= watched
    assert {"collector", "zmon-metrics-built-in", "zmon-metrics-acme", "zmon-anodot_file", "zmon-notify"} <= watched
    collector.service.watchdog.stop()
    assert not collector.service.watchdog.failures(), "it was stopped, and did not end by itself"


class Hang:
    """A call that returns once it is released; says who has called."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.called: set[str] = set()

    def __call__(self, name: str) -> None:
        self.called.add(name)
        self.release.wait()


class HangingMetric(MetricBase[int]):
    """Hangs in the rows of one model, so that windows of others are reported."""

    name = "hanging"

    def __init__(self, hang: Hang) -> None:
        self._hang = hang

    def create(self, ctx: Context) -> int:
        return 0

    def update(self, acc: int, batch: Batch, ctx: Context) -> int:
        if ctx.model == "hangs":
            self._hang("metrics-acme")
        return acc

    def merge(self, left: int, right: int) -> int:
        return left + right

    def result(self, acc: int, ctx: Context) -> Iterator[Value]:
        yield from ()


class HangingPlugin:
    def __init__(self, hang: Hang) -> None:
        self._hang = hang

    @hookimpl
    def register_metrics(self, register: Callable[[Any], None]) -> None:
        register(HangingMetric(self._hang))

    @hookimpl
    def window_closed(self, report: Report) -> None:
        self._hang("observers")


@pytest.mark.system
def test_each_thread_that_hangs_is_named_and_goes_on(
    collect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "EVERY", 0.05)
    hang, armed = Hang(), threading.Event()

    class Inbox(deque[Any]):
        def append(self, message: Any) -> None:
            if armed.is_set():
                hang("receive")
            super().append(message)

    monkeypatch.setattr(receiver, "deque", Inbox)
    collector = collect(config=EVERYTHING, plugins={"acme": HangingPlugin(hang)}, window=1, idle=1.0)
    service = collector.service
    monkeypatch.setattr(collector.registry.sinks["anodot_file"], "write", lambda report: hang("anodot_file"))
    monkeypatch.setattr(service.live, "record", lambda report: hang("history"))
    monkeypatch.setattr(notifier.Notifier, "turn", lambda *_: hang("notify"))
    for vital in service.watchdog.vitals:
        if vital.name != "zmon-alerts":  # which beats every ten seconds
            vital.limit = 3.0
    try:
        hung: set[str] = set()
        for model, further in (("m", {"anodot_file", "observers", "history", "notify"}), ("hangs", {"metrics-acme"})):
            with collector.publisher(model, classes=2) as publisher:
                publisher.publish(np.full((4, 2), 0.5))
                assert publisher.flush(120)
            hung |= further
            until(lambda hung=hung: hang.called >= hung, what="the readers' hanging")  # type: ignore[misc]
        armed.set()
        with collector.publisher(classes=2) as publisher:
            publisher.publish(np.full((4, 2), 0.5))
            service.database.submit(lambda connection: hang("store"))
            service.live.history.read(lambda connection: hang("history-file"))
            service.site.page.call(lambda: hang("web"))
            service.site.probes.call(lambda: hang("health"))
            hung |= {"store", "receive", "history-file", "web", "health"}
            until(lambda: hang.called >= hung, what="the hanging of all")
            states = service.watchdog.states
            until(lambda: all("no sign of life" in states()[f"zmon-{name}"] for name in hung), what="the verdict")
            essential = " ".join(service.watchdog.failures())
            assert [name for name in sorted(hung) if f"zmon-{name} " in essential] == ["receive", "store"]
            hang.release.set()
    finally:
        hang.release.set()
    until(lambda: not any(vital.fault for vital in service.watchdog.vitals), what="the recovery")


def test_a_pause_without_progress_fails_healthz(collect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pauses, "ENGINE_BYTES", -1)
    monkeypatch.setattr(pauses, "STALLED", 0.2)
    collector = collect(config=PROBES)
    until(lambda: healthz(collector).status_code == 503, what="the failure")
    assert "(metrics)" in healthz(collector).json()["reasons"][0]
    monkeypatch.undo()
    until(lambda: healthz(collector).status_code == 200, what="the end of the pause")
