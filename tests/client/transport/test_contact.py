"""What a publisher's log says about its collectors: lost, found again, rows dropped; at most every five minutes."""

from __future__ import annotations

import pytest

from zmon._transport.contact import PATIENCE, Contact
from zmon._transport.notices import EVERY
from zmon._transport.settings import Endpoint

HOUR = 3600


class Service:
    """A publisher's turns, one a second, and the lines that they log."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.contact = Contact(
            "fraud", [Endpoint("tcp://a:5757", "tcp://a:5758"), Endpoint("ipc:///z", "ipc:///z.ctl")]
        )
        self.now = 1000.0
        self.dropped = 0
        self._log = caplog

    def go(self, seconds: int, *, connected: bool, waiting: int = 0, losing: int = 0) -> list[tuple[float, str]]:
        """Let seconds pass, in each of which rows are lost; return the new lines, each with its second."""
        lines = []
        start = self.now
        for _ in range(seconds):
            self.dropped += losing
            self._log.clear()
            self.contact.note(self.now, connected=connected, waiting=waiting, dropped=self.dropped)
            lines += [(self.now - start, record.getMessage()) for record in self._log.records]
            self.now += 1
        return lines


@pytest.fixture
def service(caplog: pytest.LogCaptureFixture) -> Service:
    return Service(caplog)


def test_a_collector_that_is_away_is_said_after_some_seconds_and_every_five_minutes(service: Service) -> None:
    lines = service.go(HOUR, connected=False, waiting=7)
    assert [second for second, _ in lines] == [PATIENCE + EVERY * i for i in range(12)]
    for _, line in lines:
        assert "'fraud' has reached no collector at tcp://a:5757, ipc:///z" in line
    assert "for 5 s; 7 rows wait, 0 were dropped since" in lines[0][1]
    assert "for 305 s" in lines[1][1]


def test_rows_that_are_dropped_without_a_collector_are_said_at_once(service: Service) -> None:
    lines = service.go(HOUR, connected=False, waiting=7, losing=10)
    assert [second for second, _ in lines] == [EVERY * i for i in range(12)]
    assert "10 were dropped since" in lines[0][1]
    assert "3010 were dropped since" in lines[1][1]


def test_one_line_when_a_collector_is_reached_again(service: Service) -> None:
    assert not service.go(HOUR, connected=True)
    assert len(service.go(60, connected=False, waiting=7, losing=2)) == 1
    ((second, line),) = service.go(HOUR, connected=True)
    assert second == 0
    assert "'fraud' reaches a collector at tcp://a:5757, ipc:///z again after 60 s; 120 rows were dropped" in line


def test_an_absence_that_was_not_said_has_no_end_either(service: Service) -> None:
    assert not service.go(int(PATIENCE), connected=False, waiting=7)
    assert not service.go(60, connected=True)
    assert not service.go(HOUR, connected=False), "nothing waits: nobody misses a collector"
    assert not service.go(60, connected=True)


def test_a_connection_that_flaps_is_said_once_in_five_minutes(service: Service) -> None:
    lines = []
    for _ in range(60):
        lines += service.go(30, connected=False, waiting=7, losing=1)
        lines += service.go(30, connected=True)
    away = [line for _, line in lines if "no collector" in line]
    again = [line for _, line in lines if "again" in line]
    assert len(away) == len(again) == 12
    assert all("30 rows were dropped meanwhile" in line for line in again)


def test_drops_while_connected_have_a_line_of_their_own(service: Service) -> None:
    lines = service.go(HOUR, connected=True, waiting=7, losing=10)
    assert [second for second, _ in lines] == [EVERY * i for i in range(12)]
    assert "10 rows of model 'fraud' dropped (buffer_full)" in lines[0][1]
    assert "raise buffer_bytes" in lines[0][1]
    assert all(line.startswith("zmon: 3000 rows") for _, line in lines[1:]), "those of five minutes"


def test_drops_that_were_counted_are_not_counted_again(service: Service) -> None:
    service.go(60, connected=False, waiting=7, losing=2)
    assert len(service.go(1, connected=True)) == 1
    assert not service.go(HOUR, connected=True)
    assert len(service.go(1, connected=True, losing=5)) == 1
