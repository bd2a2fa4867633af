"""Find plugins, check and register them, and quarantine, with a reason, those that cannot be used."""

from __future__ import annotations

import importlib
import logging
import os
import pkgutil
import stat
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pluggy
import zmon_plugins

from zmon import hooks
from zmon.contract import Metric, Report, Sink
from zmon.errors import ConfigurationError
from zmon_collector.metric_state import MetricState

log = logging.getLogger("zmon.collector")

GROUP = "zmon"
NAME_LENGTH = 100
# The collector's own readers of reports. Each reader has a cursor by its name: two that share one lose reports.
READERS = frozenset({"observers", "alerts", "history"})


@dataclass(slots=True)
class Plugin:
    """A plugin and its state."""

    name: str
    origin: str
    state: str = "ok"  # ok | quarantined
    error: str = ""
    edition: str = ""  # of its code: results of another one are not merged with them; by default its origin
    metrics: list[str] = field(default_factory=list)
    sinks: list[str] = field(default_factory=list)


class Registry:
    """All plugins, their metrics and sinks.

    Parameters
    ----------
    options : callable
        Returns the options of the plugin with a name.
    """

    def __init__(self, options: Callable[[str], Mapping[str, Any]] = lambda name: {}) -> None:
        self.plugins: dict[str, Plugin] = {}
        self.metrics: dict[str, MetricState] = {}
        self.sinks: dict[str, Sink] = {}
        self._options = options
        self._manager = pluggy.PluginManager(hooks.PROJECT)
        self._manager.add_hookspecs(hooks)
        self._failed_observers: set[str] = set()

    # --- finding -----------------------------------------------------------------------------------------------------

    def load(self, folder: Path | None = None) -> None:
        """Load the built-in plugins, the installed ones of the entry-point group ``zmon``, and the files of `folder`.

        Raises
        ------
        ConfigurationError
            There is no such folder, or everyone may write to it; or a plugin says that the configuration is wrong.
        """
        for name in builtin_modules():
            self._load(name.rpartition(".")[2], name, partial(importlib.import_module, name))
        for entry in sorted(entry_points(group=GROUP)):
            origin = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
            self._load(entry.name, origin, entry.load)
        for path in plugin_files(folder) if folder is not None else ():
            self._load(path.stem, str(path), partial(_import_file, path), edition=_digest(path))

    def _load(self, name: str, origin: str, get: Callable[[], object], edition: str = "") -> None:
        taken = self.plugins.get(name)
        if taken is not None:
            name = f"{name} ({origin})"
            self.plugins[name] = Plugin(name, origin)
            self._quarantine(name, f"the name is taken by {taken.origin}; rename one")
            return
        self.plugins[name] = Plugin(name, origin, edition=edition)
        try:
            plugin = get()
        except Exception as error:  # noqa: BLE001 - a plugin may fail to import in any way
            self._quarantine(name, f"it cannot be imported: {type(error).__name__}: {error}")
            return
        self.register(plugin, name, origin)

    def register(self, plugin: object, name: str, origin: str = "given") -> None:
        """Register one plugin object, or quarantine it."""
        self.plugins.setdefault(name, Plugin(name, origin))
        try:
            self._manager.register(plugin, name)
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
            self._quarantine(name, f"{error}; the hooks and their arguments are those of zmon.hooks")
            return
        except ValueError as error:  # the same object under a second name
            self._quarantine(name, f"{error}; register it once")
            return
        self._call(name, "register_metrics", lambda metric: self._register_metric(name, metric))
        self._call(name, "register_sinks", lambda sink: self._register_sink(name, sink))

    def _call(self, name: str, hook: str, register: Callable[[Any], None]) -> None:
        if self.plugins[name].state != "ok":
            return
        others = [plugin for other, plugin in self._manager.list_name_plugin() if other != name and plugin is not None]
        try:
            self._manager.subset_hook_caller(hook, others)(register=register, options=self._options(name))
        except ConfigurationError:
            raise  # the configuration is wrong, not the plugin: refuse to start
        except Exception as error:  # noqa: BLE001 - a plugin may fail in any way
            self._quarantine(name, f"its hook {hook} failed: {type(error).__name__}: {error}")

    def _register_metric(self, name: str, metric: Metric[Any]) -> None:
        if not isinstance(metric, Metric):
            raise TypeError(
                f"{metric!r:.80} is not a metric: it must have name, needs, create, update, merge and result"
            )
        _check_name("metric", metric.name)
        if metric.name in self.metrics:
            owner = self.metrics[metric.name].plugin
            raise ValueError(f"metric {metric.name!r} is already registered by {owner!r}; rename one")
        self.metrics[metric.name] = MetricState(metric, name)
        self.plugins[name].metrics.append(metric.name)

    def _register_sink(self, name: str, sink: Sink) -> None:
        if not isinstance(sink, Sink):
            raise TypeError(f"{sink!r:.80} is not a sink: it must have name, open, write and close")
        name_as_read = _check_name("sink", sink.name)
        if name_as_read in READERS:
            raise ValueError(f"the sink's name {sink.name!r} is that of one of the collector's own readers; rename it")
        for taken in self.sinks:
            if _check_name("sink", taken) == name_as_read:
                owner = next(plugin.name for plugin in self.plugins.values() if taken in plugin.sinks)
                raise ValueError(f"sink {sink.name!r} is already registered by {owner!r} as {taken!r}; rename one")
        self.sinks[sink.name] = sink
        self.plugins[name].sinks.append(sink.name)

    def _quarantine(self, name: str, error: str) -> None:
        plugin = self.plugins[name]
        for metric in plugin.metrics:
            del self.metrics[metric]
        for sink in plugin.sinks:
            del self.sinks[sink]
        plugin.metrics, plugin.sinks = [], []
        plugin.state, plugin.error = "quarantined", error
        if self._manager.has_plugin(name):
            self._manager.unregister(name=name)
        log.error("plugin %r (%s) is quarantined: %s", name, plugin.origin, error)

    # --- using -------------------------------------------------------------------------------------------------------

    def by_executor(self) -> dict[str, list[MetricState]]:
        """Return metrics by executor: the built-in ones share one, named ``""``; every other plugin has its own."""
        executors: dict[str, list[MetricState]] = {"": []}
        for state in self.metrics.values():
            builtin = self.plugins[state.plugin].origin.startswith(f"{zmon_plugins.__name__}.")
            executors.setdefault("" if builtin else state.plugin, []).append(state)
        return executors

    def editions(self) -> dict[str, str]:
        """Return, by metric, what tells its code from that of another release of its plugin.

        The built-in metrics read what earlier releases of zmon left, so they have one edition.
        """
        plugins = {name: self.plugins[state.plugin] for name, state in self.metrics.items()}
        return {name: plugin.edition or plugin.origin for name, plugin in plugins.items()}

    def announce(self, report: Report) -> None:
        """Call every observer's `window_closed`; if one raises, the others are still called."""
        for implementation in self._manager.hook.window_closed.get_hookimpls():
            try:
                implementation.function(*[report for name in implementation.argnames if name == "report"])
            except BaseException as error:  # noqa: BLE001 - a plugin may raise anything, SystemExit included
                if implementation.plugin_name not in self._failed_observers:
                    self._failed_observers.add(implementation.plugin_name)
                    log.error("window_closed of plugin %r failed: %s: %s",
                              implementation.plugin_name, type(error).__name__, error)  # fmt: skip

    def table(self) -> Iterator[dict[str, Any]]:
        """Yield what `zmon plugins` shows: a row for each metric and sink, and for each quarantined plugin."""
        for plugin in self.plugins.values():
            row = {"plugin": plugin.name, "origin": plugin.origin}
            for name in plugin.metrics:
                state = self.metrics[name]
                yield {**row, "kind": "metric", "name": name, "state": state.state, "error": state.reason,
                       "models": state.models, "errors": state.errors, "seconds": round(state.seconds, 6)}  # fmt: skip
            for name in plugin.sinks:
                yield {**row, "kind": "sink", "name": name, "state": plugin.state, "error": ""}
            if not plugin.metrics and not plugin.sinks:
                yield {**row, "kind": "plugin", "name": plugin.name, "state": plugin.state, "error": plugin.error}


