"""Alert rules over closed windows: which alerts open, stay open and close. Pure: reports and the clock are passed in.

An alert belongs to one rule and one (model, version). Its members are the series beyond the rule's bounds: it opens
with the first and closes with the last, so a broken input that moves a hundred series is one alert.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from zmon.contract import Point, Report
from zmon_collector.alerts import rule_matching as matching
from zmon_collector.alerts.alert_list import Alert, AlertList
from zmon_collector.alerts.series_state import Key, SeriesStates, State
from zmon_collector.config.alerting import AlertRule

LEARN = 3  # windows before the trailing mean is used
ADAPT = 60  # windows after which a lasting new level becomes the expected one
MODELS = 10_000  # versions of models whose state is kept
FORGOTTEN = 8 * 86400.0  # seconds without a report until a version is forgotten: a weekly job keeps its state
SILENT_AFTER = 3  # windows with rows before an agent can count as silent
MISSED, QUIET = 10, 3600.0  # windows of its model, and seconds, without a value before a member leaves its alert
GRACE = 30.0  # seconds beyond its windows before a model counts as without data
NO_MORE = "no more data"  # why an alert was closed


class AlertChanges(NamedTuple):
    """What another run needs, as far as it has changed: plain data, None for what is gone."""

    shared: dict[str, Any]
    models: dict[Key, dict[str, Any] | None]
    alerts: dict[int, Alert | None]


class AlertEvent(NamedTuple):
    """The opening or closing of an alert."""

    kind: str  # "opened" | "closed"
    alert: Alert


class Finding(NamedTuple):
    """A rule's finding on a series in a window: beyond a bound, well within it, or neither, which changes nothing."""

    member: str
    value: float
    beyond: bool
    within: bool
    text: str
    agent: str | None = None  # None: the rollup


