"""The pages of docs/ that are made from the code: ``make docs`` writes them, a test fails when they are stale."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import click
from zmon_collector.cli.main import cli
from zmon_collector.config import alerting, sections
from zmon_collector.config.toml import toml
from zmon_collector.config.values import clients, period, tables
from zmon_collector.plugins import Registry

from tests import wire_page
from tests.bench import performance, suite
from zmon.options import duration, positive_duration

ROOT = Path(__file__).parents[1]
HEAD = "<!-- Made by `make docs`; edit the code instead. -->\n\n"
SECTIONS = (
    sections.CollectorSection,
    sections.MetricsSection,
    sections.ModelSection,
    sections.LimitsSection,
    sections.SecuritySection,
    sections.WebSection,
    sections.HealthSection,
    alerting.AlertRule,
    alerting.NotifySection,
)


def metrics() -> str:
    """Every built-in series: names, definition, preset."""
    registry = Registry()
    registry.load()
    lines = [
        "# Built-in series\n",
        "Every series also carries `model`, `model_version` when set, `agent_id` (absent on rollups), `ver` and",
        "`target_type`. The preset is the smallest that emits the series. A value that is undefined is left out.\n",
    ]
    for name, state in registry.metrics.items():
        declared: Any = getattr(state.metric, "series", None)
        if declared is None or not registry.plugins[state.plugin].origin.startswith("zmon_plugins."):
            continue
        lines += [f"## {name}\n", "| what | names | stat | definition | preset |", "|---|---|---|---|---|"]
        for series in declared:
            cells = (series.what, ", ".join(series.keys), ", ".join(series.stats), series.definition, series.preset)
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return HEAD + "\n".join(lines)


def configuration() -> str:
    """Every key of zmon.toml."""
    lines = ["# zmon.toml, key by key\n", "`zmon collect --print-config` prints the values in force.\n"]
    for section in SECTIONS:
        lines += [f"## {section.__doc__}\n", "| key | default | meaning |", "|---|---|---|"]
        for each in fields(section):
            read, value = each.metadata["parse"], each.default
            if read in (clients, tables) or value is None or value is MISSING:
                shown = ""
            else:
                value = f"{value:.12g}s" if read in (duration, positive_duration, period) else value
                shown = f"`{toml(value)}`"
            name = "for" if section is alerting.AlertRule and each.name == "windows" else each.name
            lines.append(f"| {name} | {shown} | {each.metadata['doc']} |")
        lines.append("")
    return HEAD + "\n".join(lines)


def every_command(
    name: str, command: click.Command, above: click.Context | None = None
) -> Iterator[tuple[click.Context, click.Command]]:
    """A command and those below it, each in the context that it has on the command line."""
    settings: Any = {**command.context_settings, "max_content_width": 100, "terminal_width": 100}
    command._help_option = None  # click keeps what an earlier invocation, under another context, made of it
    context = click.Context(command, info_name=name, parent=above, **settings)
    yield context, command
    if isinstance(command, click.Group):
        for below in sorted(command.list_commands(context)):  # which are imported when they are asked for
            each = command.get_command(context, below)
            assert each is not None
            yield from every_command(below, each, context)


def commands() -> str:
    """The help of every command."""
    lines = ["# The command line\n"]
    for context, command in every_command("zmon", cli):
        lines += [f"## {context.command_path}\n", "```text", command.get_help(context), "```", ""]
    return HEAD + "\n".join(lines)


def generated() -> dict[str, str]:
    """Text by path."""
    return {
        "docs/metrics.md": metrics(),
        "docs/configuration.md": configuration(),
        "docs/commands.md": commands(),
        "docs/wire.md": wire_page.page(),
        "docs/performance.md": performance.page(performance.PAGE.read_text(), suite.kept()),
    }


if __name__ == "__main__":
    for path, text in generated().items():
        (ROOT / path).write_text(text)
        sys.stdout.write(f"{path}\n")
