"""Rows whose classes or task are others than those of their version: they are a version of their own, a *variant*.

So neither a mistake nor a hostile publisher takes a window from those who are there: nobody's rows are refused because
of another's. Every later part sees one more version. The main schema of a version is the one it began with, and
stays so while somebody uses it (`WindowManager.misfit`); then another may follow it there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from hashlib import blake2b

from zmon._wire.checks import MAX_NAME
from zmon._wire.frames import pack
from zmon.batch import Schema
from zmon_collector.ingest.arrival import BatchArrival
from zmon_collector.ingest.model_state import ModelState
from zmon_collector.ingest.session import Session
from zmon_collector.windows.window import ModelKey, Now

Admit = Callable[[Session, str, Now], tuple[ModelState, str]]
HASHED = 4  # bytes


def variant_version(version: str, schema: Schema) -> str:
    """Return the version under which rows of a version are shown that have these classes, in any order.

    >>> variant_version("2.0", Schema(classes=("no", "yes"))), variant_version("2.0", Schema(classes=("yes", "no")))
    ('2.0~5507891c', '2.0~5507891c')
    """
    named = pack([version, schema.task, sorted(schema.classes)])
    suffix = f"~{blake2b(named, digest_size=HASHED).hexdigest()}"
    return version[: MAX_NAME - len(suffix)] + suffix


def adopt(main: ModelState, variant: ModelState) -> None:
    """Note a variant of a version: labels of either are looked for in both."""
    main.variants[variant.key] = variant
    if variant.main is None and variant is not main:
        variant.main = main
        variant.early_owners = main.early_owners


def forsake(models: Iterable[ModelState], gone: ModelKey) -> None:
    """Forget a variant that is forgotten."""
    for model in models:
        model.variants.pop(gone, None)


class Variants:
    """Finds the version to which rows and labels belong.

    Parameters
    ----------
    admit : callable
        Return the state of a version of a session's model and the name of its agent there, ``admit(session, version,
        now)``; WireError if there is no place for it.
    """

    def __init__(self, admit: Admit) -> None:
        self._admit = admit

    def of_rows(self, arrival: BatchArrival, misfit: str) -> BatchArrival:
        """Return rows that have no place in their version as those of its variant; WireError if there is no place.

        `misfit` says why.
        """
        before = arrival.model
        before.windows.leave(arrival.agent)
        version = variant_version(before.key[1], arrival.schema)
        found = self._in(version, arrival)
        adopt(before.main or before, found.model)
        return replace(found, apart=arrival.apart or f"shown as version {version!r}: {misfit}")

    def of_labels(self, arrival: BatchArrival) -> BatchArrival:
        """Return labels as those of the variant whose rows have their classes; of the version itself where it has."""
        if not arrival.model.variants:
            return arrival
        own = arrival.schema
        known = [(state, state.rows_schema) for state in family(arrival.model) if state.rows_schema is not None]
        alike = [(state, rows) for state, rows in known if rows.task == own.task]
        classes = set(own.classes)
        exact = [state for state, rows in alike if set(rows.classes) == classes]
        wider = [state for state, rows in alike if own.task == "classification" and classes < set(rows.classes)]
        model = next(iter([*exact, *wider]), arrival.model)
        return arrival if model is arrival.model else self._in(model.key[1], arrival)

    def _in(self, version: str, arrival: BatchArrival) -> BatchArrival:
        model, agent = self._admit(arrival.session, version, arrival.now)
        return replace(arrival, model=model, agent=agent)


def family(model: ModelState) -> Iterator[ModelState]:
    """Yield a version and its variants, the version itself first."""
    main = model.main or model
    yield main
    yield from main.variants.values()
