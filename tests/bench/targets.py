"""What zmon promises of its speed, each with the figure of a run: reached or not. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tests.bench import rate
from tests.bench.effect import COLLECTED
from tests.bench.given import ARROW, DICT, MIXED, NUMERIC, PANDAS, POLARS, WITH_COLUMNS, Case
from tests.bench.inserts import BUILT
from tests.bench.measure import Table

Figures = dict[str, Any]


class Target(NamedTuple):
    """A promise, the value of a run, its bound, whether more is better, and how it is written."""

    text: str
    value: Callable[[Figures], float]
    bound: float
    more: bool
    form: Callable[[float], str]

    def reached(self, figures: Figures) -> bool:
        value = self.value(figures)
        return value >= self.bound if self.more else value <= self.bound


def one(rows: list[dict[str, Any]], /, **names: Any) -> dict[str, Any]:
    """The row of these names."""
    (found,) = (row for row in rows if all(row[name] == value for name, value in names.items()))
    return found


def _of_raw(shape: str) -> Callable[[Figures], float]:
    return lambda f: float(one(f["capture"], shape=shape, what="publish")["of_raw"])


def _beyond_copies(figures: Figures) -> float:
    """Microseconds of the largest batch beyond twice the memcpy."""
    rows, shape = figures["capture"], "128×(10+784)"
    publish, copy = one(rows, shape=shape, what="publish"), one(rows, shape=shape, what="memcpy")
    return float(publish["p50_us"] - 2 * copy["p50_us"])


def _tail(figures: Figures) -> float:
    published = [row for row in figures["capture"] if row["what"] == "publish"]
    return float(max(row["p99_us"] / row["p50_us"] for row in published))


def _rows(rows: int) -> Callable[[Figures], float]:
    return lambda f: float(one(f["collector"], features=20, rows_a_message=rows, journal="on")["rows_per_second"])


def _engine(figures: Figures) -> float:
    return float(max(row["values_per_second"] for row in figures["engine"] if row["preset"] == "default"))


def _peer(figures: Figures) -> float:
    return float(next(row["zmon_times"] for row in figures["peers"]["statistics"] if row["name"].startswith("whylogs")))


def _grown(figures: Figures) -> float:
    sizes = [row["mib"] for row in figures["memory"] if row["against"] == "rows"]
    return float(max(sizes) - sizes[0])


def _waits(figures: Figures) -> float:
    return float(max(row["wait_closing_p99_ms"] / row["wait_p99_ms"] for row in figures["close"]))


def _form(figures: Figures, case: Case) -> dict[str, Any]:
    return one(figures["forms"]["calls"], **case._asdict())


def _forms(*cases: Case) -> Callable[[Figures], float]:
    """The worst of these, in raw sends."""
    return lambda f: float(max(_form(f, case)["of_raw"] for case in cases))


def _beyond_copy(figures: Figures) -> float:
    """Raw sends that single pandas rows take beyond the copy of their frame, the worst of them."""
    rows = [_form(figures, Case(PANDAS, 1, columns, values)) for columns in (13, 500) for values in (NUMERIC, MIXED)]
    return float(max((row["p50_us"] - row["copy_us"]) / row["raw_us"] for row in rows))


def _form_tail(figures: Figures) -> float:
    rows = [row for row in figures["forms"]["calls"] if row["rows"] == 1]
    return float(max(row["p99_us"] / row["p50_us"] for row in rows))


def _watch(figures: Figures) -> float:
    return float(max(row["added_of_raw"] for row in figures["forms"]["watch"]))


def _scouter(figures: Figures) -> float:
    """What publish takes of scouter-ml's call with its objects built, in the same loop."""
    (row,) = (row for row in figures["peers"]["capture"] if row["what"].endswith(BUILT))
    return float(1 / row["of_zmon"])


def _times(value: float) -> str:
    return f"{value:.2f} ×"


def _number(value: float) -> str:
    return f"{value:,.0f}"


def _millions(value: float) -> str:
    return f"{value / 1e6:.0f} M"


def _unit(unit: str) -> Callable[[float], str]:
    return lambda value: f"{value:.0f} {unit}"


