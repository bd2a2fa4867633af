"""Everything public that 0.1.0 had is still there, under its name and with its defaults. Additions are welcome."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.golden.surface import KEPT, surface


def missing(before: Any, now: Any, path: str = "") -> Iterator[str]:
    """Yield each thing of `before` that `now` lacks or has otherwise."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name, value in before.items():
            if name in now:
                yield from missing(value, now[name], f"{path} > {name}")
            else:
                yield f"{path} > {name} is gone"
    elif before != now and not _has_more_fields(before, now):
        yield f"{path} was {before!r} and is {now!r}"


def _has_more_fields(before: Any, now: Any) -> bool:
    """Return whether a default, as it is written out, has only gained fields behind those it had."""
    texts = isinstance(before, str) and isinstance(now, str)
    return texts and before.endswith(")") and now.startswith(before[:-1] + ", ")


def test_nothing_public_is_gone_or_changed(tmp_path: Path) -> None:
    assert not list(missing(json.loads(KEPT.read_text()), surface(tmp_path)))


def test_what_is_renamed_or_has_another_default_is_found() -> None:
    before = {"a": {"x": 1, "y": [2]}, "b": "c"}
    assert not list(missing(before, {"a": {"x": 1, "y": [2], "z": 3}, "b": "c"}))
    assert not list(missing("= Rows(a=0)", "= Rows(a=0, b={})"))
    assert list(missing("= Rows(a=0)", "= Rows(b={}, a=0)"))
    assert list(missing("= Rows(a=0)", "= Rows(a=1, b={})"))
    assert list(missing(before, {"a": {"x": 1, "new": [2]}, "b": "d"})) == [
        " > a > y is gone",
        " > b was 'c' and is 'd'",
    ]
