"""Shows a reference profile to people, as text. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from zmon.batch import SKIPPED_KINDS, Array
from zmon.names import printable
from zmon.reference.document import Profile
from zmon.reference.tables import Categorical, Numeric

BARS = "▁▂▃▄▅▆▇█"
MOST = 12  # categories shown of a column
QUANTILES = {"q05": 12, "q25": 63, "q50": 127, "q75": 191, "q95": 242}  # places in the grid of 256


def text(profile: Profile) -> str:
    """Describe the content of the profile."""
    return "\n".join(_lines(profile)) + "\n"


def _lines(profile: Profile) -> Iterator[str]:
    schema = profile.schema
    yield f"reference profile {profile.digest}: {profile.rows:,} rows of a {schema.task}"
    if profile.error:
        yield f"quantiles and edges are of a sample: standard error of a rank {profile.error:.2%}; all counts are exact"
    if profile.own is not None:
        yield f"own windows: {profile.own.windows} of {profile.own.rows:,.0f} rows on average"
    if schema.classes:
        yield ""
        yield "class                     predicted        labels  calibration"
        for i, name in enumerate(schema.classes):
            counts = f"{_of(profile.predicted, i)}    {_of(profile.labels, i)}"
            yield f"{_short(name, 24):24} {counts}  {_calibration(profile, i)}"
    for table in (profile.score, profile.numeric):
        if table is not None and table.names:
            yield ""
            yield from _numeric(table, profile)
    for column in profile.categorical:
        yield ""
        yield from _categorical(column, profile.rows)
    skipped = [f for f, kind in zip(schema.features, schema.kinds, strict=True) if kind in SKIPPED_KINDS]
    if skipped:
        yield ""
        yield f"not captured: {', '.join(_short(name, 40) for name in skipped)}"


def _numeric(table: Numeric, profile: Profile) -> Iterator[str]:
    names = " ".join(f"{name:>10}" for name in ("mean", "std", "min", *QUANTILES, "max"))
    yield f"{'column':24} {names} {'missing':>8}  bins"
    for i, name in enumerate(table.names):
        rows = table.counts[:, i].sum()
        quantiles = table.quantiles[list(QUANTILES.values()), i]
        numbers = (table.mean[i], table.std[i], table.low[i], *quantiles, table.high[i])
        missing = table.counts[-1, i] / max(1, rows)
        present = table.bins[:-1, i]
        present = present[present >= 0]
        own_psi = ""
        if profile.own is not None and name in profile.own.mean:
            own_psi = f"  own psi {profile.own.mean[name]:.3f} ± {profile.own.std[name]:.3f}"
        shown = " ".join(f"{x:10.4g}" for x in numbers)
        yield f"{_short(name, 24):24} {shown} {missing:8.2%}  {_bars(present)}{own_psi}"
        edges = table.edges[np.isfinite(table.edges[:, i]), i]
        counts = " ".join(str(n) for n in present.tolist())
        yield f"{'':24} edges {' '.join(f'{x:.6g}' for x in edges)}; counts {counts}, missing {table.counts[-1, i]}"


def _categorical(column: Categorical, rows: int) -> Iterator[str]:
    yield f"{_short(column.name, 24)}: {len(column.categories)} categories, missing {column.missing / max(1, rows):.2%}"
    for name, count in list(zip(column.categories, column.counts.tolist(), strict=True))[:MOST]:
        yield f"  {_short(name, 40):40} {count:10,d}  {count / max(1, rows):7.2%}"
    rest = int(column.counts[MOST:].sum()) + column.other
    if rest:
        yield f"  {'(further ones)':40} {rest:10,d}  {rest / max(1, rows):7.2%}"


def _calibration(profile: Profile, i: int) -> str:
    if profile.calibration is None:
        return "– (too few labels)"
    knots = profile.calibration[i]
    return "as it is" if knots is None else f"isotonic, {len(np.unique(knots.y))} steps"


def _of(counts: Array | None, i: int) -> str:
    return f"{'–':>10}" if counts is None else f"{int(counts[i]):10,d}"


def _bars(counts: Sequence[int] | Array) -> str:
    most = max(1, int(max(counts, default=0)))
    return "".join(BARS[round(int(n) / most * (len(BARS) - 1))] for n in counts)


def _short(name: str, width: int) -> str:
    clean = printable(name)
    return clean if len(clean) <= width else clean[: width - 1] + "…"
