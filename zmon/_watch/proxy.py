"""A proxy for a model: everything passes through to the model, and watched calls are published."""

from __future__ import annotations

import copy
import functools
import operator
from collections.abc import Callable
from types import MethodType
from typing import Any

from zmon._watch.watcher import Watcher

# Python looks these up on the type, so a proxy must have exactly those of the model's type.
_SPECIAL = [
    *("__aexit__", "__aiter__", "__anext__", "__await__", "__bool__", "__bytes__", "__complex__", "__contains__"),
    *("__delitem__", "__enter__", "__exit__", "__float__", "__getitem__", "__index__", "__int__", "__iter__"),
    *("__len__", "__length_hint__", "__next__", "__reversed__", "__round__", "__setitem__"),
    *("__abs__", "__ceil__", "__floor__", "__invert__", "__neg__", "__pos__", "__trunc__"),
]
_COMPARISONS = ("__eq__", "__ge__", "__gt__", "__le__", "__lt__", "__ne__")
_ARITHMETIC = ["add", "and", "floordiv", "lshift", "matmul", "mod", "mul", "or", "rshift", "sub", "truediv", "xor"]
_OPERATORS: dict[str, Callable[..., Any]] = {
    "__divmod__": divmod,
    "__pow__": pow,
    "__ipow__": operator.ipow,
    **{name: getattr(operator, name) for name in _COMPARISONS},
    **{f"__{prefix}{name}__": getattr(operator, f"__{prefix}{name}__") for name in _ARITHMETIC for prefix in ("", "i")},
}
_REFLECTED = {f"__r{name}__": f"__{name}__" for name in (*_ARITHMETIC, "divmod", "pow")}


class Proxy:
    """Base class of all proxies; `proxy_for` creates them.

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
            return _chainable(self, value)
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

    def __hash__(self) -> int:
        return hash(self.__wrapped__)

    def __copy__(self) -> Any:
        return copy.copy(self.__wrapped__)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self.__wrapped__, memo)

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        return operator.getitem, ((self.__wrapped__,), 0)  # unpickles to the model, without zmon


def proxy_for(model: Any, watcher: Watcher) -> Any:
    """Create the proxy for `model`."""
    proxy: Any = object.__new__(_class_for(type(model), model.__doc__))
    object.__setattr__(proxy, "__wrapped__", model)
    object.__setattr__(proxy, "_zmon", watcher)
    return proxy


def _watched(watcher: Watcher, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return watcher.run(name, function, args, kwargs)

    return call


def _chainable(proxy: Proxy, method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method so that it returns the proxy where it would return the model, as ``fit`` and ``eval`` do."""

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        return proxy if result is proxy.__wrapped__ else result

    return call


def _call(self: Proxy, /, *args: Any, **kwargs: Any) -> Any:
    if "__call__" in self._zmon.methods:
        return self._zmon.run("__call__", self.__wrapped__, args, kwargs)
    return self.__wrapped__(*args, **kwargs)


def _forward(name: str) -> Callable[..., Any]:
    """Create a special method that returns the proxy where the model's returns the model, as ``__enter__`` does."""

    def forward(self: Proxy, /, *args: Any) -> Any:
        result = getattr(self.__wrapped__, name)(*args)
        return self if result is self.__wrapped__ else result

    return forward


def _operate(name: str) -> Callable[..., Any]:
    """Create an operator that Python evaluates on the bare operands: models look at the types of these."""
    reflected = name in _REFLECTED
    apply = _OPERATORS[_REFLECTED.get(name, name)]

    def operate(self: Proxy, /, *others: Any) -> Any:
        model = self.__wrapped__
        bare = [each.__wrapped__ if isinstance(each, Proxy) else each for each in others]
        result = apply(*bare, model) if reflected else apply(model, *bare)
        return self if result is model else result

    return operate


async def _enter(self: Proxy, /) -> Any:
    result = await self.__wrapped__.__aenter__()
    return self if result is self.__wrapped__ else result


def _class_for(kind: type[Any], doc: str | None) -> type:
    """Create a subclass of `Proxy` with the name and special methods of `kind`: some frameworks inspect the type."""
    namespace: dict[str, Any] = {"__slots__": (), "__module__": kind.__module__, "__doc__": doc}
    defined = {name for base in kind.__mro__ for name in vars(base)}  # hasattr would also look at the metaclass
    namespace |= {name: _forward(name) for name in _SPECIAL if name in defined}
    namespace |= {name: _operate(name) for name in _OPERATORS if name in defined}
    # Also where only the other is defined: the left operand looks at the type of the model, as a list does to join.
    namespace |= {name: _operate(name) for name, other in _REFLECTED.items() if not defined.isdisjoint((name, other))}
    namespace["__hash__"] = Proxy.__hash__  # a class with __eq__ would have none
    if "__aenter__" in defined:
        namespace["__aenter__"] = _enter
    if "__call__" in defined:
        namespace["__call__"] = _call
    return type(kind.__name__, (Proxy,), namespace)
