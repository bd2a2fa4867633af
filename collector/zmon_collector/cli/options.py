"""Types of options, exit codes and small functions that several commands share."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from zmon.errors import ConfigurationError
from zmon.options import duration
from zmon_collector.config import Config
from zmon_collector.config.values import address, endpoint, period
from zmon_collector.loading import load_plugins
from zmon_collector.plugins import Registry

CONFIG = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
FAILED, WRONG, MISSING = 1, 2, 3
PATIENCE = 10.0  # seconds that a running collector has to answer


class _ParsedType(click.ParamType[Any]):
    """Type of an option whose value is parsed like the configuration's."""

    def __init__(self, name: str, parse: Callable[[object], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._parse(value) if isinstance(value, str) else value
        except (ValueError, ConfigurationError) as error:
            self.fail(str(error), param, ctx)


DURATION = _ParsedType("duration", duration)
PERIOD = _ParsedType("duration", period)
ADDRESS = _ParsedType("host:port", address)
ENDPOINT = _ParsedType("endpoint", endpoint)


PLUGINS_DIR = click.option("--plugins-dir", type=FOLDER, help="Folder whose *.py files are loaded as plugins.")


def load_quietly(config: Config) -> Registry:
    """Load the plugins without logging their errors: the caller shows them."""
    logging.getLogger("zmon.collector").addHandler(logging.NullHandler())
    logging.getLogger("zmon.collector").propagate = False
    return load_plugins(config)