class AlertTracker:
    """The state machine of all alerts.

    Parameters
    ----------
    rules : sequence of AlertRule
    state : mapping, optional
        From `state` of an earlier run.
    """

    def __init__(self, rules: Sequence[AlertRule], state: Mapping[str, Any] | None = None) -> None:
        state = state or {}
        self.sequence: int = state.get("sequence", 0)  # of the last report
        self._alerts = AlertList(state.get("alerts", []))
        self._number: int = max(state.get("number", 0), self._alerts.newest_id)
        self._series = SeriesStates(_keyed(state.get("series", []), 4).items())  # by rule, model, version, member
        self._models = _keyed(state.get("models", []), 2)  # by model, version
        self._wall: float | None = state.get("wall")  # of the last report or look
        self._resumed = bool(state)
        self._set_rules(rules)  # open alerts of removed rules wait for `replace_rules`, which reports their closing

    def state(self) -> dict[str, Any]:
        """Return plain data from which another run can continue."""
        return {
            "sequence": self.sequence,
            "number": self._number,
            "wall": self._wall,
            "alerts": self._alerts.all(),
            "series": [[*key, series] for key, series in self._series.all()],
            "models": [[*key, model] for key, model in self._models.items()],
        }

    def changes(self, *, everything: bool = False) -> AlertChanges:
        """Return what has changed since `note_saved`, or all there is."""
        models, alerts = self._series.changed, self._alerts.changed
        if everything:
            models, alerts = {*models, *self._models}, {*alerts, *(alert["id"] for alert in self._alerts.all())}
        return AlertChanges(
            {"sequence": self.sequence, "number": self._number, "wall": self._wall},
            {
                key: {"model": self._models[key], "series": self._series.of(key)} if key in self._models else None
                for key in models
            },
            {number: self._alerts.get(number) for number in alerts},
        )

    def note_saved(self) -> None:
        """Note that all changes are with the database."""
        self._series.changed.clear()
        self._alerts.changed.clear()

    @property
    def alerts(self) -> list[Alert]:
        """All alerts that are kept, the newest last."""
        return self._alerts.all()

    @property
    def left_out(self) -> dict[Key, int]:
        """Series that no rule watches for want of room, by (model, version)."""
        return self._series.left_out

    @property
    def refused(self) -> int:
        """Alerts that did not open, because too many are open."""
        return self._alerts.refused

    def replace_rules(self, rules: Sequence[AlertRule], wall: float) -> list[AlertEvent]:
        """Replace the rules. Alerts of a rule whose name remains stay open."""
        self._set_rules(rules)
        orphans = [alert for alert in self.open() if alert["rule"] not in self._rules]
        return [self._close(alert, int(wall), "its rule is gone") for alert in orphans]

    def _set_rules(self, rules: Sequence[AlertRule]) -> None:
        self._rules = {rule.name: rule for rule in rules}
        self._by_what: dict[str, list[AlertRule]] = {}
        for rule in rules:
            if rule.when == "value":
                self._by_what.setdefault(rule.what, []).append(rule)
        self._series.keep_rules(self._rules)

    def open(self) -> list[Alert]:
        """Return the open alerts."""
        return self._alerts.open()

    # --- windows -----------------------------------------------------------------------------------------------------

    def evaluate(self, report: Report, wall: float) -> list[AlertEvent]:
        """Apply the rules to a closed window. A report that was evaluated before changes nothing."""
        if report.sequence <= self.sequence:
            return []
        self.sequence = report.sequence
        self._skip_downtime(wall)
        rows = sum(counts.received for counts in report.rows.values())
        events: list[AlertEvent] = []
        key = (report.model, report.version)
        model = self._models.pop(key, None) or {"agents": {}}
        if len(self._models) >= MODELS:
            events += self._forget(next(iter(self._models)), report.window.start)
        self._models[key] = model  # moved to the end: the first has been without a report for longest
        model["seen"] = wall
        self._series.begin(key, report.window.start)
        if rows:
            period = report.window.end - report.window.start
            model.update(heard=wall, period=period, start=max(report.window.start, model.get("start", 0)))
            matching.note_agents(model["agents"], report.rows)
        judged: set[tuple[str, str]] = set()
        for rule, findings in self._judge_report(report, model, rows):
            events += self._apply(rule, key, findings, report.window.start)
            judged.update((rule.name, finding.member) for finding in findings)
        events += self._drop_quiet(report, rows, judged, wall)
        self._series.end(key, report.window.end - report.window.start)
        return events

    def advance(self, wall: float) -> list[AlertEvent]:
        """Find models without new windows, and forget those that have had none for long."""
        self._skip_downtime(wall)
        events: list[AlertEvent] = []
        for key, model in list(self._models.items()):
            heard: Any = model.get("heard", wall)  # state of an earlier release has no "seen"
            if wall - model.setdefault("seen", heard) > FORGOTTEN:
                events += self._forget(key, int(wall))
        for rule in self._rules.values():
            if rule.when != "no_data":
                continue
            for (name, version), model in self._models.items():
                if "heard" not in model or not matching.is_for(rule, name, version):
                    continue
                quiet = wall - model["heard"]
                gone = quiet > (rule.windows + 1) * model["period"] + GRACE
                finding = Finding("", quiet, gone, not gone, f"no rows for {quiet:.0f} s")
                at_once = replace(rule, windows=1)  # the clock has counted the rule's windows already
                events += self._apply(at_once, (name, version), [finding], int(wall))
        return events

    def _skip_downtime(self, wall: float) -> None:
        """After a restart, add the time without a collector to the times of last data: it says nothing about models."""
        if self._resumed:
            self._resumed = False
            states = [*self._models.values(), *(state for _, state in self._series.all())]
            noted = [(state, name) for state in states for name in ("heard", "seen") if name in state]
            self._series.changed.update(self._models)
            last = self._wall or max((state[name] for state, name in noted), default=wall)
            for state, name in noted:
                state[name] += max(wall - last, 0.0)
        self._wall = wall

    def _judge_report(self, report: Report, model: State, rows: int) -> Iterator[tuple[AlertRule, list[Finding]]]:
        labels, rows_of = matching.labels_by_agent(report.points, report.rows), matching.rows_by_agent(report.rows)
        by_rule: dict[str, list[Finding]] = {}
        for point in report.points:
            for rule in self._by_what.get(point.value.what, ()):
                if matching.is_for(rule, report.model, report.version) and matching.fits(rule, point):
                    count = labels if rule.what in matching.SCORES else rows_of
                    finding = self._judge(rule, report, point, count.get(point.agent_id, 0))
                    if finding is not None:
                        by_rule.setdefault(rule.name, []).append(finding)
        for name, findings in by_rule.items():
            yield self._rules[name], findings
        for rule in self._rules.values():
            if rule.when == "loss" and matching.is_for(rule, report.model, report.version):
                lost = sum(counts.lost for counts in report.rows.values())
                if rows + lost >= rule.min_rows:
                    share, bound = lost / (rows + lost), rule.above or 0.0
                    text = f"{lost} of {rows + lost} rows were lost"
                    yield rule, [Finding("", share, share > bound, share <= bound * (1 - rule.hysteresis), text)]
            elif rule.when == "silent" and rows and matching.is_for(rule, report.model, report.version):
                findings = [
                    Finding(agent, float(missed), missed > 0, missed == 0, f"{agent} sends no rows")
                    for agent, (seen, missed) in model["agents"].items()
                    if seen >= SILENT_AFTER and fnmatchcase(agent, rule.agent_id or "*")
                ]
                yield rule, findings

    def _judge(self, rule: AlertRule, report: Report, point: Point, rows: int) -> Finding | None:
        if rows < rule.min_rows:
            return None
        value = float(point.value.value)
        member = matching.member_of(point)
        if rule.sigma is not None:
            return self._against_trailing(rule, report, point, rows)
        slack = [rule.hysteresis * abs(bound) for bound in (rule.above, rule.below) if bound is not None]
        above = rule.above is not None and value > rule.above
        below = rule.below is not None and value < rule.below
        within = (rule.above is None or value <= rule.above - slack[0]) and (
            rule.below is None or value >= rule.below + slack[-1]
        )
        bound = rule.below if below or rule.above is None else rule.above
        text = f"{value:.4g}, {'below' if bound == rule.below else 'above'} {bound:g}"
        return Finding(member, value, above or below, within, text, point.agent_id)

    def _against_trailing(self, rule: AlertRule, report: Report, point: Point, rows: int) -> Finding | None:
        """Compare with mean ± kσ of the trailing windows.

        Few windows say little of σ, so it is no smaller than what chance alone does to a mean of numbers in [0, 1] over
        this many rows.
        """
        value, member = float(point.value.value), matching.member_of(point)
        series = self._series.get(rule.name, (report.model, report.version), member)
        trailing: list[float] = series.setdefault("values", [])
        if len(trailing) < LEARN:
            trailing.append(value)
            return None
        n = len(trailing)
        mean = sum(trailing) / n
        variance = sum((earlier - mean) ** 2 for earlier in trailing) / (n - 1)
        if min(trailing) >= 0 and max(trailing) <= 1:
            variance = max(variance, mean * (1 - mean) / rows)
        bound = max((rule.sigma or 0) * math.sqrt(variance * (1 + 1 / n)), rule.least)
        distance = abs(value - mean)
        beyond = distance > bound
        outside = series.get("outside", 0) + 1 if beyond else 0
        if not beyond or outside > ADAPT:
            trailing[:] = [value] if outside > ADAPT else [*trailing, value][-rule.trailing :]
            outside = 0
        series["outside"] = outside
        within = distance <= bound * (1 - rule.hysteresis)
        text = f"{value:.4g}, expected {mean:.4g} ± {bound:.2g}"
        return Finding(member, value, beyond, within, text, point.agent_id)

    # --- open, keep, close -------------------------------------------------------------------------------------------

    def _apply(self, rule: AlertRule, model: Key, findings: Iterable[Finding], start: int) -> Iterator[AlertEvent]:
        """Open, change or close the alert of a rule and a model by a window's findings."""
        alert = self._alerts.find(rule.name, model)
        opened: list[Finding] = []
        for finding in findings:
            held = alert is not None and finding.member in alert["members"]
            if not finding.beyond and not held:
                self._settle(rule, model, finding.member)
                continue
            series = self._series.get(rule.name, model, finding.member)
            series["beyond"] = series.get("beyond", 0) + 1 if finding.beyond else 0
            series["within"] = series.get("within", 0) + 1 if finding.within else 0
            if alert is not None and held:
                alert["members"][finding.member] = finding.text
                self._alerts.touch(alert)
                if series["within"] >= rule.windows:
                    del alert["members"][finding.member]
                    self._settle(rule, model, finding.member)
            elif series["beyond"] >= rule.windows:
                opened.append(finding)
                series["agent"] = finding.agent
        if alert is not None:
            if opened:
                alert["members"].update({finding.member: finding.text for finding in opened})
                self._alerts.touch(alert)
            if not alert["members"]:
                yield self._close(alert, start, "")
        elif opened and self._alerts.has_room():
            yield self._open(rule, model, opened, start)

    def _settle(self, rule: AlertRule, model: Key, member: str) -> None:
        """Note that a series is neither in an alert nor about to be: only what a rule has learnt of it is kept."""
        series = self._series.find(rule.name, model, member)
        if series is not None:
            if "values" in series:
                series["beyond"] = 0
            else:
                self._series.drop(rule.name, model, member)

    def _drop_quiet(self, report: Report, rows: int, judged: set[tuple[str, str]], wall: float) -> Iterator[AlertEvent]:
        """Drop members that have had no value for long while their model, in any version, has windows.

        In any version, because that of a canary that was rolled back has no windows at all.
        """
        start = report.window.start
        for alert in self._alerts.open_of(report.model):
            rule = self._rules.get(alert["rule"])
            if rule is None or rule.when == "no_data":
                continue
            key = (alert["model"], alert["version"])
            same_version = alert["version"] == report.version
            for member in list(alert["members"]):
                series = self._series.get(rule.name, key, member)
                at = series.get("at", -1)  # windows of several versions at the same time count once
                if same_version and (
                    (rule.name, member) in judged or matching.is_few(rule, report, series.get("agent"))
                ):
                    series.update(heard=wall, missed=0, at=max(at, start))
                elif rows and start > at:
                    series.update(heard=series.get("heard", wall), missed=series.get("missed", 0) + 1, at=start)
                    forgotten = same_version and rule.when == "silent"  # it judges every agent that is not forgotten
                    if forgotten or (series["missed"] >= MISSED and wall - series["heard"] >= QUIET):
                        del alert["members"][member]
                        self._alerts.touch(alert)
                        self._settle(rule, key, member)
            if not alert["members"]:
                yield self._close(alert, start, NO_MORE)

    def _forget(self, key: Key, start: int) -> Iterator[AlertEvent]:
        """Drop all state of a (model, version) and close its alerts, `no_data` included."""
        del self._models[key]
        self._series.forget(key)
        self._series.forget_turns(key)
        for alert in self._alerts.open_of(key[0]):
            if alert["version"] == key[1]:
                yield self._close(alert, start, NO_MORE)

    def _open(self, rule: AlertRule, model: Key, opened: list[Finding], start: int) -> AlertEvent:
        self._number += 1
        first = opened[0]
        more = f", and {len(opened) - 1} further series" if len(opened) > 1 else ""
        name, version = model
        title = f"{name} {version}".strip()
        alert: Alert = {
            "id": self._number,
            "rule": rule.name,
            "severity": rule.severity,
            "model": name,
            "version": version,
            "state": "firing",
            "since": start,
            "until": None,
            "value": first.value,
            "text": f"{rule.name} of {title}{f' ({first.member})' if first.member else ''}: {first.text}{more}",
            "members": {finding.member: finding.text for finding in opened},
        }
        self._alerts.add(alert)
        return AlertEvent("opened", _copy(alert))

    def _close(self, alert: Alert, start: int, why: str) -> AlertEvent:
        alert.update(state="closed", until=start, members={}, why=why)
        self._alerts.close(alert)
        return AlertEvent("closed", _copy(alert))


def _keyed(kept: Sequence[Sequence[Any]] | Mapping[str, State], parts: int) -> dict[Key, State]:
    """Return kept state by its keys.

    An earlier release joined keys with NUL. Names that contain one cannot be split again: their state is dropped.
    """
    if isinstance(kept, Mapping):
        kept = [[*key.split("\0"), state] for key, state in kept.items()]
    return {tuple(key): state for *key, state in kept if len(key) == parts}


def _copy(alert: Alert) -> Alert:
    return {**alert, "members": dict(alert["members"])}