def add_commands(cli: click.Group) -> None:
    """Let installed plugins add their commands. One that fails, or whose name is taken, is left out and logged."""
    for entry in sorted(entry_points(group=GROUP)):
        manager = pluggy.PluginManager(hooks.PROJECT)
        manager.add_hookspecs(hooks)
        added = click.Group()
        try:
            manager.register(entry.load(), entry.name)
            manager.hook.register_commands(cli=added)
        except Exception as error:  # noqa: BLE001 - a plugin may fail in any way
            log.error("skipping the commands of plugin %r: %s: %s", entry.name, type(error).__name__, error)
            continue
        for name, command in added.commands.items():
            if name in cli.commands:
                log.error("skipping command %r of plugin %r: the name is taken", name, entry.name)
            else:
                cli.add_command(command, name)


def builtin_modules() -> list[str]:
    """Return the names of the modules that hold the built-in plugins, one metric family or sink each."""
    names = []
    for folder in ("metrics", "sinks"):
        package: ModuleType = importlib.import_module(f"{zmon_plugins.__name__}.{folder}")
        names += [f"{package.__name__}.{module.name}" for module in pkgutil.iter_modules(package.__path__)]
    return sorted(names)


def plugin_files(folder: Path) -> list[Path]:
    """Return the ``*.py`` files of a folder in the order of their names; hidden files are left out."""
    if not folder.is_dir():
        raise ConfigurationError(f"[collector] plugins_dir: {folder} is not a folder; create it, or correct the path")
    _refuse_writable(folder)
    return sorted(path for path in folder.resolve().glob("*.py") if not path.name.startswith("."))


