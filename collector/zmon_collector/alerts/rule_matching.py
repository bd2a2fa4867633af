"""Points that an alert rule watches, and the number of rows or labels behind a value. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from zmon.contract import Point, Report, RowCounts
from zmon_collector.config.alerting import AlertRule

AGENT_FORGOTTEN = 1440  # windows
SCORES = frozenset(
    {"accuracy", "precision", "recall", "f1", "balanced_accuracy", "mcc", "cohen_kappa", "log_loss", "brier", "roc_auc",
     "pr_auc", "calibration_ece", "calibration_mce", "mae", "rmse", "r2", "bias", "mape", "target_value"}
)  # fmt: skip
NAMES = ("class_name", "feat_name", "stat")


def is_for(rule: AlertRule, model: str, version: str) -> bool:
    """Return whether the rule watches this model."""
    return fnmatchcase(model, rule.model) and fnmatchcase(version, rule.version)


def is_few(rule: AlertRule, report: Report, agent: str | None) -> bool:
    """Return whether the agent sends rows, but too few to be judged."""
    received = rows_by_agent(report.rows)
    count = labels_by_agent(report.points, report.rows) if rule.what in SCORES else received
    return rule.when != "silent" and received.get(agent, 0) > 0 and count.get(agent, 0) < rule.min_rows


def fits(rule: AlertRule, point: Point) -> bool:
    """Return whether the rule watches this series, which has the rule's `what`."""
    value = point.value
    if value.segment_name or value.category or value.predicted or value.reason:
        return False
    pairs = [(getattr(value, name), getattr(rule, name)) for name in NAMES]
    pairs.append((point.agent_id or "", rule.agent_id))
    return all(bool(has) == bool(glob) and fnmatchcase(has, glob) for has, glob in pairs)


def member_of(point: Point) -> str:
    """Return the names that distinguish a series from others of its rule."""
    value = point.value
    return " ".join(name for name in (point.agent_id, value.class_name, value.feat_name, value.stat) if name)


def rows_by_agent(rows: Mapping[str, RowCounts]) -> dict[str | None, int]:
    """Return the rows that values rest on, by agent; None stands for all agents."""
    by_agent: dict[str | None, int] = {agent: counts.received for agent, counts in rows.items()}
    return {None: sum(by_agent.values()), **by_agent}


def labels_by_agent(points: Sequence[Point], rows: Mapping[str, RowCounts]) -> dict[str | None, int]:
    """Return the labels that scores rest on, by agent: those of the window's own rows, or those joined later."""
    received = rows_by_agent(rows)
    labels: dict[str | None, int] = {}
    for agent, value in points:
        if value.segment_name:
            continue
        if value.what == "label_coverage":
            labels[agent] = max(labels.get(agent, 0), round(value.value * received.get(agent, 0)))
        elif value.what == "late_label_count" and value.reason == "joined":
            labels[agent] = max(labels.get(agent, 0), int(value.value))
    return labels or received


def note_agents(agents: dict[str, list[int]], rows: Mapping[str, RowCounts]) -> None:
    """Count, by agent, windows in a row with rows, and those without since then."""
    for agent, counts in rows.items():
        if counts.received:
            agents[agent] = [agents.get(agent, [0, 0])[0] + 1, 0]
    for agent in list(agents):
        if agent not in rows or not rows[agent].received:
            agents[agent][1] += 1
            if agents[agent][1] > AGENT_FORGOTTEN:
                del agents[agent]
