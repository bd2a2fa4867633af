"""Plain functions, methods and coroutines: `watch` and `Publisher.capture`, and what a context gives them."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import doctest
import inspect
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import zmon
from tests.support.frameworks import require
from tests.support.twins import overhead
from tests.support.waiting import settled

Make = Callable[..., zmon.Publisher]


def two(rows: Any, *, offset: float = 0.0) -> Any:
    """Half and half."""
    return np.full((len(rows), 2), 0.5) + offset


class Listening:
    """A publisher whose batches are kept instead."""

    def __init__(self, publisher: zmon.Publisher) -> None:
        self.kept: list[dict[str, Any]] = []
        publisher.publish = lambda *_, **named: self.kept.append(named)  # type: ignore[method-assign]


def test_a_function(publisher: Make) -> None:
    pub = publisher()
    watched = zmon.watch(two, pub)
    assert watched([[1.0], [2.0]]).shape == (2, 2)
    assert pub.stats.published == 2
    assert watched.__name__ == "two"
    assert watched.__doc__ == "Half and half."
    assert inspect.signature(watched) == inspect.signature(two)
    assert copy.deepcopy(watched) is pickle.loads(pickle.dumps(watched)) is two
    with pytest.raises(TypeError):
        watched()
    overhead("a function", lambda: two(ROWS), lambda: watched(ROWS), 500)


ROWS = np.ones((32, 10))


def test_a_function_that_returns_none_returns_no_output(publisher: Make, caplog: pytest.LogCaptureFixture) -> None:
    pub = publisher()
    assert zmon.watch(lambda rows: None, pub)(ROWS) is None
    assert dict(settled(pub).rejected) == {"output_missing": 1}
    assert "the call returned None; watch a function" in caplog.text


def test_logits_are_recognised_by_their_name(publisher: Make) -> None:
    class Output:
        logits = np.array([[0.0, 0.0]])

    pub = publisher(classes=2)
    listening = Listening(pub)
    for output in (None, "logits"):
        assert zmon.watch(lambda rows: Output, pub, output=output)([[1.0]]) is Output
    assert [each["probabilities"].tolist() for each in listening.kept] == [[[0.5, 0.5]]] * 2
    del pub.publish
    zmon.watch(lambda rows: Output, pub, output="proba")([[1.0]])  # the two contradict each other
    assert settled(pub).rejected == {"probabilities_range": 1}
    frame = require("pandas").DataFrame({"logits": [0.9], "other": [0.1]})  # a class of this name is none
    listening = Listening(pub)
    zmon.watch(lambda rows: frame, pub)([[1.0]])
    assert listening.kept[0]["probabilities"] is frame


def test_a_decorated_function(publisher: Make) -> None:
    pub = publisher()

    @pub.capture
    def bare(rows: Any) -> Any:
        """Says so."""
        return two(rows)

    @pub.capture(output="logits", inputs=False)
    def told(rows: Any) -> Any:
        return two(rows)

    class Service:
        @pub.capture(output="label")
        def decide(self, rows: Any) -> Any:
            return ["class_1" for _ in rows]

    listening = Listening(pub)
    assert (bare.__name__, bare.__doc__) == ("bare", "Says so.")
    bare(ROWS)
    told(ROWS)
    Service().decide(ROWS)
    assert [each["inputs"] is None for each in listening.kept] == [False, True, False]
    assert listening.kept[2]["inputs"] is ROWS, "not the instance"
    assert listening.kept[2]["predictions"].tolist() == ["class_1"] * 32


def test_a_coroutine(publisher: Make) -> None:
    pub = publisher()
    listening = Listening(pub)

    @pub.capture
    async def score(rows: Any) -> Any:
        await asyncio.sleep(0)
        return zmon.watch(two, pub)(rows)

    assert inspect.iscoroutinefunction(score)

    async def serve(number: int) -> None:
        with pub.context(ids=[number] * 3):
            await score([[number]] * 3)

    async def main() -> None:
        await asyncio.gather(*(serve(number) for number in range(20)))

    asyncio.run(main())
    assert sorted(each["ids"][0] for each in listening.kept) == list(range(20))
    assert all(each["inputs"][0][0] == each["ids"][0] for each in listening.kept)


def test_what_a_coroutine_costs(publisher: Make) -> None:
    async def score(rows: Any) -> Any:
        return two(rows)

    watched = publisher().capture(score)
    with asyncio.Runner() as runner:
        overhead("a coroutine", lambda: runner.run(score(ROWS)), lambda: runner.run(watched(ROWS)))


def test_a_context_belongs_to_its_thread_and_block(publisher: Make) -> None:
    pub, other = publisher(), publisher()
    listening, elsewhere = Listening(pub), Listening(other)
    watched, also = zmon.watch(two, pub), zmon.watch(two, other)
    ready = threading.Barrier(4)

    def serve(number: int) -> None:
        ready.wait(60)
        with pub.context(ids=[number], timestamps=float(number)):
            with pub.context(labels=[0], ids=None):
                watched([[number]])
            also([[number]])
        watched([[number]])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(serve, range(4)))
    for each in listening.kept:
        if "ids" in each:
            assert each["ids"] == [each["inputs"][0][0]]
            assert each["labels"] == [0], "the inner block adds to the outer"
    assert [len(each) for each in sorted(listening.kept, key=len)] == [2] * 4 + [5] * 4
    assert all("ids" not in each for each in elsewhere.kept), "another publisher has its own"


def test_a_block_that_ends_in_another_context_raises_nothing(publisher: Make) -> None:
    pub = publisher()
    block = pub.context(ids=[1])
    contextvars.copy_context().run(block.__enter__)
    contextvars.copy_context().run(block.__exit__, None, None, None)

    @pub.capture
    async def score(rows: Any) -> Any:
        await asyncio.sleep(0)
        return two(rows)

    half = score(ROWS)
    contextvars.copy_context().run(half.send, None)
    contextvars.copy_context().run(half.close)
    assert pub.stats.published == 0


def test_publish_by_hand_takes_no_notice_of_a_context(publisher: Make) -> None:
    pub = publisher()
    with pub.context(ids=[1, 2, 3]):
        pub.publish([[0.5, 0.5]])
    assert pub.stats.published == 1


def test_ids_that_do_not_fit_are_counted(publisher: Make) -> None:
    pub = publisher()
    with pub.context(ids=[1, 2, 3]):
        zmon.watch(two, pub)([[1.0]])
    stats = settled(pub)
    assert (stats.published, stats.rejected) == (1, {})
    assert dict(pub.stats.degraded) == {"length_mismatch": 1}


@pytest.mark.parametrize(
    ("result", "given", "columns", "inputs"),
    [
        (0.3, [1.0, 2.0], [0.3], [[1.0, 2.0]]),
        (np.float32(0.25), {"age": 3, "income": 2.5}, [0.25], {"age": 3, "income": 2.5}),
        (
            [0.25],
            {"age": np.float32(3), "city": "Rome", "paid": None},
            [0.25],
            {"age": 3, "city": "Rome", "paid": None},
        ),
        (
            [0.3, 0.4],
            {"age": [1, None], "city": ("a", float("inf"))},
            [0.3, 0.4],
            {"age": [1, None], "city": ["a", float("inf")]},
        ),
        ([0.3, 0.4], {"age": [1, 2], "limit": 0.5}, [0.3, 0.4], None),
        ([0.3, 0.4], [["a", 1], ["b", None]], [0.3, 0.4], [["a", 1], ["b", None]]),
        ([0.3, 0.4], [[1, "a"], [None, "b"]], [0.3, 0.4], [[1, "a"], [None, "b"]]),
        ([0.3, 0.4], [[[1, 2], [3, 4]], [[1, 2], [3, 4]]], [0.3, 0.4], [[1, 2, 3, 4]] * 2),
        ([0.3, 0.4], [[1.0], [2.0]], [0.3, 0.4], [[1.0], [2.0]]),
        ({"p": [[0.3, 0.7]]}, "a text", [[0.3, 0.7]], None),
        ([np.array([0.3, 0.7])], ["a text"], [[0.3, 0.7]], None),
        ([np.array([[0.3, 0.7]])], [np.ones((1, 2))], [[0.3, 0.7]], None),
        ([0.3], np.ones((1, 65, 65)), [0.3], None),
        ([0.3], np.ones((1, 2, 2)), [0.3], [[1.0] * 4]),
        ([0.3], [{"age": 3}], [0.3], [{"age": 3}]),
        ([0.3], iter([1]), [0.3], None),
        ([0.3], [[1.0], [2.0, 3.0]], [0.3], None),
        ([0.3, 0.4], {"age": [1, 2], "wide": np.ones((2, 3))}, [0.3, 0.4], None),
        ([0.3, 0.4], {"age": [1, 2], "other": [1]}, [0.3, 0.4], None),
        ([0.3, 0.4], {"age": [1, 2], "ragged": [[1], [1, 2]]}, [0.3, 0.4], None),
    ],
)
def test_what_calls_take_and_give(result: Any, given: Any, columns: Any, inputs: Any, publisher: Make) -> None:
    pub = publisher()
    listening = Listening(pub)
    assert zmon.watch(lambda rows: result, pub)(given) is result
    (kept,) = listening.kept
    assert not settled(pub).rejected
    np.testing.assert_array_equal(kept["probabilities"], columns)
    if inputs is None or isinstance(inputs, dict) or isinstance(inputs[0], dict) or "a" in inputs[0]:  # as given
        assert kept["inputs"] == inputs
    else:
        np.testing.assert_array_equal(kept["inputs"], inputs)


def test_keywords(publisher: Make) -> None:
    pub = publisher()
    listening = Listening(pub)
    watched = zmon.watch(lambda **named: [0.5, 0.5], pub)
    watched(data=ROWS[:2], verbose=True)
    watched(anything=ROWS[:2])
    watched(age=[1, 2], income=[3.0, 4.0])
    watched()
    found = [each["inputs"] for each in listening.kept]
    assert found[0] is found[0]
    np.testing.assert_array_equal(found[0], ROWS[:2])
    np.testing.assert_array_equal(found[1], ROWS[:2])
    assert found[2] == {"age": [1, 2], "income": [3.0, 4.0]}
    assert found[3] is None


@pytest.mark.parametrize("result", [None, object(), "text", {}, {"a": [0.1], "b": [0.2]}, [[0.1], [0.2, 0.3]], 7 + 2j])
def test_a_result_that_is_none_is_passed_on_and_counted(result: Any, publisher: Make) -> None:
    pub = publisher()
    assert zmon.watch(lambda rows: result, pub)(ROWS) is result
    stats = settled(pub)
    assert stats.published == 0
    assert stats.rejected
    assert "internal" not in stats.rejected


def test_softmax_does_not_overflow(publisher: Make) -> None:
    pub = publisher()
    listening = Listening(pub)
    watched = zmon.watch(np.asarray, pub, output="logits")
    watched(np.array([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0]], dtype=np.float32))
    watched(np.array([[1e4], [-1e4], [0.0]]))
    watched(np.array([[3, 1]]))
    np.testing.assert_allclose(listening.kept[0]["probabilities"], [[1, 0, 0], [1 / 3] * 3], rtol=1e-6)
    np.testing.assert_array_equal(listening.kept[1]["probabilities"], [[1], [0], [0.5]])
    assert listening.kept[2]["probabilities"].sum() == pytest.approx(1.0)
    watched(np.array([[np.nan, 1.0]]))
    watched(np.array([["a", "b"]]))
    assert settled(pub).rejected == {"probabilities_dtype": 1}


def test_the_examples_in_docstrings_run() -> None:
    assert doctest.testmod(sys.modules["zmon._watch.call"]) == (0, 1)


def test_watching_imports_no_framework() -> None:
    script = """
    import sys, zmon, numpy
    publisher = zmon.Publisher("m", classes=2, collector="tcp://127.0.0.1:59997")
    zmon.watch(lambda rows: numpy.full((len(rows), 2), 0.5), publisher)([[1.0]])
    import zmon.keras
    assert publisher.stats.published == 1
    heavy = {"tensorflow", "keras", "torch", "sklearn", "pandas", "narwhals", "scipy"} & set(sys.modules)
    assert not heavy, heavy
    """
    subprocess.run([sys.executable, "-W", "error", "-c", inspect.cleandoc(script)], check=True)
