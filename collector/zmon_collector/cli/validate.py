"""``zmon validate``: check configuration files and sinks' quotas, or written files against Anodot's rules."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from zmon.bases import series_of
from zmon.errors import ConfigurationError
from zmon_collector import config as configuration
from zmon_collector import sizing
from zmon_collector.cli import quota
from zmon_collector.cli.options import CONFIG, FAILED, PLUGINS_DIR, load_quietly
from zmon_collector.cli.push import show
from zmon_collector.config import Config, partition_check
from zmon_collector.config.policy import ModelPolicy, PolicyStore
from zmon_collector.config.series_selection import unknown
from zmon_collector.ingest.auth import Authenticator
from zmon_collector.jobs.push.run import validate_files
from zmon_collector.loading import sink_is_on
from zmon_collector.plugins import Registry
from zmon_collector.telemetry import Telemetry

MIB = 2**20


@click.command()
@click.argument("paths", metavar="CONFIG...", nargs=-1, required=True, type=CONFIG)
@PLUGINS_DIR
def validate(paths: tuple[Path, ...], plugins_dir: Path | None) -> None:
    """Check a configuration file and its plugins, without starting anything.

    Prints how many samples a window of each model emits to each sink at most, for the numbers of agents, features and
    classes that `expect` gives in [metrics] and [models.NAME], if every class and category occurs; and how much memory
    and disk the collector takes at most.

    Exit code 0 if a collector would start with the file, 2 if it would refuse it or if a sink's quota cannot carry a
    window's samples in one period, 1 if it would start without one of its plugins.

    Several files are checked as those of collectors that share the models: exit code 1 if two of them claim the same
    model, or if a model is configured or alerted on and none of them takes it.

    A written file (.json) is checked against Anodot's rules, as `zmon push --dry-run` does.
    """
    written = [path for path in paths if path.suffix == ".json"]
    if written and len(written) < len(paths):
        raise click.UsageError("name configurations or written JSON files, not both")
    if written:
        summary = validate_files(written, lambda n: None)
        show(summary, "valid")
        sys.exit(FAILED if summary.refused else 0)
    configs = {path: configuration.load(path, plugins_dir=plugins_dir) for path in paths}
    valid = [_check(path, config) for path, config in configs.items()]
    faults = partition_check.faults(configs) if len(configs) > 1 else []
    for fault in faults:
        click.echo(fault, err=True)
    if len(configs) > 1 and not faults:
        click.echo(f"{len(partition_check.named(configs))} models, each in one of {len(configs)} collectors")
    sys.exit(0 if all(valid) and not faults else FAILED)


def _check(path: Path, config: Config) -> bool:
    """Check and describe one file, and return whether all its plugins can be used."""
    policies = PolicyStore(config)
    Authenticator(config.security, Telemetry())  # reads the keys and the clients, as a collector does
    registry = load_quietly(config)
    sinks = [name for name in registry.sinks if sink_is_on(config, name)]
    _check_selections(config, policies, registry)
    click.echo(f"{path}: valid; windows of {config.collector.window} s on {config.collector.bind}, "
               f"{len(registry.metrics)} metrics, preset {config.metrics.preset}, "
               f"sinks: {', '.join(sinks) or 'none'}")  # fmt: skip
    for line in (*_quota_lines(config, policies, registry, sinks), *_size_lines(config)):
        click.echo(line)
    bad = [plugin for plugin in registry.plugins.values() if plugin.state != "ok"]
    for plugin in bad:
        click.echo(f"plugin {plugin.name!r} ({plugin.origin}) is quarantined: {plugin.error}", err=True)
    return not bad


def _check_selections(config: Config, policies: PolicyStore, registry: Registry) -> None:
    metrics = [state.metric for state in registry.metrics.values()]
    for model in ("", *config.models):
        wrong = unknown(policies.of(model).selection, metrics)
        if wrong:
            where = f"models.{model}" if model else "metrics"
            raise ConfigurationError(f"[{where}] add, drop: {wrong[0]!r} matches no series; docs/metrics.md lists them")


def _quota_lines(config: Config, policies: PolicyStore, registry: Registry, sinks: list[str]) -> Iterator[str]:
    """Yield lines about the samples of each model and sink; ConfigurationError if a quota cannot carry them."""
    metrics = [state.metric for state in registry.metrics.values()]
    quotas = {name: quota.quota(registry.sinks[name], config.sinks.get(name, {})) for name in sinks}
    rates = dict.fromkeys(sinks, 0.0)
    models = list(config.models) or [""]
    for model in models:
        policy = policies.of(model)
        expect, period = policy.expected, policy.rules.period

        def options(metric: Any, policy: ModelPolicy = policy) -> Mapping[str, Any]:
            return policy.options(metric.name, registry.metrics[metric.name].plugin)

        load = quota.load(metrics, policy.selection, expect, options)
        shown = expect if expect["categorical"] else {k: v for k, v in expect.items() if k != "categories"}
        numbers = ", ".join(f"{name} {number}" for name, number in shown.items() if number)
        yield (
            f"{model or 'any model'}: windows of {period} s, expecting {numbers}: "
            f"at most {load.rollup:,} samples of the rollup, {load.agent:,} per agent"
        )
        for name, (agents, per_second) in quotas.items():
            total = load.total(expect["agents"], agents)
            rate = total / period
            rates[name] += rate
            limit = "no quota" if per_second is None else f"quota {per_second:,g}/s, {rate / per_second:.0%} used"
            yield f"  {name}: {total:,} samples a window, {rate:,.1f}/s (agents = {agents}; {limit})"
            if per_second is not None and total > per_second * period:
                raise ConfigurationError(
                    f"sink {name!r}: a window of {model or 'any model'!r} emits up to {total:,} samples, and "
                    f"{per_second:,g}/s carry {per_second * period:,.0f} in {period} s; "
                    + _remedies(name, model, agents)
                )
    for name, (_, per_second) in quotas.items():
        if per_second is not None and rates[name] > per_second:
            raise ConfigurationError(
                f"sink {name!r}: {len(models)} models together emit up to {rates[name]:,.0f} samples/s, its quota is "
                f"{per_second:,g}/s; " + _remedies(name, models[0], "all")
            )
    silent = [metric.name for metric in metrics if not series_of(metric)]
    if silent:
        yield f"  not counted, because they declare no series: {', '.join(silent)}"


def _size_lines(config: Config) -> Iterator[str]:
    for what, items in (("memory", sizing.memory(config)), ("disk", sizing.disk(config))):
        yield f"{what}: at most {sizing.total(items) / MIB:,.0f} MiB"
        for item in items:
            yield f"  {item.what}: {item.nbytes / MIB:,.0f}" + (f" ({item.keys})" if item.keys else "")


def _remedies(sink: str, model: str, agents: str) -> str:
    where = f"models.{model}" if model else "metrics"
    fewer = f'set agents = "health" in [sinks.{sink}], ' if agents == "all" else ""
    return f"{fewer}narrow preset, stats, features or classes in [{where}], lengthen its window, or correct its expect"
