"""Drift: the distance of a window from the model's reference, and of a replica from its siblings.

============================ ================= ======================================================================
series                       keys              definition (p: the reference's shares by bin, q: the window's)
============================ ================= ======================================================================
feature_drift                feat_name, stat   psi = Σ (p − q) ln(p / q), shares (n_b + ½) / (N + k/2);
                                               js = √(½ KL(p‖m) + ½ KL(q‖m)), base 2, m = (p + q)/2;
                                               numeric: ks = max |F − F_ref|, below 1,000 rows with its p-value
                                               ks_p; wasserstein = W₁ / max(σ_ref, 0.001);
                                               categorical: chi2, cramers_v (Bergsma), linf = max |p − q|
prediction_drift             stat; feat_name   the same of the predicted classes; with feat_name
                                               max_prediction_proba (regression: prediction_value) of that number
label_drift                  stat              the same of the labels
feature_drifted              feat_name         1 when the feature's psi is over its threshold, else 0
drifted_feature_freq         –                 share of the features over their threshold, in [0, 1]
prediction_drifted           –                 1 when the predicted classes or that number are over theirs, else 0
label_drifted                –                 1 when the labels are, else 0
feature_out_of_range_freq    feat_name         share of rows below the reference's least or above its largest value
feature_new_category_freq    feat_name         share of rows with a category that the reference does not have
replica_drift                stat = psi;       of one agent's rows against those of all other agents together:
                             feat_name         predicted classes, or a number by its name
replica_stands_out           –                 1 for an agent that differs from the others, else 0
============================ ================= ======================================================================

Bins are the reference's (`zmon.Profile`), so counts are over all rows and merge exactly; ks and wasserstein compare the
rollup's row sample with the reference's quantiles. docs/drift.md explains thresholds, and when an agent stands out.
Options: ``threshold`` (0.1, or ``"learned"``), ``min_rows`` (100).

>>> import numpy as np, zmon
>>> from zmon import Context, Window
>>> random = np.random.default_rng(0)
>>> ages = lambda mean: (random.dirichlet((1, 1), 1000), random.normal(mean, 9, (1000, 1)))
>>> reference = zmon.profile(*ages(40), classes=["no", "yes"], features=["age"])
>>> ctx = Context("fraud", "", None, reference.schema, Window(0, 60), reference=reference)
>>> (batch,) = zmon.reference.Reader(classes=["no", "yes"], features=["age"]).batches(*ages(49))
>>> metric = Drift()
>>> values = {(v.what, v.stat): v.value for v in metric.result(metric.update(metric.create(ctx), batch, ctx), ctx)}
>>> round(values["feature_drift", "psi"], 2), values["drifted_feature_freq", ""], values["prediction_drifted", ""]
(1.01, 1.0, 0)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from zmon.batch import Array, Batch
from zmon.contract import Context, Metric, Point, Series, Value
from zmon.hooks import hookimpl
from zmon.reference import Profile, bins
from zmon.reference.build import score_of
from zmon_plugins import distances, replicas
from zmon_plugins.reference_bins import ReferenceBins, bins_for

NUMERIC = ("js", "ks", "wasserstein", "ks_p")
CATEGORICAL = ("js", "chi2", "cramers_v", "linf")
THRESHOLD = 0.1  # of psi, beyond what chance gives
MIN_ROWS = 100
_NAMED, _PSI = ("feat_name",), ("psi",)  # keys and stats of series


def _series(
    what: str, definition: str, keys: tuple[str, ...] = (), stats: tuple[str, ...] = (), preset: str = "default"
) -> Series:
    """Return a series that needs a reference."""
    return Series(what, definition, keys, stats, preset, reference=True)


class Drift:
    """Counts in the reference's bins. Accumulator: `of`, the reference's digest, and counts by part.

    Without a reference, predictions are counted in twenty equal bins, so that replicas can be compared.
    """

    name = "drift"
    needs: frozenset[str] = frozenset()
    series = (
        _series("feature_drift", "population stability index against the reference", _NAMED, _PSI),
        _series("feature_drift", "further distances from the reference", _NAMED, (*NUMERIC, *CATEGORICAL[1:]), "full"),
        _series("drifted_feature_freq", "share of the features whose psi is over its threshold"),
        _series("feature_drifted", "1: the feature's psi is over its threshold", _NAMED, (), "full"),
        _series("prediction_drift", "psi of the predicted classes against the reference", stats=_PSI),
        _series("prediction_drift", "further distances of the predicted classes", (), CATEGORICAL, "full"),
        _series("prediction_drift", "psi of max_prediction_proba, or of prediction_value", _NAMED, _PSI),
        _series("prediction_drift", "further distances of that number", _NAMED, NUMERIC, "full"),
        _series("prediction_drifted", "1: a psi of the predictions is over its threshold"),
        _series("label_drift", "psi of the labels against the reference", stats=_PSI),
        _series("label_drift", "further distances of the labels", (), CATEGORICAL, "full"),
        _series("label_drifted", "1: the labels' psi is over its threshold"),
        _series("feature_out_of_range_freq", "share of rows beyond the reference's", _NAMED, (), "full"),
        _series(
            "feature_new_category_freq", "share of rows whose category the reference does not have", _NAMED, (), "full"
        ),
        Series("replica_drift", "psi of an agent's predicted classes against all others'", stats=_PSI),
        _series("replica_drift", "psi of a number or category against all others'", _NAMED, _PSI, "full"),
        Series("replica_stands_out", "1: the agent differs from the others", preset="minimal"),
    )

    def create(self, ctx: Context) -> dict[str, Any]:
        return bins_for(ctx).empty()

    def update(self, acc: dict[str, Any], batch: Batch, ctx: Context) -> dict[str, Any]:
        reference = bins_for(ctx)
        new = reference.empty()
        columns = batch.columns
        if "predicted" in columns:
            new["predicted"] = np.bincount(batch.predicted, minlength=len(ctx.schema.classes))[:, np.newaxis]
        if "labels" in columns and ctx.schema.task == "classification":
            labels = batch.labels[batch.labels >= 0]
            new["labels"] = np.bincount(labels, minlength=len(ctx.schema.classes))[:, np.newaxis]
        score = score_of(batch)
        if score is not None and reference.score is not None:
            values = score[1][:, np.newaxis]
            new["score"] = bins.count(values[~np.isnan(values[:, 0])], reference.score)
        if "inputs" in columns and reference.numeric:
            inputs = reference.inputs(batch.inputs)
            new["numeric"] = bins.count(inputs, reference.edges)
            new["outside"] = np.count_nonzero((inputs < reference.low) | (inputs > reference.high), axis=0)
        if "codes" in columns:
            for i, column in enumerate(reference.categorical):
                new["codes"][i], new["new"][i] = column.count(batch.codes[:, column.at], batch.categories[column.at])
        return self.merge(acc, new)

    def merge(self, left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
        if left["of"] != right["of"]:  # the reference changed with a restart: the larger part counts
            return max(left, right, key=lambda acc: (int(acc["predicted"].sum()), acc["of"]))
        for part in ("predicted", "labels", "score", "numeric", "outside", "new"):
            left[part] = left[part] + right[part]
        left["codes"] = [one + two for one, two in zip(left["codes"], right["codes"], strict=True)]
        return left

    def result(self, acc: dict[str, Any], ctx: Context) -> Iterable[Value]:
        profile, against = ctx.reference, bins_for(ctx)
        if profile is None or acc["of"] != against.digest:
            return
        yield from self._features(acc, ctx, profile, against)
        over: list[bool] = []
        if profile.predicted is not None and acc["predicted"].any():
            reference = profile.predicted[:, np.newaxis]
            yield from _distances("prediction_drift", reference, acc["predicted"], CATEGORICAL)
            over += _over(ctx, reference, acc["predicted"], 2).tolist()
        if profile.score is not None and acc["score"].any():
            name = profile.score.names[0]
            yield from _distances("prediction_drift", profile.score.bins, acc["score"], NUMERIC, name)
            yield from self._of_sample(ctx, profile.score, _scores(ctx), "prediction_drift")
            over += _over(ctx, profile.score.bins, acc["score"], 2, profile.score.names).tolist()
        if over and max(acc["predicted"].sum(), acc["score"].sum()) >= _min_rows(ctx):
            yield Value("prediction_drifted", int(any(over)))
        if profile.labels is not None and acc["labels"].any():
            reference = profile.labels[:, np.newaxis]
            yield from _distances("label_drift", reference, acc["labels"], CATEGORICAL)
            if acc["labels"].sum() >= _min_rows(ctx):
                yield Value("label_drifted", int(_over(ctx, reference, acc["labels"], 1)[0]))

    def _features(self, acc: dict[str, Any], ctx: Context, profile: Profile, against: ReferenceBins) -> Iterator[Value]:
        tests = len(against.numeric) + len(against.categorical)
        verdicts: dict[str, bool] = {}
        rows = int(acc["numeric"][:, 0].sum()) if against.numeric else 0
        if rows:
            psi, js = (distance(profile.numeric.bins, acc["numeric"]) for distance in (distances.psi, distances.js))
            over = _over(ctx, profile.numeric.bins, acc["numeric"], tests, against.numeric)
            for i, name in enumerate(against.numeric):
                yield Value("feature_drift", float(psi[i]), feat_name=name, stat="psi")
                yield Value("feature_drift", float(js[i]), feat_name=name, stat="js")
                yield Value("feature_out_of_range_freq", int(acc["outside"][i]) / rows, feat_name=name)
                verdicts[name] = bool(over[i])
            if ctx.sample is not None and "inputs" in ctx.sample.columns:
                values = against.inputs(ctx.sample.inputs)
                yield from self._of_sample(ctx, profile.numeric, values, "feature_drift")
        for i, column in enumerate(against.categorical):
            counts = acc["codes"][i][:, np.newaxis]
            n = int(counts.sum())
            if not n:
                continue
            rows = max(rows, n)
            yield from _distances("feature_drift", column.reference, counts, CATEGORICAL, column.name)
            if column.complete:
                yield Value("feature_new_category_freq", int(acc["new"][i]) / n, feat_name=column.name)
            verdicts[column.name] = bool(_over(ctx, column.reference, counts, tests)[0])
        if verdicts and rows >= _min_rows(ctx):
            for name, drifted in verdicts.items():
                yield Value("feature_drifted", int(drifted), feat_name=name)
            yield Value("drifted_feature_freq", sum(verdicts.values()) / len(verdicts))

    def _of_sample(self, ctx: Context, table: Any, values: Array | None, what: str) -> Iterator[Value]:
        """Yield Kolmogorov–Smirnov and Wasserstein, for the rollup only: they sort the rows of every column."""
        if ctx.agent_id is not None or values is None:
            return
        for i, by_stat in distances.by_sample(values, table.quantiles, table.std):
            for stat, value in by_stat.items():
                yield Value(what, value, feat_name=table.names[i], stat=stat)

    def detail(self, acc: dict[str, Any], ctx: Context) -> dict[str, Any] | None:
        """Return the rollup's rows by the reference's bins, and `of` which reference they are; None without one."""
        if ctx.agent_id is not None or ctx.reference is None or acc["of"] != bins_for(ctx).digest:
            return None
        return {part: acc[part] for part in ("of", "predicted", "score", "numeric", "codes")}

    def compare(self, by_agent: Mapping[str, dict[str, Any]], ctx: Context) -> Iterable[Point]:
        """Compare each agent with its siblings."""
        reference = bins_for(ctx)
        comparable = {agent: acc for agent, acc in by_agent.items() if acc["of"] == reference.digest}
        yield from replicas.compare_agents(comparable, reference, _min_rows(ctx), THRESHOLD)


def _distances(what: str, reference: Array, counts: Array, stats: tuple[str, ...], name: str = "") -> Iterator[Value]:
    """Yield psi, and the other distances that need only counts, of one column."""
    values = {"psi": float(distances.psi(reference, counts)[0])}
    if "js" in stats:
        values["js"] = float(distances.js(reference, counts)[0])
    if "chi2" in stats:
        values["chi2"] = float(distances.chi2(reference, counts)[0][0])
        values["cramers_v"] = float(distances.cramers_v(reference, counts)[0])
        values["linf"] = float(distances.linf(reference, counts)[0])
    for stat, value in values.items():
        if np.isfinite(value):
            yield Value(what, value, feat_name=name, stat=stat)


def _over(ctx: Context, reference: Array, counts: Array, tests: int, names: tuple[str, ...] = ()) -> Array:
    """Return which columns' psi is over its threshold."""
    beyond = distances.chance(reference, counts, tests)
    threshold = ctx.options.get("threshold", THRESHOLD)
    learned = ctx.reference.own if ctx.reference is not None else None
    limit = np.full(counts.shape[1], THRESHOLD if threshold == "learned" else float(threshold)) + beyond
    if threshold == "learned" and learned is not None:
        for i, name in enumerate(names):
            if name in learned.mean:
                limit[i] = max(learned.mean[name] + 3 * learned.std[name], beyond[i])
    over: Array = distances.psi(reference, counts) > limit
    return over


def _scores(ctx: Context) -> Array | None:
    score = None if ctx.sample is None else score_of(ctx.sample)
    return None if score is None else score[1][:, np.newaxis]


def _min_rows(ctx: Context) -> int:
    return int(ctx.options.get("min_rows", MIN_ROWS))


@hookimpl
def register_metrics(register: Callable[[Metric[Any]], None], options: Mapping[str, Any]) -> None:
    register(Drift())
