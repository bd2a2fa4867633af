"""Places in the collector's limits, shared between those who publish: nobody crowds out another. Pure.

An identity is the name of a client in the allow-list, or without CURVE the address of its connection. Of each limit one
half goes to those who come first, and the other half is guaranteed in equal parts: whoever holds less than that part
finds a free place, whatever the others do.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from heapq import nlargest
from ipaddress import IPv6Address, ip_address
from typing import Any

from zmon_collector.config.sections import LimitsSection
from zmon_collector.config.series_selection import matches

ADDRESSES = 8  # among which places are shared on a network without CURVE, where any number may come
REMEMBERED = 10_000  # positions of streams that were put aside, the newest
REFUSALS = 50  # pairs of pool and identity whose refusals are remembered
REFUSED_FOR = 300.0  # seconds in which a refusal is a problem in health, and has one line in the log
SHOWN = 5  # identities of a pool, those that hold the most

Globs = Sequence[str]
ONE: Sequence[Globs] = (("*",),)  # identity: whatever comes from this machine
MANY: Sequence[Globs] = ADDRESSES * (("*",),)


class Pool:
    """Places of one kind, held by identities.

    Parameters
    ----------
    capacity : int
    identities : int
        Among whom the guaranteed half is shared. Of more than these, the first ones have a part.

    >>> pool = Pool(capacity=8, identities=2)
    >>> [pool.take("greedy") for _ in range(7)], [pool.take("modest") for _ in range(3)]
    ([True, True, True, True, True, True, False], [True, True, False])
    """

    __slots__ = ("_guaranteed", "_held", "_identities", "capacity", "part", "used")

    def __init__(self, capacity: int, identities: int = 1) -> None:
        self._held: Counter[str] = Counter()
        self.used = 0
        self.resize(capacity, identities)

    def resize(self, capacity: int, identities: int) -> None:
        """Follow another configuration. Nobody loses a place that he holds."""
        self.capacity, self._identities = capacity, max(1, identities)
        self.part = max(1, capacity // (2 * self._identities))  # guaranteed to each
        self._guaranteed = sum(min(held, self.part) for held in self._held.values())  # places held out of the parts

    def held(self, identity: str) -> int:
        """Return how many places an identity holds."""
        return self._held[identity]

    def take(self, identity: str, amount: int = 1) -> bool:
        """Take places if there are enough for this identity; return whether it has them."""
        if not self.has_room(identity, amount):
            return False
        self.hold(identity, amount)
        return True

    def has_room(self, identity: str, amount: int = 1) -> bool:
        """Return whether there are enough places for this identity."""
        free = self.capacity - self.used - amount
        return free >= (0 if self._held[identity] + amount <= self.part else self._kept_free(identity))

    def _kept_free(self, identity: str) -> int:
        """Return how many places are kept for the others, who do not hold their parts yet."""
        others = self._guaranteed - min(self._held[identity], self.part)
        return min(self.capacity // 2, max(0, (self._identities - 1) * self.part - others))

    def hold(self, identity: str, amount: int = 1) -> None:
        """Take places even if there are none: those of an earlier run, or of somebody who has them already."""
        self._change(identity, amount)

    def release(self, identity: str, amount: int = 1) -> None:
        """Give places back."""
        self._change(identity, -amount)

    def _change(self, identity: str, amount: int) -> None:
        before = self._held[identity]
        after = before + amount
        self._guaranteed += min(after, self.part) - min(before, self.part)
        self.used += amount
        if after:
            self._held[identity] = after
        else:
            del self._held[identity]

    def plain(self) -> dict[str, Any]:
        """Return its state as plain data, with the identities that hold the most."""
        most = nlargest(SHOWN, self._held.items(), key=lambda item: item[1])
        return {"capacity": self.capacity, "used": self.used, "by": dict(most)}


class Admission:
    """The pools of a collector, and who was refused a place in them.

    Parameters
    ----------
    limits : LimitsSection
    """

    def __init__(self, limits: LimitsSection) -> None:
        self._globs = ONE
        self._limits = limits
        self.models = Pool(limits.models)  # versions of models
        self.streams = Pool(limits.streams)
        self.remembered = Pool(REMEMBERED)  # positions of streams that were put aside
        self._refused: OrderedDict[tuple[str, str], tuple[float, str]] = OrderedDict()  # time and text of the newest
        self._logged: OrderedDict[tuple[str, str], float] = OrderedDict()

    def follow(self, limits: LimitsSection, globs: Sequence[Globs] | None = None) -> None:
        """Follow other limits; `globs` has the models of each identity among which places are shared."""
        self._limits = limits
        self._globs = self._globs if globs is None else globs or ONE
        for pool, capacity in (
            (self.models, limits.models),
            (self.streams, limits.streams),
            (self.remembered, REMEMBERED),
        ):
            pool.resize(capacity, len(self._globs))

    def identities_of(self, model: str) -> int:
        """Return how many identities may publish as a model."""
        return max(1, sum(matches(globs, model) for globs in self._globs))

    def refuse(self, pool: Pool, limit: str, identity: str, mono: float, what: str = "") -> tuple[str, bool]:
        """Note that an identity found no place in a pool; return the text about it, and whether to log it."""
        whose = f" of model {what!r}" if what else ""
        text = share_text(pool, limit, identity, whose)
        key = (f"{limit}{whose}", identity)
        _note(self._refused, key, (mono, text))
        is_due = mono - self._logged.get(key, float("-inf")) >= REFUSED_FOR
        if is_due:
            _note(self._logged, key, mono)
        return text, is_due

    def problems(self, mono: float) -> list[str]:
        """Return who was refused a place lately, a sentence each."""
        while self._refused and mono - next(iter(self._refused.values()))[0] > REFUSED_FOR:
            self._refused.popitem(last=False)
        return [f"{text}: what is new of it is refused; raise the limit, or have it use fewer"
                for _, text in self._refused.values()]  # fmt: skip

    def plain(self) -> Mapping[str, dict[str, Any]]:
        """Return the state of the pools as plain data."""
        pools = {"models": self.models, "streams": self.streams, "remembered": self.remembered}
        return {name: pool.plain() for name, pool in pools.items()}


def share_text(pool: Pool, limit: str, identity: str, whose: str = "") -> str:
    """Say that an identity has all the places of a limit that it may have."""
    kept = pool.capacity - pool.used
    others = f", and {kept} are kept for others" if kept > 0 else ""
    held = f"holds {pool.held(identity)} of {pool.capacity} places{others}"
    return f"{identity or 'an unknown address'} fills its share of limits.{limit}{whose}: it {held}"


def _note(where: OrderedDict[tuple[str, str], Any], key: tuple[str, str], value: Any) -> None:
    where[key] = value
    where.move_to_end(key)
    if len(where) > REFUSALS:
        where.popitem(last=False)


@lru_cache(maxsize=1024)
def identity_at(address: str) -> str:
    """Return the identity of a connection without CURVE, by libzmq's name of its peer.

    Of an IPv6 address the network counts, because a host has as many addresses in it as it likes. On a unix socket the
    user counts.

    >>> identity_at("10.0.0.7"), identity_at("2001:db8::1:2"), identity_at("localhost:1000:1000:4711")
    ('10.0.0.7', '2001:db8::/64', 'uid 1000')
    """
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        parts = address.split(":")
        return f"uid {parts[-3]}" if len(parts) > 3 else address
    if not isinstance(found, IPv6Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return f"{IPv6Address(int(found) >> 64 << 64)}/64"
