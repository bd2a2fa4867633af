"""What an answer means, in each of the shapes the API has been seen to use, and whatever else comes back."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zmon_plugins.api.chunk_sender import ChunkSender
from zmon_plugins.api.pace import TokenBucket
from zmon_plugins.api.responses import Outcome, read
from zmon_plugins.api.target import ApiTarget
from zmon_plugins.http.response import Response, Unreachable, retry_after

from tests.support.standin import shaped
from zmon.backoff import Backoff
from zmon.errors import RetryLater

ERRORS = [(1, "2026", "NaN"), (3, "2011", "illegal value")]


def answer(body: Any, n: int = 5, status: int = 200, **headers: str) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read(Response(status, {name.replace("_", "-"): value for name, value in headers.items()}, data), n, 0.0)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"null", b'{"errors": []}', b'{"errors": null}', b'"ok"', b" \n"])
def test_no_errors_is_success(body: bytes) -> None:
    found = answer(body)
    assert (found.outcome, found.refused, found.again, found.stray) == (Outcome.TAKEN, {}, [], [])


@pytest.mark.parametrize("shape", ["text", "number", "plain", "list"])
def test_partial_errors_in_each_shape(shape: str) -> None:
    found = answer(shaped(ERRORS, shape))
    assert found.outcome is Outcome.TAKEN
    assert {index: code for index, (code, _) in found.refused.items()} == {1: "2026", 3: "2011"}
    assert not found.again


def test_errors_without_index_are_of_no_sample() -> None:
    found = answer(shaped(ERRORS, "no_index"))
    assert found.stray == [("2026", "NaN"), ("2011", "illegal value")]
    assert not found.refused


def test_in_a_request_of_one_there_is_no_doubt() -> None:
    assert answer(shaped(ERRORS[:1], "no_index"), n=1).refused == {0: ("2026", "NaN")}


def test_an_index_beyond_the_request_is_of_no_sample() -> None:
    found = answer({"errors": [{"index": "99", "error": "2026"}, {"index": "-1", "error": "2026"}]})
    assert len(found.stray) == 2


@pytest.mark.parametrize("code", ["1004", "2002", "2003"])
def test_slow_down(code: str) -> None:
    some = answer({"errors": [{"index": 2, "error": code}, {"index": 4, "error": "2026"}]})
    assert (some.outcome, some.again, list(some.refused)) == (Outcome.TAKEN, [2], [4])
    assert some.why
    whole = answer({"errors": [{"error": code}]})
    assert whole.outcome is Outcome.LATER
    both = answer({"errors": [{"error": code}, {"index": 4, "error": "2026"}]})
    assert (both.outcome, both.again, list(both.refused)) == (Outcome.TAKEN, [0, 1, 2, 3], [4])


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_statuses_to_try_again(status: int) -> None:
    found = answer(b"oops", status=status, Retry_After="7")
    assert (found.outcome, found.after) == (Outcome.LATER, 7.0)


@pytest.mark.parametrize(
    ("status", "body"), [(401, {}), (403, {}), (200, {"errors": [{"error": 2001}]}), (404, {}), (302, {})]
)
def test_statuses_to_pause_on(status: int, body: Any) -> None:
    assert answer(body, status=status).outcome is Outcome.PAUSE


def test_a_request_refused_whole() -> None:
    told = answer(shaped(ERRORS, "text"), status=400)
    assert (told.outcome, list(told.refused), told.again, told.why) == (Outcome.TAKEN, [1, 3], [0, 2, 4], "")
    assert answer({"message": "bad"}, status=400).outcome is Outcome.SPLIT
    assert answer({"message": "bad"}, status=413, n=1).refused[0][0] == "unknown"


@pytest.mark.parametrize("body", [b"<html>", b'{"errors": [', b"\xff\xfe"])
def test_200_alone_is_no_success(body: bytes) -> None:
    assert answer(body).outcome is Outcome.LATER


anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["errors", "error", "index", "x"]), inner)
    ),
    max_leaves=10,
)


@given(anything, st.sampled_from([200, 202, 400, 401, 413, 429, 500]), st.integers(1, 20))
def test_whatever_comes_back_each_sample_has_one_fate(body: Any, status: int, n: int) -> None:
    found = answer(body, n, status)
    assert all(0 <= index < n for index in [*found.refused, *found.again])
    assert not set(found.again) & set(found.refused)
    if found.outcome is Outcome.TAKEN and status == 400:
        assert found.refused, "progress"
    assert found.outcome is not Outcome.SPLIT or n > 1


@given(st.binary(max_size=200), st.text(max_size=40))
def test_rubbish_does_not_raise(body: bytes, header: str) -> None:
    read(Response(200, {"Retry-After": header}, body), 3, 0.0)
    assert retry_after(header, 0.0) >= 0.0


def test_a_bucket_holds_its_rate_in_every_second() -> None:
    now = [0.0]
    bucket = TokenBucket(2000.0, 1000.0, lambda: now[0])
    times = []
    while len(times) < 20:
        missing = bucket.take(1000)
        if missing:
            now[0] += missing
        else:
            times.append(now[0])
    assert all(sum(start <= each < start + 0.999 for each in times) <= 2 for start in times)
    assert times[-1] < 10.0


def test_a_request_larger_than_the_bucket_waits_its_turn() -> None:
    now = [0.0]
    bucket = TokenBucket(100.0, 100.0, lambda: now[0])
    assert bucket.take(500) == 0.0
    assert bucket.take(100) == 5.0


class Down:
    def send(self, samples: Any) -> Any:
        raise Unreachable("nobody is there")


def waits(client: Any, chance: float, tries: int) -> list[float]:
    """How long a sender asks to wait after each of some failures in a row."""
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: None)
    sender = ChunkSender(client, ApiTarget(), clock, lambda: chance)
    found = []
    for _ in range(tries):
        now[0] += 1000.0
        with pytest.raises(RetryLater) as error:
            sender.request(lambda: client.send([]))
        found.append(error.value.after)
    return found


def test_backoff_is_jittered_capped_and_never_earlier_than_asked() -> None:
    assert waits(Down(), 1.0, 8) == [1, 2, 4, 8, 16, 32, 60, 60]
    assert waits(Down(), 0.0, 2) == [0.0, 0.0]
    busy = SimpleNamespace(send=lambda samples: Response(503, {"Retry-After": "300"}, b""))
    assert waits(busy, 1.0, 1) == [300.0]


def test_backoff_starts_over_after_a_success() -> None:
    backoff = Backoff(1.0, 60.0, jitter=1.0, chance=lambda: 1.0)
    assert [backoff.next() for _ in range(3)] == [1, 2, 4]
    backoff.reset()
    assert backoff.next() == 1.0
