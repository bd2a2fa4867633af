"""The alerts that are kept: open ones by rule and model, and the newest closed ones. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

KEPT = 200  # closed alerts
OPEN = 5000  # open ones

Alert = dict[str, Any]  # plain data, as it is stored, shown and sent
Key = tuple[str, ...]


class AlertList:
    """Alerts by number.

    Attributes
    ----------
    changed : set
        Numbers of alerts that have changed, come or gone since it was last cleared.
    """

    def __init__(self, kept: Iterable[Alert] = ()) -> None:
        self._alerts: dict[int, Alert] = {}
        self._open: dict[str, dict[Key, Alert]] = {}  # by model, then rule and version
        self._closed: deque[int] = deque()
        self.changed: set[int] = set()
        self.refused = 0  # alerts that were not opened, because too many are
        for alert in kept:
            self._alerts[alert["id"]] = alert
            if alert["state"] == "firing":
                self._open.setdefault(alert["model"], {})[alert["rule"], alert["version"]] = alert
            else:
                self._closed.append(alert["id"])

    @property
    def newest_id(self) -> int:
        return max(self._alerts, default=0)

    def all(self) -> list[Alert]:
        """Return all alerts, in the order in which they opened."""
        return list(self._alerts.values())

    def open(self) -> list[Alert]:
        """Return the open alerts."""
        return [alert for of_model in self._open.values() for alert in of_model.values()]

    def open_of(self, model: str) -> list[Alert]:
        """Return the open alerts of a model, in any version."""
        return list(self._open.get(model, {}).values())

    def find(self, rule: str, model: Key) -> Alert | None:
        """Return the open alert of a rule and a (model, version)."""
        name, version = model
        return self._open.get(name, {}).get((rule, version))

    def get(self, number: int) -> Alert | None:
        return self._alerts.get(number)

    def has_room(self) -> bool:
        """Return whether another alert may open; count it if not."""
        room = len(self._alerts) - len(self._closed) < OPEN
        self.refused += not room
        return room

    def add(self, alert: Alert) -> None:
        """Add an open alert."""
        self._alerts[alert["id"]] = alert
        self._open.setdefault(alert["model"], {})[alert["rule"], alert["version"]] = alert
        self.changed.add(alert["id"])

    def touch(self, alert: Alert) -> None:
        """Note that an alert has changed."""
        self.changed.add(alert["id"])

    def close(self, alert: Alert) -> None:
        """Move an alert to the closed ones, of which the oldest go."""
        of_model = self._open[alert["model"]]
        del of_model[alert["rule"], alert["version"]]
        if not of_model:
            del self._open[alert["model"]]
        self._closed.append(alert["id"])
        self.changed.add(alert["id"])
        while len(self._closed) > KEPT:
            gone = self._closed.popleft()
            del self._alerts[gone]
            self.changed.add(gone)
