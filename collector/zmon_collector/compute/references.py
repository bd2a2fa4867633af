"""Which reference profile a model's windows are measured against: of its file, or learned from its first windows."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from zmon.batch import Schema
from zmon.reference import Profile
from zmon_collector.compute.window_state import ModelKey
from zmon_collector.config.policy import PolicyStore

log = logging.getLogger("zmon.collector")

LEARNED = ("reference", None)  # the metric that learns, on the rollup; the profile is what it keeps


class References:
    """The profile of each model: of its policy, or else the one that its metrics have learned.

    A window keeps the profile that it opened with; another one holds from the next window on.
    """

    def __init__(self, policies: PolicyStore) -> None:
        self._policies = policies
        self._learned: dict[ModelKey, tuple[bytes, Profile]] = {}
        self._refused: dict[ModelKey, str] = {}

    def of(
        self, model: ModelKey, schema: Schema, memory: Mapping[tuple[str, str | None], Mapping[str, Any]]
    ) -> Profile | None:
        """The profile for a window of this schema that opens now; None when there is none, or it does not fit."""
        profile = self._policies.of(model[0]).reference or self._learnt(model, memory.get(LEARNED, {}).get("profile"))
        if profile is None:
            return None
        conflict = profile.conflict(schema)
        if conflict != self._refused.get(model, ""):
            self._refused[model] = conflict
            if conflict:
                log.error(
                    "the reference of model %r is not used, so there is no drift: %s; make it of the columns that are "
                    "published, with `zmon profile`", model[0], conflict,
                )  # fmt: skip
        return None if conflict else profile

    def forget(self, model: ModelKey) -> None:
        """The model is gone."""
        self._learned.pop(model, None)
        self._refused.pop(model, None)

    def current(self, model: ModelKey) -> Profile | None:
        """What a model's newest windows are measured against; a learned one since its first window of this run."""
        learned = self._learned.get(model)
        return self._policies.of(model[0]).reference or (learned[1] if learned is not None else None)

    def _learnt(self, model: ModelKey, data: bytes | None) -> Profile | None:
        if data is None:
            return None
        known = self._learned.get(model)
        if known is None or known[0] is not data:
            known = self._learned[model] = (data, Profile.from_bytes(data, "the learned profile"))
        return known[1]
