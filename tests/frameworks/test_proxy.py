"""A watched model in Python's own syntax: blocks, operators, comparisons, iteration; and with publishers turned off."""

from __future__ import annotations

import asyncio
import copy
import operator
import pickle
import signal
import threading
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import pytest

import zmon
from tests.support.waiting import settled

Make = Callable[..., zmon.Publisher]
ROWS = np.ones((3, 2))


class Model:
    """A model with operators: its sum, its order, its composition with others."""

    def __init__(self, weight: int) -> None:
        self.weight = weight
        self.entered = 0

    def __call__(self, rows: Any) -> Any:
        return np.full((len(rows), 2), 0.5)

    def __enter__(self) -> Self:
        self.entered += 1
        return self

    def __exit__(self, *error: object) -> bool:
        self.entered -= 1
        return error[0] is KeyError

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, *error: object) -> None:
        self.entered -= 1

    def __add__(self, other: Any) -> Any:
        return Model(self.weight + other.weight) if type(other) is Model else NotImplemented

    def __radd__(self, other: int) -> int:
        return other + self.weight

    def __iadd__(self, other: int) -> Self:
        self.weight += other
        return self

    def __matmul__(self, other: Any) -> tuple[int, Any]:
        return self.weight, other

    def __rmatmul__(self, other: Any) -> tuple[Any, int]:
        return other, self.weight

    def __or__(self, other: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda rows: other(self(rows))

    def __pow__(self, power: int, modulus: int | None = None) -> int:
        return pow(self.weight, power, modulus)

    def __neg__(self) -> int:
        return -self.weight

    def __lt__(self, other: Any) -> bool:
        return self.weight < other.weight if type(other) is Model else NotImplemented

    def __eq__(self, other: object) -> Any:
        return np.array([self.weight == other.weight] * 2) if type(other) is Model else NotImplemented

    def __ne__(self, other: object) -> Any:
        return ~(self == other)

    __hash__ = object.__hash__

    def __round__(self, digits: int = 0) -> int:
        return self.weight

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> int:
        raise StopIteration


def test_a_block_gives_the_proxy(publisher: Make) -> None:
    pub = publisher()
    bare = Model(1)
    with zmon.watch(bare, pub) as model:
        assert (bare.entered, type(model) is Model) == (1, False)
        model(ROWS)
        raise KeyError  # the model's own __exit__ swallows it
    stats = settled(pub)
    assert (bare.entered, stats.published, stats.rejected) == (0, 3, {})

    async def serve() -> None:
        async with zmon.watch(bare, pub) as served:
            served(ROWS)

    asyncio.run(serve())
    stats = settled(pub)
    assert (stats.published, stats.rejected) == (6, {})


def test_a_block_that_gives_something_else_gives_that(publisher: Make) -> None:
    class Session:
        def __enter__(self) -> str:
            return "a handle"

        def __exit__(self, *error: object) -> None: ...

        def __call__(self, rows: Any) -> Any:
            return rows

    with zmon.watch(Session(), publisher()) as handle:
        assert handle == "a handle"


BINARY = [operator.add, operator.matmul, operator.lt, operator.gt, operator.eq, operator.ne, operator.sub, operator.or_]


def outcome(function: Callable[..., Any], *operands: Any) -> Any:
    try:
        result = function(*operands)
    except TypeError:
        return TypeError
    if callable(result) and not isinstance(result, Model):
        return "a function"
    if isinstance(result, tuple):
        return [getattr(each, "weight", each) for each in result]
    return getattr(result, "weight", result if not isinstance(result, np.ndarray) else result.tolist())


@pytest.mark.parametrize("apply", BINARY, ids=lambda each: each.__name__)
def test_operators_are_those_of_the_model(apply: Callable[..., Any], publisher: Make) -> None:
    one, two = Model(1), Model(2)
    first, second = zmon.watch(one, publisher()), zmon.watch(two, publisher())
    for others in ((two, second), (7, 7), ("x", "x")):
        assert outcome(apply, first, others[1]) == outcome(apply, one, others[0])
        assert outcome(apply, first, others[0]) == outcome(apply, one, others[0])
        assert outcome(apply, others[1], first) == outcome(apply, others[0], one)


def test_a_result_that_is_the_model_stays_watched(publisher: Make) -> None:
    bare = Model(1)
    model = zmon.watch(bare, publisher())
    proxy = model
    model += 4
    assert model is proxy
    assert (bare.weight, -model, round(model), pow(model, 2, 7), 5 + model) == (5, -5, 5, 4, 10)
    assert iter(model) is model
    assert list(model) == []
    assert hash(model) == hash(bare)
    assert type(copy.copy(model)) is Model


def test_a_type_without_operators_has_none(publisher: Make) -> None:
    model = zmon.watch(lambda rows: rows, publisher())
    for apply in (operator.add, operator.lt, operator.iadd, operator.matmul):
        with pytest.raises(TypeError, match=r"unsupported operand|not supported"):
            apply(model, model)
    assert not hasattr(type(model), "__enter__")
    assert model == model.__wrapped__
    assert model != object()


def test_a_publisher_that_is_turned_off_starts_no_thread(publisher: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZMON_ENABLED", "0")
    before = threading.enumerate()
    pub = publisher()
    model = zmon.watch(Model(1), pub)
    captured = pub.capture(lambda rows: rows)
    with pub.context(ids=[1, 2, 3]):
        assert (model(ROWS).shape, captured(ROWS) is ROWS) == ((3, 2), True)
    assert threading.enumerate() == before
    assert (pub.stats.published, dict(pub.stats.rejected), pub.flush(1)) == (0, {}, True)


class Steps(list[Any]):
    """A model that is a list of its steps."""

    def __call__(self, rows: Any) -> Any:
        return np.full((len(rows), 2), 0.5)


class Weights(dict[str, Any]):
    """A model that is a mapping of its weights."""

    def __call__(self, rows: Any) -> Any:
        return np.full((len(rows), 2), 0.5)


EXPRESSIONS: dict[type[Any], list[str]] = {
    Steps: [
        "len(m)", "bool(m)", "m[1]", "m[-2:]", "m[9]", "2 in m", "9 not in m", "list(reversed(m))", "[*m]", "sorted(m)",
        "m == [3, 2, 1]", "[3, 2, 1] == m", "m != [1]", "m < [4]", "[4] < m", "m + [4]", "[4] + m", "m * 2", "2 * m",
        "m - 1", "m.index(2)", "sum(m)", "f'{m}'", "format(m, '>20')", "repr(m)", "str(m)", "hash(m)",
        "isinstance(m, list)", "operator.setitem(m, 0, 7), m[0]", "operator.delitem(m, 0), len(m)",
        "operator.iadd(m, [9])[-1]", "operator.imul(m, 2)[3]", "type(copy.copy(m)), copy.copy(m)",
        "type(copy.deepcopy(m)), copy.deepcopy(m)",
        "type(pickle.loads(pickle.dumps(m))), pickle.loads(pickle.dumps(m))",
    ],
    Weights: [
        "m['a']", "m['z']", "'a' in m", "list(m)", "dict(**m)", "m == {'a': 1}", "m | {'b': 2}", "{'b': 2} | m",
        "operator.ior(m, {'c': 1})['c']", "m.get('a')", "{**m}", "list(m.items())", "m + 1", "m[[]]",
        "pickle.loads(pickle.dumps(m, 2))",
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "expression"), [(kind, each) for kind, expressions in EXPRESSIONS.items() for each in expressions]
)
def test_a_model_that_is_a_container(kind: type[Any], expression: str, publisher: Make) -> None:
    given: Any = [3, 2, 1] if kind is Steps else {"a": 1}
    found = []
    for model in (kind(given), zmon.watch(kind(given), publisher())):
        names = {"m": model, "copy": copy, "operator": operator, "pickle": pickle}
        try:
            found.append(repr(eval(expression, names)))  # noqa: S307 - one of the expressions above
        except (TypeError, LookupError) as error:
            found.append(f"{type(error).__name__}: {error}")
    assert found[0] == found[1]


class TimeLimitError(Exception):
    """What a server's soft time limit raises in the middle of anything."""


# Where the limit strikes within a callback of the garbage collector, Python itself ignores it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_time_limit_in_a_call_leaves_the_model_watched(publisher: Make) -> None:
    """The limit strikes anywhere in the watched call; it reaches the caller, and later calls are published."""
    pub = publisher()
    model = zmon.watch(Model(1), pub)

    def limit(*_: object) -> None:
        raise TimeLimitError

    before = signal.signal(signal.SIGALRM, limit)
    struck = 0
    try:
        for turn in range(2000):
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-6 * (1 + turn % 60))
                for _ in range(20):
                    model(ROWS)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except TimeLimitError:
                struck += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert struck > 1000
    published = settled(pub).published
    model(ROWS)
    assert settled(pub).published == published + 3
