"""Everything public that 0.1.0 had is still there, under its name and with its defaults. Additions are welcome."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.golden.surface import KEPT, surface

CORRECTED = {" > openapi > get /metrics > responses > 200"}  # it was called JSON, and never was


def missing(before: Any, now: Any, path: str = "") -> Iterator[str]:
    """Yield each thing of `before` that `now` lacks or has otherwise."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name, value in before.items():
            if name in now:
                yield from missing(value, now[name], f"{path} > {name}")
            else:
                yield f"{path} > {name} is gone"
    elif before != now and not _has_more_fields(before, now) and not _is_described_better(before, now, path):
        yield f"{path} was {before!r} and is {now!r}"


def _has_more_fields(before: Any, now: Any) -> bool:
    """Return whether a default, as it is written out, has only gained fields behind those it had."""
    texts = isinstance(before, str) and isinstance(now, str)
    return texts and before.endswith(")") and now.startswith(before[:-1] + ", ")


def _is_described_better(before: Any, now: Any, path: str) -> bool:
    """Return whether the OpenAPI page says more of the same: further kinds of answers, bounds of a parameter."""
    if path in CORRECTED:
        return True
    if not (path.startswith(" > openapi > ") and isinstance(before, list) and isinstance(now, list)):
        return False
    if " > parameters > " in path:
        return bool(before[0] == now[0] and before[1].items() <= now[1].items())
    return set(before) <= set(now)


def test_nothing_public_is_gone_or_changed(tmp_path: Path) -> None:
    assert not list(missing(json.loads(KEPT.read_text()), surface(tmp_path)))


def test_what_is_renamed_or_has_another_default_is_found() -> None:
    before = {"a": {"x": 1, "y": [2]}, "b": "c"}
    assert not list(missing(before, {"a": {"x": 1, "y": [2], "z": 3}, "b": "c"}))
    assert not list(missing("= Rows(a=0)", "= Rows(a=0, b={})"))
    assert list(missing("= Rows(a=0)", "= Rows(b={}, a=0)"))
    assert list(missing("= Rows(a=0)", "= Rows(a=1, b={})"))
    one = {"openapi": {"get": {"responses": {"200": ["a"]}, "parameters": {"n": [False, {"type": "integer"}]}}}}
    two = {"openapi": {"get": {"responses": {"200": ["b"]}, "parameters": {"n": [True, {"type": "integer"}]}}}}
    assert len(list(missing(one, two))) == 2
    assert list(missing(before, {"a": {"x": 1, "new": [2]}, "b": "d"})) == [
        " > a > y is gone",
        " > b was 'c' and is 'd'",
    ]
