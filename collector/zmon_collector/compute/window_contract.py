"""What is fixed when a window opens: the settings of its model, and the reference profile.

It holds until the window is reported, whatever a reload, a learned profile or a restart changes meanwhile. So it is
journaled: `ContractBook.restore` makes it again from what `Contract.parts` gave, by digest, because most windows have
the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from zmon.errors import ConfigurationError
from zmon.reference import Profile
from zmon_collector.compute.references import References
from zmon_collector.config.policy import ModelPolicy, PolicyStore
from zmon_collector.config.window_policy import WindowPolicy, unpack
from zmon_collector.plugins import Registry
from zmon_collector.windows.window import ModelKey


class Contract(NamedTuple):
    """The settings of a window, and the profile against which it is measured, if it fits the window's schema."""

    policy: WindowPolicy = WindowPolicy()
    profile: Profile | None = None

    @property
    def digests(self) -> tuple[bytes | None, bytes]:
        """The digests of the policy, None if it cannot be kept, and of the profile, empty without one."""
        return self.policy.digest or None, b"" if self.profile is None else bytes.fromhex(self.profile.digest)

    def parts(self) -> Iterator[tuple[bytes, Callable[[], bytes]]]:
        """Yield the digest of each part, and a function that returns its bytes."""
        policy, reference = self.digests
        if policy is not None:
            yield policy, lambda: self.policy.packed
        if self.profile is not None:
            yield reference, self.profile.to_bytes


class ContractBook:
    """Makes the contracts of windows.

    Parameters
    ----------
    policies : PolicyStore
    references : References
    registry : Registry
    """

    def __init__(self, policies: PolicyStore, references: References, registry: Registry) -> None:
        self._policies, self._references = policies, references
        self._editions = registry.editions()
        self._plugins = {name: state.plugin for name, state in registry.metrics.items()}
        self._newest: dict[str, tuple[ModelPolicy, WindowPolicy]] = {}  # by model name
        self._restored: WeakValueDictionary[bytes, Any] = WeakValueDictionary()  # by digest

    def current(self, model: ModelKey) -> Contract:
        """Return the contract of a window that opens now."""
        policy = self._policies.of(model[0])
        newest = self._newest.get(model[0])
        if newest is None or newest[0] is not policy:
            newest = self._newest[model[0]] = policy, policy.for_windows(self._editions, self._plugins)
        return Contract(newest[1], self._references.candidate(model))

    def restore(
        self, model: ModelKey, policy: bytes | None, reference: bytes | None, kept: Mapping[bytes, bytes]
    ) -> tuple[Contract, bool]:
        """Return the contract with which a window of an earlier run opened, and whether all of it could be read.

        `policy` and `reference` are its digests, None where an older release noted none; `kept` has the bytes. What
        cannot be read is replaced: the settings by those of today, the profile by none, which gives no wrong drift.
        """
        current, sound = self.current(model), True
        settings, profile = current
        if policy is not None and policy != settings.digest:
            try:
                settings = self._read(policy, kept, lambda data: unpack(data, settings.ranks))
            except (KeyError, ValueError, TypeError):
                sound = False
        if reference is not None and reference != current.digests[1]:
            profile = None
            if reference:
                try:
                    profile = self._read(reference, kept, Profile.from_bytes)
                except (KeyError, ConfigurationError):
                    sound = False
        return Contract(settings, profile), sound

    def _read(self, digest: bytes, kept: Mapping[bytes, bytes], decode: Callable[[bytes], Any]) -> Any:
        """Return what `decode` makes of the bytes of this digest: one object for all windows that have it."""
        found = self._restored.get(digest)
        if found is None:
            found = self._restored[digest] = decode(kept[digest])
        return found

    def absent(self, contract: Contract) -> set[str]:
        """Return the metrics that the window did not open with, or in another edition: they have no values in it."""
        return {name for name, edition in self._editions.items() if contract.policy.metrics.get(name) != edition}

    def forget(self, model: str) -> None:
        """Drop what is kept of a model that is gone."""
        self._newest.pop(model, None)