def _refuse_writable(path: Path) -> None:
    """Raise ConfigurationError when every user may write: the collector would run whatever they put there.

    Group and owner are not checked: umask 002 and images built by another user are common and harmless. A read-only
    mount is safe whatever the mode says: Kubernetes mounts ConfigMaps with mode 0777.
    """
    if os.name != "posix" or not path.stat().st_mode & stat.S_IWOTH or os.statvfs(path).f_flag & os.ST_RDONLY:
        return
    raise ConfigurationError(f"{path} can be written by every user, who could run code as the collector; chmod o-w it")


def _import_file(path: Path) -> ModuleType:
    """Import a file under a name that no module can have, so that ``json.py`` there does not replace the real one."""
    _refuse_writable(path)
    name = f"zmon plugin {path}"
    spec = spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _digest(path: Path) -> str:
    try:
        return f"{path.name} {blake2b(path.read_bytes(), digest_size=8).hexdigest()}"
    except OSError:  # importing it says why
        return path.name


def _check_name(kind: str, name: Any) -> str:
    """Return a name as people read it, without case, width and surrounding space; raise if it cannot be one."""
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name.strip()) <= NAME_LENGTH:
        raise ValueError(
            f"{name!r:.80} is not a name of a {kind}: it must be 1 to {NAME_LENGTH} printable characters; rename it"
        )
    return unicodedata.normalize("NFKC", name).strip().casefold()


def check_names(registry: Registry, configured: Mapping[str, Any], what: str) -> None:
    """Raise ConfigurationError when the configuration has a table for a plugin or sink that does not exist."""
    registered = registry.plugins if what == "plugins" else registry.sinks
    for name in configured:
        if name not in registered:
            raise ConfigurationError(
                f"[{what}.{name}]: no such {what[:-1]}; use one of {', '.join(sorted(registered))}"
            )
