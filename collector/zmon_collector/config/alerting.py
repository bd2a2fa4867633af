"""[[alerts]] and [notify.NAME]: alert rules, and the targets of notifications."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from zmon.errors import ConfigurationError
from zmon.options import duration, flag, number, one_of, positive, text
from zmon_collector.config.values import key, pattern, share

SEVERITIES = ("info", "warning", "critical")
WHEN = ("value", "loss", "silent", "no_data")
TARGET_KINDS = ("slack", "webhook")


@dataclass(frozen=True, slots=True)
class AlertRule:
    """[[alerts]]"""

    name: str = key(text, "", "identifies the rule's state across restarts and reloads; default: made from the series")
    enabled: bool = key(flag, True, "false turns the rule off, for example one of the default rules")
    when: str = key(one_of(*WHEN), "value", "value (of a series), loss, silent (an agent) or no_data (a model)")
    model: str = key(text, "*", "glob of models")
    version: str = key(text, "*", "glob of versions")
    agent_id: str = key(pattern, "", "glob of agents; empty: the rollup")
    what: str = key(text, "", "the measure of the series")
    class_name: str = key(pattern, "", "glob; empty: series without one")
    feat_name: str = key(pattern, "", "glob; empty: series without one")
    stat: str = key(pattern, "", "glob; empty: series without one")
    above: float | None = key(number, None, "opens above this value")
    below: float | None = key(number, None, "opens below this value")
    sigma: float | None = key(number, None, "opens this many σ from the mean of the trailing windows")
    least: float = key(number, 0.0, "with sigma: a smaller difference from the mean never opens the alert")
    trailing: int = key(positive, 30, "with sigma: number of windows for the mean")
    windows: int = key(positive, 1, "number of windows in a row before the alert opens, and before it closes")
    min_rows: int = key(positive, 100, "windows with fewer rows (for scores: labels) are ignored")
    hysteresis: float = key(share, 0.1, "share of the bound by which the value must return before the alert closes")
    severity: str = key(one_of(*SEVERITIES), "warning", "info, warning or critical")


@dataclass(frozen=True, slots=True)
class NotifySection:
    """[notify.NAME]"""

    kind: str = key(one_of(*TARGET_KINDS), "webhook", "slack (an incoming webhook) or webhook (generic JSON)")
    url_env: str = key(text, "", "environment variable that holds the address, which is a secret")
    min_severity: str = key(one_of(*SEVERITIES), "info", "less severe alerts are not sent")
    timeout: float = key(duration, 10.0, "of one request")
    page: str | None = key(text, None, "address of the live page for links, as its readers reach it; default: its own")

    @property
    def url(self) -> str:
        """The address, from the environment."""
        return os.environ.get(self.url_env, "")


DEFAULTS = (
    AlertRule("accuracy", what="accuracy", sigma=5.0, least=0.05, windows=2, severity="critical"),
    AlertRule("confidence", what="max_prediction_proba", stat="mean", sigma=5.0, least=0.05, windows=2),
    AlertRule("drift", what="drifted_feature_freq", above=0.3, windows=2),
    AlertRule("loss", when="loss", above=0.01, min_rows=1),
)


def rules(given: Sequence[AlertRule]) -> tuple[AlertRule, ...]:
    """Return the rules in force: the default ones, unless replaced by one of the same name, and the others."""
    names = {rule.name for rule in given}
    defaults = [rule for rule in DEFAULTS if rule.name not in names]
    return tuple(rule for rule in (*defaults, *given) if rule.enabled)


def checked(given: Sequence[AlertRule], notify: Mapping[str, NotifySection]) -> tuple[AlertRule, ...]:
    """Return the named rules; ConfigurationError for a rule that can never open, or a target without an address."""
    named: list[AlertRule] = []
    for i, rule in enumerate(given):
        where = f"[[alerts]] {rule.name or i + 1}"
        bounds = [name for name in ("above", "below", "sigma") if getattr(rule, name) is not None]
        if rule.enabled and rule.when == "value" and (not rule.what or not bounds):
            raise ConfigurationError(f"{where}: a series (what) or a bound (above, below or sigma) is missing")
        if rule.when != "value" and (rule.what or set(bounds) - {"above"}):
            raise ConfigurationError(
                f"{where}: when = {rule.when!r} allows no series (what), and no bound except above for loss"
            )
        if "sigma" in bounds and (len(bounds) > 1 or (rule.sigma or 0) <= 0):
            raise ConfigurationError(f"{where}: sigma must be above 0 and cannot be combined with above or below")
        series = [rule.what, rule.class_name, rule.feat_name, rule.stat, rule.agent_id, "/".join(bounds)]
        name = rule.name or " ".join(part for part in (rule.model, rule.when, *series) if part)
        if any(other.name == name for other in named):
            raise ConfigurationError(f"{where}: another rule is already named {name!r}; give it a name of its own")
        named.append(replace(rule, name=name))
    for target, section in notify.items():
        if not section.url_env:
            raise ConfigurationError(
                f"[notify.{target}]: url_env is missing; name the environment variable that holds the address"
            )
        if not section.url.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"[notify.{target}]: the environment variable {section.url_env} must hold an http address"
            )
    return tuple(named)
