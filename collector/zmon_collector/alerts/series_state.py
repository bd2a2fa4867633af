"""What the rules remember of series, by model: bounded in total, and newcomers displace only what is silent. Pure.

A series that is within its bounds is not remembered unless its rule learns from it. Beyond the bound, models take
turns in which each would displace the next, and no rule would ever see two windows in a row. So a series takes the
place of one whose model has had no window since the last one of its own model; else it is left out, and that is said.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

SERIES = 100_000  # whose state is kept
UNUSED = 1440  # windows of its model in which a series was not judged, after which it is forgotten

State = dict[str, Any]  # plain data
Key = tuple[str, ...]


class SeriesStates:
    """The state of each series under a rule.

    Attributes
    ----------
    left_out : dict
        Series without a place, by (model, version), in the newest window of each.
    changed : set
        (model, version) whose states have changed since it was last cleared.
    """

    def __init__(self, kept: Iterable[tuple[Key, State]] = ()) -> None:
        """Take states by (rule, model, version, member)."""
        self._by_model: OrderedDict[Key, dict[tuple[str, str], State]] = OrderedDict()  # silent for longest: the first
        self._count = 0
        self._turn = 0
        self._turns: dict[Key, tuple[int, int]] = {}  # of a model's last window but one, and of its last
        self._start = 0  # of the window that is judged
        self.left_out: dict[Key, int] = {}
        self.changed: set[Key] = set()
        for (rule, model, version, member), state in kept:
            self._by_model.setdefault((model, version), {})[rule, member] = state
            self._count += 1

    def begin(self, model: Key, start: int) -> None:
        """Begin with a window of a model."""
        self._turn += 1
        self._turns[model] = (self._turns.get(model, (0, 0))[1], self._turn)
        self._start = start
        self.left_out.pop(model, None)
        if model in self._by_model:
            self._by_model.move_to_end(model)
        self.changed.add(model)

    def end(self, model: Key, period: int) -> None:
        """Forget series of a model that had no value for long: agents, classes and features come and go."""
        oldest = self._start - UNUSED * period
        for name, state in list(self._by_model.get(model, {}).items()):
            if state.setdefault("used", self._start) < oldest:
                self.drop(name[0], model, name[1])

    def find(self, rule: str, model: Key, member: str) -> State | None:
        """Return a series' state, if it has any."""
        return self._by_model.get(model, {}).get((rule, member))

    def get(self, rule: str, model: Key, member: str) -> State:
        """Return a series' state. It is a new one if it had none; without room for it, the new one is not kept."""
        state = self.find(rule, model, member)
        if state is None:
            if self._count >= SERIES and not self._make_room(model):
                self.left_out[model] = self.left_out.get(model, 0) + 1
                return {}
            state = self._by_model.setdefault(model, {})[rule, member] = {}
            self._count += 1
        state["used"] = self._start
        self.changed.add(model)
        return state

    def _make_room(self, model: Key) -> bool:
        """Forget the series of the model that is silent for longest, if it is silent for longer than this one was."""
        silent = next(iter(self._by_model))
        if silent == model or self._turns.get(silent, (0, 0))[1] >= self._turns.get(model, (0, 0))[0]:
            return False
        self.forget(silent)
        return True

    def drop(self, rule: str, model: Key, member: str) -> None:
        """Forget a series."""
        of_model = self._by_model.get(model, {})
        if of_model.pop((rule, member), None) is not None:
            self._count -= 1
            self.changed.add(model)
            if not of_model:
                del self._by_model[model]

    def forget(self, model: Key) -> None:
        """Forget the series of a model."""
        self._count -= len(self._by_model.pop(model, {}))
        self.left_out.pop(model, None)
        self.changed.add(model)

    def forget_turns(self, model: Key) -> None:
        """Forget when a model had its windows: it is forgotten altogether."""
        self._turns.pop(model, None)

    def keep_rules(self, names: Iterable[str]) -> None:
        """Forget the series of all other rules."""
        kept = set(names)
        for model in list(self._by_model):
            for rule, member in [name for name in self._by_model[model] if name[0] not in kept]:
                self.drop(rule, model, member)

    def of(self, model: Key) -> list[Sequence[Any]]:
        """Return a model's series as plain data: rule, member and state."""
        return [[*name, state] for name, state in self._by_model.get(model, {}).items()]

    def all(self) -> Iterator[tuple[Key, State]]:
        """Yield every state, with (rule, model, version, member)."""
        for model, of_model in self._by_model.items():
            for (rule, member), state in of_model.items():
                yield (rule, *model, member), state
