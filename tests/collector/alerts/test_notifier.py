"""Targets do not wait for each other, and none holds up the end of the collector."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from zmon_collector.alerts import notifier
from zmon_collector.alerts.notifier import Answer, NotificationQueues, Notifier, post
from zmon_collector.config.alerting import NotifySection
from zmon_collector.telemetry import Telemetry

from tests.support.targets import OK, Target, answers
from tests.support.waiting import until


def message(number: int) -> dict[str, Any]:
    return {"key": f"k{number}", "event": "opened", "severity": "critical", "model": "m", "version": "", "text": "t"}


def notifier_of(targets: dict[str, NotifySection], send: Callable[..., Answer]) -> tuple[Notifier, NotificationQueues]:
    queues = NotificationQueues(targets)
    return Notifier(queues, threading.Lock(), lambda: None, Telemetry(), send), queues


class Slow:
    """Answers of the target ``slow`` wait for their release; others come at once."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.sent: list[tuple[str, str]] = []

    def __call__(self, target: NotifySection, content: Any) -> Answer:
        if target.url_env == "SLOW":
            self.released.wait()
        self.sent.append((target.url_env, content["key"]))
        return Answer(200)


def test_a_target_that_does_not_answer_delays_no_other_and_gets_one_message_at_a_time() -> None:
    send = Slow()
    one, queues = notifier_of({"slow": NotifySection(url_env="SLOW"), "quick": NotifySection(url_env="QUICK")}, send)
    for number in range(3):
        queues.enqueue(message(number))
        until(lambda number=number: one.turn(0.0) is not None and ("QUICK", f"k{number}") in send.sent, "the quick one")
    assert len(queues.queues["slow"]) == 3
    send.released.set()
    until(lambda: one.turn(0.0) is not None and not queues.queues["slow"], "the slow one's messages")
    assert [key for name, key in send.sent if name == "SLOW"] == ["k0", "k1", "k2"]


def test_a_target_without_an_answer_is_named_in_health(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier, "OVERDUE", 0.0)
    send = Slow()
    one, queues = notifier_of({"slow": NotifySection(url_env="SLOW", timeout=0.0)}, send)
    queues.enqueue(message(1))
    (thread,) = one.turn(0.0)
    assert one.problems()[0].startswith("[notify.slow] takes no alerts (no answer for 0 s)")
    send.released.set()
    thread.join()
    assert one.problems() == []


def test_the_end_does_not_wait_for_a_target_and_notes_nothing_of_it_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notifier, "LAST_ANSWER", 0.1)
    send = Slow()
    saved: list[int] = []
    queues = NotificationQueues({"slow": NotifySection(url_env="SLOW")})
    one = Notifier(queues, threading.Lock(), lambda: saved.append(1), Telemetry(), send)
    queues.enqueue(message(1))
    (thread,) = one.turn(0.0)
    began = time.monotonic()
    one.stop(10.0)
    assert time.monotonic() - began < 5.0
    send.released.set()
    thread.join()
    assert not saved and queues.queues["slow"], "the database may be closed: the next run sends it"


def test_a_target_that_changed_is_tried_at_once_though_the_former_one_has_not_answered() -> None:
    send = Slow()
    one, queues = notifier_of({"ops": NotifySection(url_env="SLOW")}, send)
    queues.enqueue(message(1))
    (former,) = one.turn(0.0)
    queues.replace_targets({"ops": NotifySection(url_env="NEW")})
    (thread,) = one.turn(0.0)
    thread.join()
    assert send.sent == [("NEW", "k1")]
    send.released.set()
    former.join()
    assert not queues.queues["ops"]


@pytest.mark.parametrize(("asked", "waits"), [(0.0, 1.0), (120.0, 120.0), (86_400.0, notifier.LONGEST_PAUSE)])
def test_a_target_gets_the_pause_that_it_asks_for(asked: float, waits: float) -> None:
    one, queues = notifier_of({"ops": NotifySection(url_env="X")}, lambda *_: Answer(429, asked))
    queues.enqueue(message(1))
    (thread,) = one.turn(0.0)
    thread.join()
    assert one.turn(waits - 0.5) == []
    assert len(one.turn(waits)) == 1


def test_an_answer_as_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    with Target(answers(b"HTTP/1.1 429 Slow down\r\nRetry-After: 7\r\n")) as target:
        monkeypatch.setenv("HOOK", target.url)
        assert post(NotifySection(url_env="HOOK"), {"key": "k"}) == Answer(429, 7.0)
        assert target.requests[0].endswith(b'\r\n\r\n{"key": "k"}')
    with Target(answers(OK)) as target:
        monkeypatch.setenv("HOOK", target.url)
        assert post(NotifySection(url_env="HOOK"), {}) == Answer(200)
