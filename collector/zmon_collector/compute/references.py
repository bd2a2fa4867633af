"""The reference profile of each window: that of a file, or one learned from the first windows."""

from __future__ import annotations

import logging

from zmon.batch import Schema
from zmon.errors import ConfigurationError
from zmon.reference import Profile
from zmon_collector.compute.memory import MetricMemory
from zmon_collector.compute.packing import unpack_memory
from zmon_collector.config.policy import PolicyStore
from zmon_collector.windows.window import ModelKey

log = logging.getLogger("zmon.collector")

LEARNED = ("reference", None)  # the metric that learns, on the rollup; the profile is in its memory


class References:
    """The profile of each model: that of its policy, or else the one that its metrics have learned.

    A window keeps the profile that it opened with (window_contract.py); another one holds from the next window on.
    """

    def __init__(self, policies: PolicyStore, memory: MetricMemory) -> None:
        self._policies = policies
        self._memory = memory
        self._learned: dict[ModelKey, tuple[bytes, Profile | None]] = {}
        self._refused: dict[ModelKey, str] = {}  # why a profile is not used, which is logged once

    def candidate(self, model: ModelKey) -> Profile | None:
        """Return the profile for a window that opens now, whatever its schema; None without one."""
        return self._policies.of(model[0]).reference or self._learn(model)

    def of(self, model: ModelKey, schema: Schema) -> Profile | None:
        """Return the profile for a window of this schema that opens now; None without one, or when it does not fit."""
        return self.fitting(model, self.candidate(model), schema)

    def fitting(self, model: ModelKey, profile: Profile | None, schema: Schema) -> Profile | None:
        """Return the profile if it fits a window of this schema."""
        if profile is None:
            return None
        conflict = profile.conflict(schema)
        if conflict != self._refused.get(model, ""):
            self._refused[model] = conflict
            if conflict:
                log.error(
                    "the reference of model %r is not used, so there is no drift: %s; make it from the columns that "
                    "are published, with `zmon profile`", model[0], conflict,
                )  # fmt: skip
        return None if conflict else profile

    def forget(self, model: ModelKey) -> None:
        """Drop what was learned about a model that is gone."""
        self._learned.pop(model, None)
        self._refused.pop(model, None)

    def current(self, model: ModelKey) -> Profile | None:
        """Return what a model's newest windows are measured against; a learned one once this run opened a window."""
        learned = self._learned.get(model)
        return self._policies.of(model[0]).reference or (learned[1] if learned is not None else None)

    def _learn(self, model: ModelKey) -> Profile | None:
        """Return the learned profile, which is decoded again when the metric has learned another."""
        kept = self._memory.of(model).get(LEARNED)
        if kept is None:
            return None
        learned = self._learned.get(model)
        if learned is None or learned[0] is not kept:
            learned = self._learned[model] = (kept, self._read(model, kept))
        return learned[1]

    def _read(self, model: ModelKey, kept: bytes) -> Profile | None:
        """Return the profile in the metric's memory; None while it is still learning."""
        data = unpack_memory(kept).get("profile")
        if data is None:
            return None
        try:
            if isinstance(data, bytes):
                return Profile.from_bytes(data, "the learned profile")
            why = f"its profile is a {type(data).__name__}"
        except ConfigurationError as error:
            why = str(error)
        log.error("the learned reference of model %r is not used, so there is no drift: %s", model[0], why)
        return None