TARGETS = (
    Target("publish p50 of 1×(2+10), of a raw send", _of_raw("1×(2+10)"), 0.6, False, _times),
    Target("publish p50 of 32×(10+20), of a raw send", _of_raw("32×(10+20)"), 0.6, False, _times),
    Target("publish p50 of 128×(10+784), beyond 2 × memcpy", _beyond_copies, 5.0, False, lambda v: f"{v:.1f} µs"),
    Target("publish p99 of p50, worst shape, collector on the other core", _tail, 5.0, False, _times),
    Target(
        "publish p50 of a row with ids, labels and segments, of a raw send",
        _forms(Case(WITH_COLUMNS, 1, 13, NUMERIC)), 0.5, False, _times,
    ),
    Target(
        "publish p50 of a dict of 13 or 20 mixed values, of a raw send",
        _forms(Case(DICT, 1, 13, MIXED), Case(DICT, 1, 20, MIXED)), 0.5, False, _times,
    ),
    Target(
        "publish p50 of a polars or arrow row, of a raw send",
        _forms(*(Case(form, 1, n, kind) for form in (POLARS, ARROW) for n in (13, 500) for kind in (NUMERIC, MIXED))),
        1.0, False, _times,
    ),
    Target("publish p50 of a pandas row beyond frame.copy(), of a raw send", _beyond_copy, 1.0, False, _times),
    Target(
        "publish p50 of pandas 32×5,000 mixed, of frame.copy()",
        lambda f: float(_form(f, Case(PANDAS, 32, 5000, MIXED))["of_copy"]), 2.0, False, _times,
    ),
    Target("publish p99 of p50, worst form of a single row", _form_tail, 5.0, False, _times),
    Target("what zmon.watch adds to publish, worst form, of a raw send", _watch, 1.0, False, _times),
    Target(
        f"processor time of a dict row at 2,000/s, of that at {rate.COMMIT}",
        lambda f: float(f["rate"][0]["of_raw"] / rate.BEFORE), 0.2, False, _times,
    ),
    Target("publish p50 of a dict row, of scouter-ml's insert with its objects built", _scouter, 1.0, False, _times),
    Target(
        "a model's time a batch more, at 1,000 batches/s",
        lambda f: float(one(f["effect"], what=COLLECTED)["lost"]), 0.01, False, lambda v: f"{v:.2%}",
    ),
    Target("rows/s, journal on, 20 features, 1,000 rows a message", _rows(1000), 1e6, True, _number),
    Target("rows/s, journal on, 20 features, 32 rows a message", _rows(32), 4e5, True, _number),
    Target("of the earlier MLWatcher's 25,000 rows/s", lambda f: _rows(1000)(f) / 25_000, 40.0, True, _times),
    Target("engine, 784 features, windows of 200,000 rows, values/s", _engine, 150e6, True, _millions),
    Target("engine on one worker, of whylogs' rate on the same rows", _peer, 50.0, True, _times),
    Target(
        "single-row publishes/s, several publishers",
        lambda f: float(max(row["publishes_per_second"] for row in f["singles"] if row["processes"] > 1)), 1e5, True,
        _number,
    ),
    Target(
        "close to file, a sample of 5,000×784",
        lambda f: float(max(row["sample_ms"] for row in f["close"])), 50.0, False, _unit("ms"),
    ),
    Target("p99 of others' acknowledgements while closing, of that otherwise", _waits, 2.0, False, _times),
    Target("memory grown from 1 to 100 million rows", _grown, 64.0, False, _unit("MiB")),
    Target(
        "rows acknowledged after a start, whatever the folder holds",
        lambda f: max(float(row["rows_s"]) for row in f["restart"]), 2.0, False, lambda v: f"{v:.2f} s",
    ),
    Target("import zmon above numpy", lambda f: float(f["start"]["zmon_ms"]), 30.0, False, _unit("ms")),
)  # fmt: skip


def show(figures: Figures) -> Table:
    return Table("Targets", ("", "target", "measured", ""), [_row(each, figures) for each in TARGETS])


def _row(target: Target, figures: Figures) -> tuple[str, str, str, str]:
    bound = ("≥ " if target.more else "≤ ") + target.form(target.bound)
    try:
        measured = target.form(target.value(figures))
    except KeyError:  # a measurement that no committed run has made yet
        return target.text, bound, "", "not measured"
    return target.text, bound, measured, "reached" if target.reached(figures) else "**not reached**"
