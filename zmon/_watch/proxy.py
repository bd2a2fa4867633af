"""An object that stands in for a model: everything passes through to it, but the watched calls are published."""

from __future__ import annotations

import copy
import functools
import operator
from collections.abc import Callable
from types import MethodType
from typing import Any

from zmon._watch.watcher import Watcher

# Looked up on the type, so a stand-in must have exactly those that the model's type has.
_SPECIAL = [
    *("__aenter__", "__aexit__", "__bool__", "__contains__", "__delitem__", "__enter__", "__exit__", "__float__"),
    *("__getitem__", "__index__", "__int__", "__iter__", "__len__", "__next__", "__reversed__", "__setitem__"),
]


class Proxy:
    """Base of the stand-ins; `stand_in` makes them.

    ``isinstance`` sees the model's class. Copies, clones and pickles are of the bare model.
    """

    __slots__ = ("__weakref__", "__wrapped__", "_zmon")

    __wrapped__: Any
    _zmon: Watcher

    __class__ = property(lambda self: type(self.__wrapped__))
    __dict__ = property(lambda self: self.__wrapped__.__dict__)

    def __getattr__(self, name: str) -> Any:
        model = self.__wrapped__
        value = getattr(model, name)
        if name.startswith("__"):
            return value
        if name in self._zmon.methods and callable(value):
            return _watched(self._zmon, name, value)
        if type(value) is MethodType and value.__self__ is model:
            return _chained(self, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__wrapped__, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self.__wrapped__, name)

    def __dir__(self) -> list[str]:
        return dir(self.__wrapped__)

    def __repr__(self) -> str:
        return repr(self.__wrapped__)

    def __str__(self) -> str:
        return str(self.__wrapped__)

    def __eq__(self, other: object) -> bool:
        return bool(self.__wrapped__ == (other.__wrapped__ if isinstance(other, Proxy) else other))

    def __hash__(self) -> int:
        return hash(self.__wrapped__)

    def __copy__(self) -> Any:
        return copy.copy(self.__wrapped__)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self.__wrapped__, memo)

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        return operator.getitem, ((self.__wrapped__,), 0)  # what is unpickled is the model, zmon need not be there


def stand_in(model: Any, watcher: Watcher) -> Any:
    """The stand-in for `model`."""
    made: Any = object.__new__(_class_for(type(model), model.__doc__))
    object.__setattr__(made, "__wrapped__", model)
    object.__setattr__(made, "_zmon", watcher)
    return made


def _watched(watcher: Watcher, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return watcher.run(name, function, args, kwargs)

    return call


def _chained(made: Proxy, method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that returns the model itself, as ``fit`` or ``eval`` do, returns the stand-in."""

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        return made if result is made.__wrapped__ else result

    return call


def _call(self: Proxy, /, *args: Any, **kwargs: Any) -> Any:
    if "__call__" in self._zmon.methods:
        return self._zmon.run("__call__", self.__wrapped__, args, kwargs)
    return self.__wrapped__(*args, **kwargs)


def _forward(name: str) -> Callable[..., Any]:
    def forward(self: Proxy, /, *args: Any) -> Any:
        return getattr(self.__wrapped__, name)(*args)

    return forward


def _class_for(kind: type[Any], doc: str | None) -> type:
    """A subclass of `Proxy` with the name and the special methods of `kind`: some frameworks ask the type."""
    namespace: dict[str, Any] = {"__slots__": (), "__module__": kind.__module__, "__doc__": doc}
    own = {name for base in kind.__mro__ for name in vars(base)}  # hasattr would also ask the metaclass
    namespace |= {name: _forward(name) for name in _SPECIAL if name in own}
    if "__call__" in own:
        namespace["__call__"] = _call
    return type(kind.__name__, (Proxy,), namespace)
