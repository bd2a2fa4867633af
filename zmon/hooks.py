"""The hooks that a plugin may implement. pluggy finds plugins; the objects that they register do the work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from zmon.contract import Metric, Report, Sink
from zmon.errors import MissingExtraError

try:
    import pluggy
except ModuleNotFoundError as error:
    raise MissingExtraError("pluggy, which plugins need,", "collector") from error

if TYPE_CHECKING:
    import click

PROJECT = "zmon"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_metrics(register: Callable[[Metric[Any]], None], options: Mapping[str, Any]) -> None:
    """Call ``register(metric)`` for every metric; `options` is the configuration's table [plugins.NAME]."""


@hookspec
def register_sinks(register: Callable[[Sink], None], options: Mapping[str, Any]) -> None:
    """Call ``register(sink)`` for every sink; `options` is [plugins.NAME], and ``options["sinks"]`` all of [sinks].

    ``options["preset_of"]`` is a function that returns the smallest preset that emits a `Value`.
    """


@hookspec
def register_commands(cli: click.Group) -> None:
    """Add commands to the click group `cli`."""


@hookspec
def window_closed(report: Report) -> None:
    """React to a report, for instance with a notification: called in order, on a thread that may be slow."""
