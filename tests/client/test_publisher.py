"""The publisher in its process: it never raises or blocks, survives fork, threads and exit."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zmon
from tests.support.waiting import settled, until
from zmon._transport import settings, threads

P = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
NOWHERE = "ipc:///nonexistent/zmon"


def run(script: str, timeout: float = 30.0, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


WRONG = {
    "an endpoint of any host": {"collector": "tcp://*:5757"},
    "an endpoint with a NUL": {"collector": "ipc:///tmp/a\0b"},
    "an endpoint with a space": {"collector": "tcp://a b:5757"},
    "a control endpoint with a space": {"collector": "tcp://a:1", "control": "tcp://a :2"},
    "no model": {"model": ""},
    "a feature that cannot be sent": {"features": ["caf\ud800"]},
    "a feature that is too long": {"features": ["x" * 1025]},
    "a number as model": {"model": 3},
    "an unprintable model": {"model": "a\nb"},
    "a long model": {"model": "x" * 200},
    "one class": {"classes": ["only"]},
    "classes twice": {"classes": ["a", "a"]},
    "classes as text": {"classes": "abc"},
    "an empty class": {"classes": ["a", ""]},
    "no scheme": {"collector": "127.0.0.1:5757"},
    "no port": {"collector": "tcp://127.0.0.1"},
    "no collector": {"collector": []},
    "a collector twice": {"collector": ["tcp://h:1", "tcp://h:1"]},
    "controls of another number": {"collector": ["tcp://h:1", "tcp://h:3"], "control": "tcp://h:2"},
    "a reserved task": {"task": "ranking"},
    "classes of a regression": {"task": "regression", "classes": 2},
    "classes as a set": {"classes": {"no", "yes"}},
    "classes as a frozen set": {"classes": frozenset({"no", "yes"})},
    "classes as a dict": {"classes": {"yes": 1, "no": 0}},
    "classes as a dict of names": {"classes": {0: "no", 1: "yes"}},
    "sample rate 0": {"sample_rate": 0},
    "sample rate as text": {"sample_rate": "0.5"},
    "threshold": {"threshold": 1.5},
    "threshold as text": {"threshold": "0.5"},
    "threshold of nothing": {"threshold": None},
    "threshold NaN": {"threshold": float("nan")},
    "features as a set": {"features": {"a", "b"}},
    "features as a number": {"features": 7},
    "include as bytes": {"include": b"age"},
    "exclude of numbers": {"exclude": [0]},
    "kinds as a list": {"kinds": ["age"]},
    "kinds of nothing": {"kinds": {"age": None}},
    "tags as a list": {"tags": ["zone"]},
    "a small buffer": {"buffer_bytes": 1000},
    "features as text": {"features": "age"},
    "features twice": {"features": ["a", "a"]},
    "tags": {"tags": {"zone": 1}},
    "a key that is none": {"secret_key": "x"},
}


def threads_of_zmon() -> list[str]:
    """Return the names of the engine's thread and of libzmq's."""
    names = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # ended meanwhile
            names.append((task / "comm").read_text().strip())
    return [name for name in names if name.startswith(("zmon", "ZMQ"))]


@pytest.mark.parametrize("arguments", WRONG.values(), ids=WRONG.keys())
def test_only_the_constructor_raises(arguments: dict[str, object]) -> None:
    with pytest.raises(zmon.ConfigurationError) as error:
        zmon.Publisher(**{"model": "m", "collector": NOWHERE, **arguments})  # type: ignore[arg-type]
    assert str(error.value)


def test_names_may_come_from_anything_that_has_an_order() -> None:
    names = ["no", "yes"]
    for given in (tuple(names), np.array(names), dict.fromkeys(names).keys(), iter(names)):
        with zmon.Publisher("m", classes=given, collector=NOWHERE) as publisher:  # type: ignore[arg-type]
            assert publisher.class_names() == names
    with zmon.Publisher("m", features=iter(names), exclude={"a"}, collector=NOWHERE) as publisher:  # type: ignore[arg-type]
        assert publisher._assembler._features._declared == ("no", "yes")


def test_endpoints_and_names_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZMON_COLLECTOR", "tcp://a:1000, ipc:///run/z")
    monkeypatch.setenv("ZMON_AGENT_ID", "pod-7")
    assert settings.endpoints(None, None) == (
        settings.Endpoint("tcp://a:1000", "tcp://a:1001"),
        settings.Endpoint("ipc:///run/z", "ipc:///run/z.ctl"),
    )
    assert settings.agent_id(None) == "pod-7"
    assert settings.agent_id("mine") == "mine"
    monkeypatch.delenv("ZMON_AGENT_ID")
    assert settings.agent_id(None) == os.uname().nodename


def test_it_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZMON_ENABLED", "0")
    with zmon.Publisher("m", classes=3, collector=NOWHERE) as publisher:
        publisher.publish(P)
        publisher.publish("nonsense")
        publisher.publish_labels([1], [1])
        assert settled(publisher).published == 0
        assert not settled(publisher).rejected
        assert publisher.flush(0.01), "there is nothing to wait for"


def test_no_thread_to_be_had_is_no_error(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def refused(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched, zmon.Publisher("m", classes=3, collector=NOWHERE) as publisher:
        until(lambda: not threads_of_zmon(), what="the engine to end with the publishers of other tests")
        patched.setattr(threads, "start", refused)
        publisher.publish(P)
        publisher.publish(P)
        assert "no thread" in publisher.stats.failed
        assert not publisher.flush(0.1)
        started = time.monotonic()
        publisher.close()
        assert time.monotonic() - started < 1.0
    assert caplog.text.count("no thread can be started") == 1


def test_the_thread_starts_at_the_first_batch_and_ends_with_the_last_publisher() -> None:
    until(lambda: not threads_of_zmon(), what="the engine to end with the publishers of other tests")
    publisher = zmon.Publisher("m", classes=3, collector=NOWHERE)
    other = zmon.Publisher("n", classes=3, collector=NOWHERE)
    assert not threads_of_zmon()
    other.publish(P)
    # More than once: the test before this one had no thread to give, and the engine waits a moment after that.
    until(lambda: publisher.publish(P) or len(threads_of_zmon()) == 3, what="one thread, and two of its context")
    publisher.close()
    assert len(threads_of_zmon()) == 3
    other.close()
    until(lambda: not threads_of_zmon(), what="the threads to end")


def test_without_a_collector_nothing_changes_but_counters() -> None:
    publisher = zmon.Publisher("m", classes=3, collector=NOWHERE, buffer_bytes=65_536)
    slowest = 0.0
    for _ in range(3000):
        started = time.perf_counter()
        publisher.publish(P, inputs=np.ones((2, 50)))
        slowest = max(slowest, time.perf_counter() - started)
    stats = publisher.stats
    assert slowest < 0.2
    assert stats.published == 6000
    assert stats.queued_bytes <= 65_536
    assert 0 < stats.dropped["buffer_full"] < 6000
    assert not stats.connected
    assert not publisher.flush(0.05)
    started = time.monotonic()
    publisher.close()
    assert time.monotonic() - started < 1.0


def test_after_close_batches_are_dropped_and_counted() -> None:
    publisher = zmon.Publisher("m", classes=3, collector=NOWHERE)
    publisher.close()
    publisher.close()
    publisher.publish(P)
    assert dict(publisher.stats.dropped) == {"closed": 2}


def test_late_labels_are_rows_of_the_stream_and_counted_apart() -> None:
    with zmon.Publisher("m", classes=["a", "b", "c"], collector=NOWHERE) as publisher:
        publisher.publish_labels([1, 2, 3], ["a", "b", None])
        publisher.publish(P)
        publisher.publish_labels(["x"], [2], timestamps=1e9)
        assert (settled(publisher).published, settled(publisher).labels) == (5, 3)
        assert dict(publisher.stats.rejected) == {"label_missing": 1}


@pytest.mark.parametrize(
    ("rejected", "degraded", "arguments"),
    [
        ({"label_unknown": 1}, {}, ([1, 2], ["a", "nonsense"])),
        ({"length_mismatch": 2}, {}, ([1, 2], ["a"])),
        ({"ids_invalid": 2}, {}, ([1.5, 2.5], ["a", "b"])),
        ({"label_missing": 1}, {}, ([1, 2], ["a", None])),
        ({"length_mismatch": 2}, {}, ([1, 2], ["a", "b"], [1.0])),
        ({"timestamp_unit": 2}, {}, ([1, 2], ["a", "b"], 1.7e12)),
    ],
)
def test_wrong_late_labels_cost_the_rows_that_are_wrong(
    rejected: dict[str, int], degraded: dict[str, int], arguments: tuple[Any, ...]
) -> None:
    with zmon.Publisher("m", classes=["a", "b", "c"], collector=NOWHERE) as publisher:
        publisher.publish_labels(*arguments)
        stats = settled(publisher)
        assert (dict(stats.rejected), dict(stats.degraded)) == (rejected, degraded)
        assert stats.labels == 2 - sum(rejected.values())


def test_late_labels_need_classes() -> None:
    with zmon.Publisher("m", collector=NOWHERE) as publisher:
        publisher.publish_labels([1], [1])
        assert dict(settled(publisher).rejected) == {"classes_missing": 1}


def test_stats_are_a_frozen_snapshot() -> None:
    with zmon.Publisher("m", classes=3, collector=NOWHERE) as publisher:
        before = publisher.stats
        publisher.publish(P)
        assert before.published == 0
        with pytest.raises(AttributeError):
            before.published = 1  # type: ignore[misc]
        with pytest.raises(TypeError):
            before.rejected["x"] = 1  # type: ignore[index]
        publisher.close(timeout=0)


def test_many_threads_lose_no_row() -> None:
    with zmon.Publisher("m", classes=3, collector=NOWHERE) as publisher:
        threads = [threading.Thread(target=lambda: [publisher.publish(P) for _ in range(500)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert publisher.stats.published == 8 * 500 * 2
        publisher.close(timeout=0)


def test_import_is_light() -> None:
    done = run(
        """
        import sys, zmon
        with zmon.Publisher("m", classes=2, collector="tcp://127.0.0.1:59999") as publisher:
            publisher.publish([[0.5, 0.5]])
        heavy = {"pluggy", "click", "scipy", "sklearn", "pandas", "polars", "tensorflow", "narwhals", "rich", "asyncio"}
        print(sorted((heavy | {"zmon.reference"}) & set(sys.modules)), zmon.profile.__name__)
        """
    )
    assert done.stdout.strip() == "[] profile", done.stderr


def test_a_process_ends_at_once_with_no_collector_there() -> None:
    done = run(
        """
        import time, zmon, numpy as np, atexit
        publisher = zmon.Publisher("m", classes=2, collector="tcp://127.0.0.1:59996")
        publisher.publish(np.array([0.2, 0.9]))
        started = time.monotonic()
        atexit.register(lambda: None)
        import sys
        atexit._run_exitfuncs()
        print(time.monotonic() - started)
        """
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1.0


def test_a_process_delivers_what_it_has_when_it_ends(collect) -> None:  # type: ignore[no-untyped-def]
    collector = collect()
    done = run(
        f"""
        import zmon, numpy as np
        publisher = zmon.Publisher("short", classes=2, collector={collector.data!r}, agent_id="job")
        publisher.publish(np.full(50, 0.9))
        """
    )
    assert done.returncode == 0, done.stderr
    until(lambda: collector.service.telemetry.get("rows") == 50, what="50 rows")


def test_fork_gives_a_stream_of_its_own(collect) -> None:  # type: ignore[no-untyped-def]
    collector = collect()
    done = run(
        f"""
        import os, sys, time, zmon, numpy as np
        publisher = zmon.Publisher("forked", classes=2, collector={collector.data!r}, agent_id="host")
        publisher.publish(np.full(10, 0.9))
        assert publisher.flush(60), publisher.stats
        children = []
        for i in range(3):
            child = os.fork()
            if not child:
                assert publisher.stats.published == 0
                publisher.publish(np.full(5, 0.1))
                ok = publisher.flush(10)
                publisher.close()
                os._exit(0 if ok else 1)
            children.append(child)
        codes = [os.waitpid(child, 0)[1] for child in children]
        publisher.publish(np.full(10, 0.9))
        assert publisher.flush(60)
        print(codes)
        """
    )
    assert done.stdout.strip() == "[0, 0, 0]", done.stderr
    until(lambda: collector.service.telemetry.get("rows") == 35, what="35 rows of four streams")
    assert collector.service.telemetry.get("lost") == 0


def test_public_names() -> None:
    assert all(hasattr(zmon, name) for name in zmon.__all__)
    text = (Path(__file__).parents[2] / "docs" / "publisher.md").read_text()
    assert "zmon.Publisher" in text


def test_an_adapter_counts_rows_that_are_no_batch(collect: Any) -> None:
    """Whatever it calls them, the collector can read it, and the stream goes on."""
    with collect().publisher("m", classes=2) as publisher:
        publisher.reject("frame_broken", "no columns", 3)
        for reason in ("", "x" * 5000, "two words", "\ud800"):
            publisher.reject(reason, "not a word")
        publisher.reject("rows_unknown", "how many?", -5)
        assert settled(publisher).rejected == {"frame_broken": 3, "other": 4, "rows_unknown": 1}
        publisher.publish(np.full((2, 2), 0.5))
        assert publisher.flush(10)


def test_a_publisher_that_is_switched_off_counts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZMON_ENABLED", "0")
    with zmon.Publisher("m", classes=2) as publisher:
        publisher.reject("frame_broken", "no columns", 3)
        assert not publisher.enabled
        assert not settled(publisher).rejected


def test_an_adapter_may_name_the_classes_where_nobody_did() -> None:
    with zmon.Publisher("m", collector="ipc:///nonexistent/zmon") as publisher:
        assert publisher.task == "classification"
        assert publisher.class_names([3, 5]) == [3, 5]
        assert publisher.class_names(["a", "b"]) == [3, 5]
        publisher.close(0)
