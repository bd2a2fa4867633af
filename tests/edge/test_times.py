"""Times: of rows, and as features."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from tests.edge.forms import FRAMES, sharp
from tests.edge.harness import DAY, OLD, Edge
from tests.support.frameworks import require

N = 40
Y = [i % 2 for i in range(N)]
P = sharp(Y, 2)
NAMES = ["no", "yes"]

# --- 2: a time that cannot be ----------------------------------------------------------------------------------------

IMPOSSIBLE: dict[str, Callable[[], Any]] = {
    "9999": lambda: datetime(9999, 12, 31),
    "9999 with a zone": lambda: datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone(timedelta(hours=-12))),
    "year 1": lambda: datetime(1, 1, 1),
    "year 1 with a zone": lambda: datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=12))),
    "2600": lambda: np.datetime64("2600-01-01"),
    "far": lambda: np.datetime64(2**62, "D"),
    "NaT": lambda: np.datetime64("NaT"),
    "pandas.NaT": lambda: require("pandas").NaT,
    "pandas 9999": lambda: require("pandas").Timestamp("9999-12-31"),
    "1e300": lambda: 1e300,
    "inf": lambda: float("inf"),
    "nan": lambda: float("nan"),
    "huge": lambda: 2**70,
    "negative": lambda: -1.0,
    "text": lambda: "yesterday",
    "object": object,
    "complex": lambda: 1j,
    "set": lambda: {1},
}


@pytest.mark.parametrize("bad", IMPOSSIBLE)
@pytest.mark.parametrize("each", [False, True], ids=["one", "one per row"])
def test_a_time_that_cannot_be_costs_no_other_batch(edge: Edge, bad: str, each: bool) -> None:
    value = IMPOSSIBLE[bad]()
    model = edge.model(classes=NAMES)
    model.publish(P, labels=Y)
    model.publish(P, labels=Y, timestamps=[value] * N if each else value)
    model.publish(P[:1], labels=Y[:1], timestamps=[value] if each else value)
    model.publish(P, labels=Y)
    found = model.end()
    assert found["buffer_count"] == 2 * N
    assert found.rejected.total() == N + 1
    assert set(found.rejected) <= {"timestamp_invalid", "timestamp_unit"}
    assert found.stats[0].rejected == found.rejected
    assert 1 <= len(found.log) <= 2, found.log


def test_an_impossible_time_of_late_labels(edge: Edge) -> None:
    model = edge.model(classes=NAMES)
    model.publish(P, ids=list(range(N)))
    model.flush()
    model.publisher.publish_labels([0, 1], [0, 1], datetime(9999, 12, 31))
    model.publish_labels([2, 3], Y[2:4])
    found = model.end()
    assert (found.rows, found["accuracy"], found.rejected.total()) == (N, 1.0, 2)


SOUND: dict[str, Callable[[], Any]] = {
    "float": lambda: OLD,
    "int": lambda: int(OLD),
    "datetime": lambda: datetime.fromtimestamp(OLD, UTC),
    "naive": lambda: datetime.fromtimestamp(OLD, UTC).replace(tzinfo=None),
    "zone": lambda: datetime.fromtimestamp(OLD, timezone(timedelta(hours=5.5))),
    **{f"M8[{unit}]": lambda unit=unit: np.datetime64(int(OLD), "s").astype(f"M8[{unit}]")
       for unit in ("ns", "us", "ms", "s", "m", "h")},
    "Timestamp": lambda: require("pandas").Timestamp(OLD, unit="s", tz="America/New_York"),
    "array of one": lambda: np.array([OLD]),
}  # fmt: skip


@pytest.mark.parametrize("form", SOUND)
@pytest.mark.parametrize("each", [False, True], ids=["one", "one per row"])
def test_every_form_of_a_time(edge: Edge, form: str, each: bool) -> None:
    value = SOUND[form]()
    model = edge.model(classes=NAMES)
    if each:
        model.publish(P[:1], labels=Y[:1], timestamps=value if form == "array of one" else [value])
        model.publish(P, labels=Y, timestamps=np.repeat(value, N) if form == "array of one" else [value] * N)
    else:
        model.publish(P[:1], labels=Y[:1], timestamps=value)
        model.publish(P, labels=Y, timestamps=value)
    found = model.end()
    if form == "array of one" and not each:  # of another length than the rows: never guessed
        assert found["buffer_count"] + found.rejected.total() == N + 1
    else:
        assert (found["buffer_count"], found.rejected, found.degraded) == (N + 1, {}, {})


@pytest.mark.parametrize("container", ["pandas", "pandas-zone", "pandas-arrow", "polars", "arrow", "object"])
@pytest.mark.parametrize("unit", ["ns", "us", "ms", "s"])
def test_times_in_every_unit_and_container(edge: Edge, container: str, unit: str) -> None:
    days = np.array([int(OLD) + i % 2 * DAY for i in range(N)], "M8[s]")
    times = days.astype(f"M8[{unit}]")
    if container == "pandas":
        given: Any = require("pandas").Series(times)
    elif container == "pandas-zone":
        given = require("pandas").Series(times).dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo")
    elif container == "pandas-arrow":
        given = require("pandas").Series(times).convert_dtypes(dtype_backend="pyarrow")
    elif container == "polars":
        given = require("polars").Series(times.astype("M8[ms]") if unit == "s" else times)
    elif container == "arrow":
        given = require("pyarrow").array(times)
    else:
        given = days.astype(object)
    model = edge.model(classes=NAMES)
    model.publish(P, labels=Y, timestamps=given)
    found = model.end()
    assert (found.rows, found.rejected, found.degraded) == (N, {}, {})
    assert [window[(("what", "buffer_count"),)] for window in found.windows.values()] == [N / 2, N / 2]


MIXED: dict[str, Callable[[Any, int], Any]] = {
    "string": lambda time, i: "yesterday" if i == 3 else time,
    "string among numbers": lambda _, i: "yesterday" if i == 3 else OLD,
    "None among numbers": lambda _, i: None if i == 3 else OLD,
    "bool": lambda time, i: True if i == 3 else time,
    "complex": lambda _, i: np.complex128(1) if i == 3 else OLD,
    "object": lambda time, i: object() if i == 3 else time,
    "duration": lambda time, i: np.timedelta64(7, "s") if i == 3 else time,
    "far, of another unit": lambda _, i: (
        np.datetime64("2600-01-01", "s") if i == 3 else np.datetime64(int(OLD * 1e9), "ns")
    ),
}  # fmt: skip


@pytest.mark.parametrize("bad", MIXED)
def test_one_cell_that_is_no_time_costs_its_row(edge: Edge, bad: str) -> None:
    time = datetime.fromtimestamp(OLD, UTC)
    model = edge.model(classes=NAMES)
    model.publish(P, labels=Y, timestamps=[MIXED[bad](time, i) for i in range(N)])
    found = model.end()
    assert (found["buffer_count"], found.rejected, found.degraded) == (N - 1, {"timestamp_invalid": 1}, {})


def test_times_of_several_types_are_read_one_by_one(edge: Edge) -> None:
    aware = datetime.fromtimestamp(OLD, UTC)
    kinds: list[Any] = [aware, aware.replace(tzinfo=None), require("pandas").Timestamp(aware)]
    kinds += [OLD, int(OLD), Decimal(int(OLD)), np.float64(OLD)]
    kinds += [np.datetime64(int(OLD), "s"), np.datetime64(int(OLD * 1e3), "ms")]
    model = edge.model(classes=NAMES)
    for first in range(len(kinds)):
        model.publish(P, labels=Y, timestamps=[kinds[(first + i) % len(kinds)] for i in range(N)])
    found = model.end()
    assert (found["buffer_count"], found.rejected, found.degraded) == (N * len(kinds), {}, {})


@pytest.mark.parametrize("form", ["array", "pandas", "polars"])
def test_times_as_a_frame_of_one_column(edge: Edge, form: str) -> None:
    times = np.full(N, int(OLD), "M8[s]").astype("M8[us]")
    given = times[:, None] if form == "array" else require(form).DataFrame({"at": times})
    model = edge.model(classes=NAMES)
    model.publish(P, labels=Y, timestamps=given)
    found = model.end()
    assert (found["buffer_count"], found.rejected, found.degraded) == (N, {}, {})


@pytest.mark.parametrize("unit", ["ns", "us", "ms", "s", "D"])
@pytest.mark.parametrize("gaps", [True, False], ids=["gaps", "none"])
def test_masked_times(edge: Edge, unit: str, gaps: bool) -> None:
    """Nanoseconds as objects are integers: a mean of 1.7e18 instead of 1.7e9."""
    mask = np.arange(N) % 10 == 0 if gaps else np.zeros(N, dtype=bool)
    days = int(OLD) // DAY * DAY
    times = np.ma.masked_array(np.full(N, days, "M8[s]").astype(f"M8[{unit}]"), mask=mask)
    spans = np.ma.masked_array(np.full(N, DAY, "m8[s]").astype(f"m8[{unit}]"), mask=mask)
    model = edge.model(classes=NAMES)
    model.publish(P, {"when": times, "span": spans}, Y, timestamps=times)
    model.publish(P, times[:, None], Y, timestamps=times)
    found = model.end()
    rows = 2 * (N - mask.sum())
    assert (found["buffer_count"], found.rejected.total(), found.degraded) == (rows, 2 * mask.sum(), {})
    assert (found.feature("when"), found.feature("span"), found.feature("feat_0")) in [
        (days, DAY, days),
        (days, DAY, None),
    ]


def test_a_list_of_times_of_several_units(edge: Edge) -> None:
    """NumPy makes them one unit, in which the far one wraps."""
    far, near = np.datetime64("2600-01-01", "s"), np.datetime64("2023-01-01", "ns")
    given = [far if i % 2 else near for i in range(N)]
    mean = (19880899200.0 + 1672531200.0) / 2
    for form in (given, [[each] for each in given], [{"feat_0": each} for each in given], {"feat_0": given}):
        model = edge.model(classes=NAMES)
        model.publish(P, form, Y)
        found = model.end()
        assert (found.rows, found.rejected, found.degraded, found.feature("feat_0")) == (N, {}, {}, mean)


DAYS = np.array(["2023-11-15", "2023-11-16"] * (N // 2), "M8[s]")
NAMED_TIMES: dict[str, Callable[[], Any]] = {
    **{unit: lambda unit=unit: DAYS.astype(f"M8[{unit}]") for unit in ("ns", "us", "ms", "s", "h")},
    "masked": lambda: np.ma.masked_array(DAYS.astype("M8[ns]"), mask=np.zeros(N, dtype=bool)),
    "datetimes": lambda: DAYS.tolist(),
    "pandas": lambda: require("pandas").Series(DAYS.astype("M8[ns]")),
    "polars": lambda: require("polars").Series(DAYS.astype("M8[us]")),
    "arrow": lambda: require("pyarrow").array(DAYS),
}


@pytest.mark.parametrize("form", NAMED_TIMES)
def test_times_as_names_are_the_same_in_every_unit(edge: Edge, form: str) -> None:
    given = NAMED_TIMES[form]()
    model = edge.model(classes=NAMES, kinds={"day": "categorical"})
    model.publish(P, labels=Y, segments={"day": given})
    found = model.end()
    assert (found.rows, found.rejected, found.degraded) == (N, {}, {})
    for day in ("2023-11-15 00:00:00", "2023-11-16 00:00:00"):
        assert found.get("buffer_count", segment_name="day", segment_value=day) == N / 2


def test_times_are_no_indices_of_classes(edge: Edge) -> None:
    """The nanoseconds 0 and 1 are."""
    model = edge.model(classes=NAMES)
    model.publish(P, labels=np.array(Y).astype("M8[ns]"))
    model.publish(predictions=np.array(Y).astype("m8[ns]"))
    found = model.end()
    assert (found.rows, found.degraded, found.rejected) == (N, {"label_unknown": N}, {"prediction_unknown": N})


# --- 3: times as features --------------------------------------------------------------------------------------------

FAR = datetime(9999, 12, 31)
NEAR = datetime(2024, 1, 1)
SECONDS = [(FAR if i % 40 == 0 else NEAR).replace(tzinfo=UTC).timestamp() for i in range(400)]
TIMES = [FAR if i % 40 == 0 else NEAR for i in range(400)]


def stamped(unit: str) -> np.ndarray:
    return np.array(TIMES, "M8[s]").astype(f"M8[{unit}]")


def series(values: Any, **options: Any) -> Any:
    return require("pandas").Series(values, name="feat_0", **options)


COLUMNS: dict[str, Callable[[], Any]] = {
    "array": lambda: stamped("s")[:, None],
    "structured": lambda: stamped("s").view([("feat_0", "M8[s]")]),
    **{f"pandas {unit}": lambda unit=unit: series(stamped(unit)).to_frame() for unit in ("s", "ms", "us")},
    "pandas zone": lambda: series(stamped("s")).dt.tz_localize("UTC").to_frame(),
    "pandas object": lambda: series(TIMES, dtype=object).to_frame(),
    "pandas arrow": lambda: series(stamped("s")).convert_dtypes(dtype_backend="pyarrow").to_frame(),
    "polars us": lambda: require("polars").DataFrame({"feat_0": TIMES}),
    "polars ms": lambda: require("polars").DataFrame({"feat_0": stamped("ms")}),
    "polars date": lambda: require("polars").DataFrame({"feat_0": [each.date() for each in TIMES]}),
    "arrow s": lambda: require("pyarrow").table({"feat_0": require("pyarrow").array(stamped("s"))}),
    "arrow date": lambda: require("pyarrow").table({"feat_0": [each.date() for each in TIMES]}),
    "rows": lambda: [{"feat_0": each} for each in TIMES],
    "rows of dates": lambda: [{"feat_0": each.date()} for each in TIMES],
    "rows of datetime64": lambda: [{"feat_0": each} for each in stamped("s")],
    "columns": lambda: {"feat_0": stamped("D")},
    "lists": lambda: [[each] for each in TIMES],
}  # fmt: skip


@pytest.mark.parametrize("form", COLUMNS)
def test_times_as_features_are_seconds_however_far(edge: Edge, form: str) -> None:
    model = edge.model(classes=NAMES)
    model.publish(P.repeat(10, 0), COLUMNS[form](), Y * 10)
    found = model.end()
    assert (found.rows, found.rejected, found.degraded, found.log) == (400, {}, {}, [])
    assert found.feature("feat_0") == pytest.approx(np.mean(SECONDS))
    assert found.feature("feat_0", "max") == pytest.approx(max(SECONDS))


UNITS = [
    (unit, container)
    for unit in ("ns", "us", "ms", "s")
    for container in ("array", "pandas", "polars", "arrow", "rows")
    if (unit, container) != ("s", "polars")  # polars has no seconds
]


@pytest.mark.parametrize(("unit", "container"), UNITS)
def test_missing_times_and_fractions(edge: Edge, unit: str, container: str) -> None:
    times = np.array([1_700_000_000_500 + i for i in range(N)], "M8[ms]").astype(f"M8[{unit}]")
    times[::4] = "NaT"
    seconds = times[~np.isnat(times)].astype("M8[ns]").astype(float) / 1e9
    given: Any = {
        "array": lambda: times[:, None],
        "pandas": lambda: require("pandas").DataFrame({"feat_0": times}),
        "polars": lambda: require("polars").DataFrame({"feat_0": times}),
        "arrow": lambda: require("pyarrow").table({"feat_0": require("pyarrow").array(times)}),
        "rows": lambda: [{"feat_0": each} for each in times],
    }[container]()
    model = edge.model(classes=NAMES)
    model.publish(P, given, Y)
    found = model.end()
    assert (found.rows, found.rejected, found.degraded) == (N, {}, {})
    assert found.feature("feat_0") == pytest.approx(seconds.mean(), rel=1e-12)
    assert found.get("feature_missing_freq", feat_name="feat_0") == 0.25


@pytest.mark.parametrize("container", ["array", "pandas", "polars", "arrow", "rows", "rows of numpy"])
def test_durations_are_seconds_however_long(edge: Edge, container: str) -> None:
    spans = np.array([2**34 if i % 8 == 0 else 90 for i in range(N)], "m8[s]")  # 2**34 s are 544 years
    given: Any = {
        "array": lambda: spans[:, None],
        "pandas": lambda: require("pandas").DataFrame({"feat_0": spans}),
        "polars": lambda: require("polars").DataFrame({"feat_0": spans.astype("m8[ms]")}),
        "arrow": lambda: require("pyarrow").table({"feat_0": require("pyarrow").array(spans)}),
        "rows": lambda: [{"feat_0": timedelta(seconds=int(each.astype(int)))} for each in spans],
        "rows of numpy": lambda: [{"feat_0": each} for each in spans],
    }[container]()
    model = edge.model(classes=NAMES)
    model.publish(P, given, Y)
    found = model.end()
    assert (found.rows, found.rejected, found.degraded) == (N, {}, {})
    assert found.feature("feat_0") == pytest.approx(spans.astype(float).mean())


def test_a_date_and_a_time_in_one_column(edge: Edge) -> None:
    model = edge.model(classes=NAMES)
    model.publish(P, FRAMES["rows"]({"t": [NEAR, date(2024, 1, 1)] * (N // 2)}), Y)
    found = model.end()
    assert (found.rows, found.rejected) == (N, {})
    assert found.feature("t") == NEAR.replace(tzinfo=UTC).timestamp()


# --- 22: naive times in another zone ---------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["datetime", "list", "pandas", "numpy"])
def test_naive_local_times_are_said_once(edge: Edge, form: str) -> None:
    before = os.environ.get("TZ")
    try:
        os.environ["TZ"] = "America/New_York"
        time.tzset()
        model = edge.model(classes=NAMES)
        for _ in range(30):
            now: Any = datetime.now()
            given = {
                "datetime": lambda now=now: now,
                "list": lambda now=now: [now],
                "pandas": lambda now=now: require("pandas").Series([now]),
                "numpy": lambda now=now: np.array([now], "M8[us]"),
            }[form]()
            model.publish(P[:1], labels=Y[:1], timestamps=given)
        found = model.end()
    finally:
        os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
        time.tzset()
    assert (found.rows, found.rejected) == (30, {})
    assert len([line for line in found.log if "UTC" in line]) == 1, found.log


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_sound_times_are_not_remarked(edge: Edge, zone: str) -> None:
    before = os.environ.get("TZ")
    try:
        os.environ["TZ"] = zone
        time.tzset()
        model = edge.model(classes=NAMES)
        model.publish(P, labels=Y, timestamps=datetime.now(UTC))
        model.publish(P, labels=Y, timestamps=datetime.now(UTC).replace(tzinfo=None))
        model.publish(P, labels=Y, timestamps=time.time())
        found = model.end()
    finally:
        os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
        time.tzset()
    assert (found.rows, found.rejected, found.log) == (3 * N, {}, [])
