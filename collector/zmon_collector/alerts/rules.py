"""Alert rules over closed windows: which alerts open, hold and close. Pure: reports and the clock are passed in.

An alert is of one rule and one (model, version); the series that are beyond the rule's bounds are its members. It opens
with the first and closes with the last, so a broken input that moves a hundred series is one alert.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from zmon.contract import Point, Report
from zmon_collector.alerts.rule_matching import (
    SCORES,
    fits,
    is_few,
    is_for,
    labels_by_agent,
    member_of,
    note_agents,
    rows_by_agent,
)
from zmon_collector.config.alerting import AlertRule

LEARN = 3  # windows that the trailing mean needs
ADAPT = 60  # windows after which a level that stays is the new normal
KEPT = 200  # alerts that are remembered
SERIES = 20_000  # whose state is kept
MODELS = 10_000  # versions of models that are remembered
FORGOTTEN = 8 * 86400.0  # seconds without a report before one is not: a job of once a week goes on where it was
SILENT_AFTER = 3  # windows with rows, before an agent is missed
MISSED, QUIET = 10, 3600.0  # windows of its model, and seconds, in which a member gives nothing before it leaves
GRACE = 30.0  # seconds beyond its windows before a model without data is missed
NO_MORE = "no more data"  # why an alert is closed

Entry = dict[str, Any]
Key = tuple[str, ...]


class AlertEvent(NamedTuple):
    """An alert has opened or closed."""

    kind: str  # "opened" | "closed"
    alert: Entry


class Finding(NamedTuple):
    """What a rule finds of a series in a window: whether it is beyond a bound, or well within (neither: hold)."""

    member: str
    value: float
    beyond: bool
    within: bool
    said: str
    agent: str | None = None  # whose series it is; None: the rollup's


class AlertTracker:
    """The state of all alerts.

    Parameters
    ----------
    rules : sequence of AlertRule
    state : mapping, optional
        What `state` gave in an earlier run.
    """

    def __init__(self, rules: Sequence[AlertRule], state: Mapping[str, Any] | None = None) -> None:
        state = state or {}
        self.sequence: int = state.get("sequence", 0)  # of the last report
        self._number: int = state.get("number", 0)
        self.alerts: list[Entry] = list(state.get("alerts", []))  # newest last, open ones included
        self._series = _keyed(state.get("series", []), 4)  # by rule, model, version, member
        self._models = _keyed(state.get("models", []), 2)  # by model, version
        self._wall: float | None = state.get("wall")  # of the last report or look
        self._resumed = bool(state)
        self._follow(rules)  # what is open of rules that are gone waits for `change`, which tells

    def state(self) -> dict[str, Any]:
        """Plain data from which another run goes on."""
        return {
            "sequence": self.sequence,
            "number": self._number,
            "wall": self._wall,
            "alerts": self.alerts,
            "series": [[*key, series] for key, series in self._series.items()],
            "models": [[*key, model] for key, model in self._models.items()],
        }

    def replace_rules(self, rules: Sequence[AlertRule], wall: float) -> list[AlertEvent]:
        """Follow other rules; what stands under a rule that goes on by its name stays as it is."""
        self._follow(rules)
        return [
            self._close(alert, int(wall), "its rule is gone")
            for alert in self.open()
            if alert["rule"] not in self._rules
        ]

    def _follow(self, rules: Sequence[AlertRule]) -> None:
        self._rules = {rule.name: rule for rule in rules}
        self._by_what: dict[str, list[AlertRule]] = {}
        for rule in rules:
            if rule.when == "value":
                self._by_what.setdefault(rule.what, []).append(rule)
        for key in [key for key in self._series if key[0] not in self._rules]:
            del self._series[key]

    def open(self) -> list[Entry]:
        """Alerts that are open."""
        return [each for each in self.alerts if each["state"] == "firing"]

    # --- windows -----------------------------------------------------------------------------------------------------

    def evaluate(self, report: Report, wall: float) -> list[AlertEvent]:
        """A window has closed. A report that was taken before changes nothing."""
        if report.sequence <= self.sequence:
            return []
        self.sequence = report.sequence
        self._pass_to(wall)
        rows = sum(each.received for each in report.rows.values())
        events: list[AlertEvent] = []
        key = (report.model, report.version)
        model = self._models.pop(key, None) or {"agents": {}}
        if len(self._models) >= MODELS:
            events += self._forget(next(iter(self._models)), report.window.start)
        self._models[key] = model  # the last now; the first is the one longest without a report
        model["seen"] = wall
        if rows:
            period = report.window.end - report.window.start
            model.update(heard=wall, period=period, start=max(report.window.start, model.get("start", 0)))
            note_agents(model["agents"], report.rows)
        gave: set[tuple[str, str]] = set()
        for rule, found in self._found(report, model, rows):
            events += self._settle(rule, report.model, report.version, found, report.window.start)
            gave.update((rule.name, each.member) for each in found)
        return [*events, *self._leave(report, rows, gave, wall)]

    def advance(self, wall: float) -> list[AlertEvent]:
        """Look for models that give no more windows, and forget those that gave none for long."""
        self._pass_to(wall)
        events: list[AlertEvent] = []
        for key, model in list(self._models.items()):
            known: Any = model.get("heard", wall)  # all that an earlier zmon noted
            if wall - model.setdefault("seen", known) > FORGOTTEN:
                events += self._forget(key, int(wall))
        for rule in self._rules.values():
            if rule.when != "no_data":
                continue
            for (name, version), model in self._models.items():
                if "heard" not in model or not is_for(rule, name, version):
                    continue
                quiet = wall - model["heard"]
                gone = quiet > (rule.windows + 1) * model["period"] + GRACE
                finding = Finding("", quiet, gone, not gone, f"no rows for {quiet:.0f} s")
                one = _once(rule)
                events += self._settle(one, name, version, [finding], int(wall))
        return events

    def _pass_to(self, wall: float) -> None:
        """The time in which no collector ran says nothing of models: what was heard moves on by it."""
        if self._resumed:
            self._resumed = False
            heard = [
                (each, name)
                for each in (*self._models.values(), *self._series.values())
                for name in ("heard", "seen")
                if name in each
            ]
            last = self._wall or max((each[name] for each, name in heard), default=wall)
            for each, name in heard:
                each[name] += max(wall - last, 0.0)
        self._wall = wall

    def _found(self, report: Report, model: Entry, rows: int) -> Iterator[tuple[AlertRule, list[Finding]]]:
        labels, rows_of = labels_by_agent(report.points, report.rows), rows_by_agent(report.rows)
        found: dict[str, list[Finding]] = {}
        for point in report.points:
            for rule in self._by_what.get(point.value.what, ()):
                if is_for(rule, report.model, report.version) and fits(rule, point):
                    count = labels if rule.what in SCORES else rows_of
                    finding = self._judge(rule, report, point, count.get(point.agent_id, 0))
                    if finding is not None:
                        found.setdefault(rule.name, []).append(finding)
        for name, findings in found.items():
            yield self._rules[name], findings
        for rule in self._rules.values():
            if rule.when == "loss" and is_for(rule, report.model, report.version):
                lost = sum(each.lost for each in report.rows.values())
                if rows + lost >= rule.min_rows:
                    share, bound = lost / (rows + lost), rule.above or 0.0
                    said = f"{lost} of {rows + lost} rows were lost"
                    yield rule, [Finding("", share, share > bound, share <= bound * (1 - rule.hysteresis), said)]
            elif rule.when == "silent" and rows and is_for(rule, report.model, report.version):
                yield (
                    rule,
                    [
                        Finding(agent, float(missed), missed > 0, missed == 0, f"{agent} sends no rows")
                        for agent, (seen, missed) in model["agents"].items()
                        if seen >= SILENT_AFTER and fnmatchcase(agent, rule.agent_id or "*")
                    ],
                )

    def _judge(self, rule: AlertRule, report: Report, point: Point, rows: int) -> Finding | None:
        if rows < rule.min_rows:
            return None
        value = float(point.value.value)
        member = member_of(point)
        if rule.sigma is not None:
            return self._against_trailing(rule, report, point, rows)
        slack = [rule.hysteresis * abs(bound) for bound in (rule.above, rule.below) if bound is not None]
        above = rule.above is not None and value > rule.above
        below = rule.below is not None and value < rule.below
        within = (rule.above is None or value <= rule.above - slack[0]) and (
            rule.below is None or value >= rule.below + slack[-1]
        )
        bound = rule.below if below or rule.above is None else rule.above
        said = f"{value:.4g}, {'below' if bound == rule.below else 'above'} {bound:g}"
        return Finding(member, value, above or below, within, said, point.agent_id)

    def _against_trailing(self, rule: AlertRule, report: Report, point: Point, rows: int) -> Finding | None:
        """Outside mean ± kσ of the trailing windows. σ is no smaller than what chance alone does to a mean of numbers
        in [0, 1] over these rows: few windows say little of it."""
        value, member = float(point.value.value), member_of(point)
        series = self._of(rule, report.model, report.version, member)
        known: list[float] = series.setdefault("values", [])
        if len(known) < LEARN:
            known.append(value)
            return None
        n = len(known)
        mean = sum(known) / n
        spread = sum((each - mean) ** 2 for each in known) / (n - 1)
        if min(known) >= 0 and max(known) <= 1:
            spread = max(spread, mean * (1 - mean) / rows)
        bound = max((rule.sigma or 0) * math.sqrt(spread * (1 + 1 / n)), rule.least)
        distance = abs(value - mean)
        beyond = distance > bound
        outside = series.get("outside", 0) + 1 if beyond else 0
        if not beyond or outside > ADAPT:
            known[:] = [value] if outside > ADAPT else [*known, value][-rule.trailing :]
            outside = 0
        series["outside"] = outside
        within = distance <= bound * (1 - rule.hysteresis)
        said = f"{value:.4g}, expected {mean:.4g} ± {bound:.2g}"
        return Finding(member, value, beyond, within, said, point.agent_id)

    # --- open, hold, close -------------------------------------------------------------------------------------------

    def _of(self, rule: AlertRule, model: str, version: str, member: str) -> Entry:
        key = (rule.name, model, version, member)
        series = self._series.get(key)
        if series is None:
            if len(self._series) >= SERIES:
                self._series.pop(next(iter(self._series)))
            series = self._series[key] = {}
        return series

    def _settle(
        self, rule: AlertRule, model: str, version: str, found: Iterable[Finding], start: int
    ) -> Iterator[AlertEvent]:
        alert = next(
            (e for e in self.open() if (e["rule"], e["model"], e["version"]) == (rule.name, model, version)), None
        )
        opened: list[Finding] = []
        for each in found:
            series = self._of(rule, model, version, each.member)
            series["beyond"] = series.get("beyond", 0) + 1 if each.beyond else 0
            series["within"] = series.get("within", 0) + 1 if each.within else 0
            if alert is not None and each.member in alert["members"]:
                alert["members"][each.member] = each.said
                if series["within"] >= rule.windows:
                    del alert["members"][each.member]
            elif series["beyond"] >= rule.windows:
                opened.append(each)
                series["agent"] = each.agent
        if alert is not None:
            alert["members"].update({each.member: each.said for each in opened})
            if not alert["members"]:
                yield self._close(alert, start, "")
        elif opened:
            yield self._open(rule, model, version, opened, start)

    def _leave(self, report: Report, rows: int, gave: set[tuple[str, str]], wall: float) -> Iterator[AlertEvent]:
        """Members that give nothing for long, while their model goes on, leave their alert.

        It goes on in any version: that of a canary which was rolled back gives no windows at all.
        """
        start = report.window.start
        for alert in self.open():
            rule = self._rules.get(alert["rule"])
            if rule is None or rule.when == "no_data" or alert["model"] != report.model:
                continue
            own = alert["version"] == report.version
            for member in list(alert["members"]):
                series = self._of(rule, alert["model"], alert["version"], member)
                at = series.get("at", -1)  # versions have windows of the same time; it counts once
                if own and ((rule.name, member) in gave or is_few(rule, report, series.get("agent"))):
                    series.update(heard=wall, missed=0, at=max(at, start))
                elif rows and start > at:
                    series.update(heard=series.get("heard", wall), missed=series.get("missed", 0) + 1, at=start)
                    forgotten = own and rule.when == "silent"  # of agents that are known it gives all
                    if forgotten or (series["missed"] >= MISSED and wall - series["heard"] >= QUIET):
                        del alert["members"][member]
                        series["beyond"] = 0
            if not alert["members"]:
                yield self._close(alert, start, NO_MORE)

    def _forget(self, key: Key, start: int) -> Iterator[AlertEvent]:
        """Nothing is kept of a (model, version); what is open of it closes, its `no_data` too."""
        del self._models[key]
        for series in [each for each in self._series if each[1:3] == key]:
            del self._series[series]
        for alert in self.open():
            if (alert["model"], alert["version"]) == key:
                yield self._close(alert, start, NO_MORE)

    def _open(self, rule: AlertRule, model: str, version: str, opened: list[Finding], start: int) -> AlertEvent:
        self._number += 1
        first = opened[0]
        more = f", and {len(opened) - 1} further series" if len(opened) > 1 else ""
        named = f"{model} {version}".strip()
        alert: Entry = {
            "id": self._number,
            "rule": rule.name,
            "severity": rule.severity,
            "model": model,
            "version": version,
            "state": "firing",
            "since": start,
            "until": None,
            "value": first.value,
            "text": f"{rule.name} of {named}{f' ({first.member})' if first.member else ''}: {first.said}{more}",
            "members": {each.member: each.said for each in opened},
        }
        self.alerts.append(alert)
        while len(self.alerts) > KEPT:
            closed = next((i for i, each in enumerate(self.alerts) if each["state"] != "firing"), 0)
            del self.alerts[closed]
        return AlertEvent("opened", _copy(alert))

    def _close(self, alert: Entry, start: int, why: str) -> AlertEvent:
        alert.update(state="closed", until=start, members={}, why=why)
        return AlertEvent("closed", _copy(alert))


def _keyed(kept: Sequence[Sequence[Any]] | Mapping[str, Entry], parts: int) -> dict[Key, Entry]:
    """What `state` gave, by its keys. An earlier zmon joined them by NUL: names that held one cannot be told apart, and
    what was known of them begins anew."""
    if isinstance(kept, Mapping):
        kept = [[*key.split("\0"), entry] for key, entry in kept.items()]
    return {tuple(key): entry for *key, entry in kept if len(key) == parts}


def _copy(alert: Entry) -> Entry:
    return {**alert, "members": dict(alert["members"])}


def _once(rule: AlertRule) -> AlertRule:
    """The clock has counted its windows already."""
    return AlertRule(rule.name, when=rule.when, severity=rule.severity)
