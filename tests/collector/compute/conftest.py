"""Engines of tests, which end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.engines import EngineScene


@pytest.fixture
def scenes() -> Iterator[Callable[..., EngineScene]]:
    """Make engines: the arguments are those of `EngineScene`."""
    made: list[EngineScene] = []

    def make(*args: Any, **kwargs: Any) -> EngineScene:
        made.append(EngineScene(*args, **kwargs))
        return made[-1]

    yield make
    for scene in made:
        scene.end()
