"""The configuration in force, and its replacement while the collector runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from zmon.errors import ConfigurationError
from zmon_collector.build import Parts
from zmon_collector.config import Config
from zmon_collector.config.reload import merged
from zmon_collector.ingest.auth import read_allow_list
from zmon_collector.plugins import check_names
from zmon_collector.windows.window import ModelKey

log = logging.getLogger("zmon.collector")


class Reloader:
    """Reads the configuration again and hands it to the parts. Runs on the collector's thread.

    Parameters
    ----------
    config : Config
        In force until the first reload.
    read : callable
        Reads the configuration, from the file and the command line.
    parts : Parts
    """

    def __init__(self, config: Config, read: Callable[[], Config], parts: Parts) -> None:
        self.config = config
        self.read = read
        self._parts = parts

    def reload(self) -> list[str]:
        """Apply a changed configuration from the next window on; return the changed keys that need a restart.

        Raises ConfigurationError, and changes nothing, if the file is invalid.
        """
        new, parts = self.read(), self._parts
        check_names(parts.registry, new.plugins, "plugins")
        check_names(parts.registry, new.sinks, "sinks")
        allow = read_allow_list(new.security)
        config, waiting = merged(self.config, new)
        columns = ((model.key[0], model.windows.columns) for model in parts.ingestor.models.values())
        parts.policies.replace(config, ((name, schema) for name, schema in columns if schema))
        self.config = config
        lengths = {key: model.windows.periods.newest for key, model in parts.ingestor.models.items()}
        parts.receiver.auth.replace(allow)
        parts.ingestor.reload(config, parts.identities(config))
        self._log_lengths(lengths)
        parts.alert_worker.reload(config)
        log.info("configuration reloaded%s", f"; these keys need a restart: {', '.join(waiting)}" if waiting else "")
        return waiting

    def _log_lengths(self, before: Mapping[ModelKey, int]) -> None:
        """Say from when on windows have another length: two lengths may meet for the first time after years."""
        wall = self._parts.clock.wall()
        for key, model in self._parts.ingestor.models.items():
            periods = model.windows.periods
            if periods.newest != before[key]:
                hours = max(0.0, periods.since - wall) / 3600
                log.info("windows of model %r will be %d s long in %.1f hours, where windows of %d s meet the new ones",
                         key[0], periods.newest, hours, before[key])  # fmt: skip

    def reload_or_log(self) -> None:
        """Reload for a signal, which gets no answer: errors go to the log."""
        try:
            self.reload()
        except ConfigurationError as error:
            log.error("the configuration is not valid and nothing is changed: %s", error)
        except Exception:  # the collector's work does not depend on it
            log.exception("the configuration cannot be reloaded")
