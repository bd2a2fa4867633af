"""The publisher as the adapters of watched models see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from zmon.errors import Rejected


class Recorder(Protocol):
    """Part of the publisher's interface that adapters use."""

    @property
    def task(self) -> str: ...

    @property
    def enabled(self) -> bool: ...

    @property
    def publish(self) -> Callable[..., None]: ...

    def reject(self, reason: str, detail: str, rows: int) -> None: ...

    def class_names(self, default: Sequence[object]) -> list[object]: ...


def columns_in_order(publisher: Recorder, names: Sequence[object], *, named: bool = True) -> list[int] | None:
    """Return which column of a result belongs to each class of the publisher; None if they stand in the same order.

    A publisher without classes takes `names`. If only one side's classes are strings, or if the model's are
    placeholders (``named=False``), names cannot be compared, so the order counts.
    """
    names = list(names)
    classes = publisher.class_names(names)
    if len(classes) != len(names):
        raise Rejected("classes_order", f"the publisher names {len(classes)} classes, the model has {len(names)}")
    if classes == names or not named or isinstance(classes[0], str) != isinstance(names[0], str):
        return None
    if set(classes) != set(names):
        raise Rejected(
            "classes_order",
            f"the publisher's classes are {classes[:5]}, the model's {names[:5]}; pass the model's to the publisher",
        )
    return [names.index(name) for name in classes]
