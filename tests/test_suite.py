"""The suite itself: tiers, what a unit test may not do, and how often tests reach into private names."""

from __future__ import annotations

import ast
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.support import tiers

TESTS = Path(__file__).parent
MOST_PRIVATE = 40  # places; a test that needs another one takes a way in, or passes a clock or a constant
NAMED_TUPLE = {"_replace", "_fields", "_asdict"}  # public in spite of the underscore
PATCHING = {"setattr", "getattr", "delattr", "hasattr"}


class Node:
    """A test that is not there, as far as tiers look at it."""

    def __init__(self, path: str, *marks: str) -> None:
        self.path, self.nodeid = TESTS / path, path
        self._marks = [getattr(pytest.mark, name).mark for name in marks]

    def iter_markers(self) -> list[Any]:
        return self._marks

    def get_closest_marker(self, name: str) -> Any:
        return next((mark for mark in self._marks if mark.name == name), None)

    def add_marker(self, marker: Any) -> None:
        self._marks.append(getattr(pytest.mark, marker).mark if isinstance(marker, str) else marker.mark)


def nodes(*tests: Node) -> Any:
    return list(tests)


def bind() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))


def test_nine_tests_in_ten_are_quick(request: pytest.FixtureRequest) -> None:
    """That each test has exactly one tier is checked when they are collected."""
    counts = request.config.stash[tiers.COUNTS]
    if [Path(each).resolve() for each in request.config.args] == [TESTS]:  # a part says nothing about the whole
        assert counts["system"] <= sum(counts.values()) / 10, counts


def test_every_place_of_the_table_is_there() -> None:
    assert [place for place in tiers.PLACES if not (TESTS / place).exists()] == []


def test_a_file_without_a_place_ends_the_run() -> None:
    assert tiers.of_place(Path("client/capture/test_new.py")) == "unit"
    assert tiers.of_place(Path("client/test_new.py")) == "integration"
    assert tiers.of_place(Path("test_new.py")) is None
    assert tiers.assign(nodes(Node("client/test_new.py"), Node("client/test_new.py", "system")), TESTS) == {
        "integration": 1,
        "system": 1,
    }
    with pytest.raises(pytest.UsageError, match="without exactly one tier"):
        tiers.assign(nodes(Node("test_new.py")), TESTS)
    with pytest.raises(pytest.UsageError, match=r"unit.*system"):
        tiers.assign(nodes(Node("client/test_new.py", "unit", "system")), TESTS)


@pytest.mark.parametrize(
    "reach",
    [
        bind,
        lambda: subprocess.run([sys.executable, "--version"], check=True),
        lambda: sqlite3.connect(":memory:"),
        lambda: zmq.Context.instance().socket(zmq.PUB),
    ],
    ids=["socket", "process", "database", "zmq"],
)
def test_a_unit_test_that_reaches_outside_is_stopped(reach: Callable[[], Any]) -> None:
    with pytest.raises(AssertionError, match=r"mark .* as integration"):
        reach()


def is_private(name: str) -> bool:
    last = name.rpartition(".")[2]
    return last.startswith("_") and not last.startswith("__") and last not in NAMED_TUPLE


def private_places(text: str) -> list[str]:
    """Where code touches a private name of something else: attributes, imports, and strings given to setattr."""
    places = []
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass
            case ast.Attribute(attr=name) if is_private(name):
                places.append(ast.unparse(node))
            case ast.ImportFrom(module=str(module), names=names) if module != "zmon":  # its packages are no names
                places += [f"{module}.{alias.name}" for alias in names if is_private(alias.name)]
            case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name), args=arguments) if name in PATCHING:
                texts = [each.value for each in arguments if isinstance(each, ast.Constant)]
                places += [each for each in texts if isinstance(each, str) and is_private(each)]
    return places


def test_private_names_are_found() -> None:
    text = """
from a import _b
from zmon import _wire
x._y._z
self._a
p.setattr(q, "_r", 1)
t._replace(a=1)
"""
    assert private_places(text) == ["a._b", "x._y._z", "_r", "x._y"]


def test_tests_seldom_touch_private_names() -> None:
    places = {path: private_places(path.read_text()) for path in sorted(TESTS.rglob("*.py"))}
    listed = [f"{path.relative_to(TESTS)}: {place}" for path, found in places.items() for place in found]
    assert len(listed) <= MOST_PRIVATE, "\n".join(listed)
