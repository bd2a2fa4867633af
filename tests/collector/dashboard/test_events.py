"""Live updates: one rendering for all, the newest for the slow, a number to come back with, and an end in time."""

from __future__ import annotations

import time

import pytest

from tests.support.pages import Look, Start, get, shown
from tests.support.reports import window
from tests.support.waiting import until


def now() -> int:
    return int(time.time()) // 10 * 10


def test_a_window_reaches_every_viewer_at_once_and_is_rendered_once(paged: Start, look: Look) -> None:
    collector = paged()
    shown(collector, window(1, now() - 20))
    viewers = [look(collector, "view=model&model=m") for _ in range(20)]
    first = [viewer.next() for viewer in viewers]
    assert len({number for number, _ in first}) == 1
    started = time.monotonic()
    shown(collector, window(2, now() - 10, confidence=0.5))
    second = [viewer.next() for viewer in viewers]
    assert time.monotonic() - started < 1.5
    assert len({number for number, _ in second}) == 1, "one rendering, shared"
    assert second[0][0] > first[0][0]
    assert second[0][1]["summary"]["confidence"] == 0.5


def test_other_models_windows_do_not_wake_a_models_viewers(paged: Start, look: Look) -> None:
    collector = paged()
    shown(collector, window(1, now() - 20))
    viewer = look(collector, "view=model&model=m")
    viewer.next()
    shown(collector, window(2, now() - 10, model="other"))
    assert viewer.silent(1.5)


def test_a_viewer_that_comes_back_goes_on_by_number(paged: Start, look: Look) -> None:
    collector = paged()
    shown(collector, window(1, now() - 20))
    number, _ = look(collector, "view=model&model=m").next()
    again = look(collector, "view=model&model=m", last=number)
    assert again.silent(0.7), "it has seen this state"
    shown(collector, window(2, now() - 10))
    assert again.next()[0] > number
    assert look(collector, "view=model&model=m", last=1).next()[0] > number


def test_a_slow_viewer_gets_the_newest_state_and_holds_nothing_up(paged: Start, look: Look) -> None:
    collector = paged()
    many = {"features": tuple(f"f{i}" for i in range(40)), "classes": tuple(f"c{i}" for i in range(40))}
    shown(collector, window(1, now() - 1000, **many, confidence=0.2))
    slow = look(collector, "view=model&model=m", receive_buffer=4096)
    quick = look(collector, "view=model&model=m")
    quick.next()
    for i in range(24):
        shown(collector, window(i + 2, now() - 990 + 10 * i, **many, confidence=0.5 + i / 100))
        seen = until(lambda: quick.next()[1], what="the quick viewer's update")
    while seen["summary"]["confidence"] != pytest.approx(0.73):
        seen = quick.next()[1]
    got = []
    for _, view in slow.events():
        got.append(view["summary"]["confidence"])
        if got[-1] == pytest.approx(0.73):
            break
    assert len(got) < 18, "what it was too slow for is gone"


def test_too_many_viewers_are_refused(paged: Start, look: Look) -> None:
    collector = paged(viewers=2)
    viewers = [look(collector, "view=health") for _ in range(2)]
    for viewer in viewers:
        viewer.next()
    assert get(f"{collector.service.site.url}api/v1/events?view=health").status_code == 503
    viewers.pop().socket.close()
    until(lambda: not look(collector, "view=health").silent(1), what="a free place")


def test_it_ends_within_two_seconds_with_viewers(paged: Start, look: Look) -> None:
    collector = paged()
    shown(collector, window(1, now() - 20))
    viewers = [look(collector, "view=model&model=m") for _ in range(30)]
    for viewer in viewers[:15]:
        viewer.next()
    started = time.monotonic()
    collector.stop()
    assert time.monotonic() - started < 2.0
    assert list(viewers[0].events()) == [], "the stream has ended"
