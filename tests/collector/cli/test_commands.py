"""Commands that plugins add to the command line."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner
from zmon_collector.cli.main import Commands

from zmon.hooks import hookimpl


class Greets:
    @hookimpl
    def register_commands(self, cli: click.Group) -> None:
        @cli.command()
        def greet() -> None:
            """Say hello."""
            click.echo("hello")

        @cli.command()
        def collect() -> None:
            click.echo("not the collector")


class Breaks:
    @hookimpl
    def register_commands(self, cli: click.Group) -> None:
        raise RuntimeError("no luck")


class Entry(SimpleNamespace):
    def load(self) -> Any:
        return self.plugin

    def __lt__(self, other: Entry) -> bool:
        return bool(self.name < other.name)


@pytest.fixture
def plugged(monkeypatch: pytest.MonkeyPatch) -> Commands:
    """The command line with two plugins installed, as a new process finds it."""
    entries = [Entry(name="broken", plugin=Breaks()), Entry(name="polite", plugin=Greets())]
    monkeypatch.setattr("zmon_collector.plugins.entry_points", lambda group: entries)
    return Commands("zmon")


def run(group: Commands, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(group, arguments)
    return result.exit_code, result.output


def test_a_plugin_adds_a_command(plugged: Commands, caplog: pytest.LogCaptureFixture) -> None:
    assert run(plugged, "greet") == (0, "hello\n")
    assert "greet" in run(plugged, "--help")[1]
    assert "skipping the commands of plugin 'broken': RuntimeError: no luck" in caplog.text


def test_own_commands_stay_and_load_no_plugin(plugged: Commands, caplog: pytest.LogCaptureFixture) -> None:
    assert "Receive from publishers" in run(plugged, "collect", "--help")[1]
    assert not caplog.records, "no plugin was asked"
    assert run(plugged, "nothing")[0] == 2
    assert "Receive from publishers" in run(plugged, "collect", "--help")[1]
    assert "skipping command 'collect' of plugin 'polite'" in caplog.text
