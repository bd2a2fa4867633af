"""Drift: statistics equal SciPy's on the same counts, known shifts fire, the reference's own rows do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from scipy.spatial.distance import jensenshannon
from scipy.stats.contingency import association
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from zmon_plugins import distances

import zmon
from tests.support.metrics import METRICS
from zmon.batch import Batch, concat
from zmon.contract import Context, Point, RowCounts, Window
from zmon.reference import Profile, Reader, bins
from zmon.testing import check_metric

DRIFT = METRICS["drift"]
Values = dict[tuple[str, str, str], float]


def context(profile: Profile | None, batch: Batch, agent: str | None = None, **options: Any) -> Context:
    return Context("m", "", agent, batch.schema, Window(0, 60), options=options, reference=profile,
                   rows=RowCounts(batch.rows), sample=batch)  # fmt: skip


def computed(profile: Profile, batch: Batch, agent: str | None = None, **options: Any) -> Values:
    ctx = context(profile, batch, agent, **options)
    acc = DRIFT.update(DRIFT.create(ctx), batch, ctx)
    return {(v.what, v.feat_name, v.stat): v.value for v in DRIFT.result(acc, ctx)}


def as_batch(frame: pandas.DataFrame, p: np.ndarray | None = None, labels: np.ndarray | None = None) -> Batch:
    reader = Reader(classes=["a", "b", "c"])
    p = np.full((len(frame), 3), 1 / 3) if p is None else p
    found = reader.batches(p, frame, labels)
    return concat(found[-1].schema, [each.aligned(found[-1].schema) for each in found])


def world(n: int, seed: int) -> pandas.DataFrame:
    random = np.random.default_rng(seed)
    return pandas.DataFrame(
        {
            "normal": random.normal(0, 1, n),
            "skewed": random.lognormal(0, 1, n),
            "holes": np.where(random.random(n) < 0.05, np.nan, random.normal(5, 2, n)),
            "zeros": np.where(random.random(n) < 0.8, 0.0, random.random(n)),
            "flag": random.random(n) < 0.3,
            "city": random.choice(["Rome", "Oslo", "Bonn", None], n, p=[0.6, 0.25, 0.1, 0.05]),
        }
    )


def probabilities(n: int, seed: int, weights: tuple[float, ...] = (1, 2, 3)) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(weights, n)


@pytest.fixture(scope="module")
def reference() -> Profile:
    labels = np.random.default_rng(9).integers(0, 3, 10_000)
    return zmon.profile(probabilities(10_000, 1), world(10_000, 0), labels, classes=["a", "b", "c"])


# --- oracles --------------------------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(st.integers(2, 12), st.integers(0, 2**32))
def test_statistics_of_counts_are_those_of_scipy(k: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    ref, now = random.integers(0, 50, k), random.integers(0, 50, k)
    ref[random.integers(k)] += 3
    now[random.integers(k)] += 3
    p, q = ref / ref.sum(), now / now.sum()
    column, counts = ref[:, np.newaxis], now[:, np.newaxis]
    assert distances.js(column, counts)[0] == pytest.approx(jensenshannon(p, q, base=2), abs=1e-7)
    assert distances.linf(column, counts)[0] == pytest.approx(np.abs(p - q).max())
    smooth = [(each + 0.5) / (each.sum() + 0.5 * k) for each in (ref, now)]
    both_ways = scipy_stats.entropy(*smooth) + scipy_stats.entropy(*smooth[::-1])
    assert distances.psi(column, counts)[0] == pytest.approx(both_ways)
    table = np.array([ref, now])[:, (ref + now) > 0]
    if table.shape[1] < 2:
        return
    expected = scipy_stats.chi2_contingency(table, correction=False)
    assert distances.chi2(column, counts)[0][0] == pytest.approx(expected.statistic)
    n, (r, c) = table.sum(), table.shape
    assert np.sqrt(expected.statistic / n / min(r - 1, c - 1)) == pytest.approx(association(table, method="cramer"))
    phi2 = max(0.0, expected.statistic / n - (c - 1) * (r - 1) / (n - 1))
    corrected = np.sqrt(phi2 / min(c - (c - 1) ** 2 / (n - 1) - 1, r - (r - 1) ** 2 / (n - 1) - 1))
    assert distances.cramers_v(column, counts)[0] == pytest.approx(min(1.0, corrected))


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 400))
def test_statistics_of_samples_are_those_of_scipy(seed: int, n: int) -> None:
    random = np.random.default_rng(seed)
    sample, grid = random.normal(0.3, 1, n).round(2), bins.grid_of(random.normal(0, 1, 5000))
    ((_, found),) = distances.by_sample(sample[:, np.newaxis], grid[:, np.newaxis], np.array([0.5]))
    expected = scipy_stats.ks_2samp(sample, grid, method="asymp")
    assert found["ks"] == pytest.approx(expected.statistic)
    assert found["ks_p"] == pytest.approx(expected.pvalue, abs=1e-9)
    assert found["wasserstein"] == pytest.approx(scipy_stats.wasserstein_distance(sample, grid) / 0.5)


def test_the_metric_gives_the_statistics_of_its_counts(reference: Profile) -> None:
    frame, p = world(800, 5), probabilities(800, 6, (3, 2, 1))
    labels = np.random.default_rng(1).integers(-1, 2, 800)
    found = computed(reference, as_batch(frame, p, np.where(labels < 0, np.nan, labels)))
    for name in reference.numeric.names:
        i = reference.numeric.place[name]
        edges = reference.numeric.edges[np.isfinite(reference.numeric.edges[:, i]), i]
        column = frame[name].to_numpy()
        known = column[~np.isnan(column)]
        now = np.append(np.bincount(np.searchsorted(edges, known), minlength=len(edges) + 1), np.isnan(column).sum())
        own = reference.numeric.bins[:, i]
        own = own[own >= 0]
        assert found["feature_drift", name, "js"] == pytest.approx(jensenshannon(own / own.sum(), now / 800, base=2))
        smooth = [(each + 0.5) / (each.sum() + 0.5 * len(own)) for each in (own, now)]
        expected = scipy_stats.entropy(*smooth) + scipy_stats.entropy(*smooth[::-1])
        assert found["feature_drift", name, "psi"] == pytest.approx(expected)
        grid = reference.numeric.quantiles[:, i]
        d = scipy_stats.ks_2samp(known, grid, method="asymp").statistic
        assert found["feature_drift", name, "ks"] == pytest.approx(d)
        w = scipy_stats.wasserstein_distance(known, grid) / reference.numeric.std[i]
        assert found["feature_drift", name, "wasserstein"] == pytest.approx(w)
    ours = np.array(
        [(frame["city"] == name).sum() for name in ("Rome", "Oslo", "Bonn")] + [0, frame["city"].isna().sum()]
    )
    city = reference.categorical[1]
    theirs = np.append(city.counts, [0, city.missing])
    table = np.array([theirs, ours])[:, [0, 1, 2, 4]]
    chi2 = scipy_stats.chi2_contingency(table, correction=False).statistic
    assert found["feature_drift", "city", "chi2"] == pytest.approx(chi2)
    classes = np.bincount(p.argmax(1), minlength=3)
    assert reference.predicted is not None and reference.labels is not None
    expected = jensenshannon(reference.predicted, classes, base=2)
    assert found["prediction_drift", "", "js"] == pytest.approx(expected)
    counts = np.bincount(labels[labels >= 0], minlength=3)
    assert found["label_drift", "", "js"] == pytest.approx(jensenshannon(reference.labels, counts, base=2))


def test_the_laws_hold_with_a_reference(reference: Profile) -> None:
    whole = as_batch(world(400, 2), probabilities(400, 2), np.random.default_rng(0).integers(0, 3, 400))
    parts = [whole.take(slice(a, b)) for a, b in ((0, 150), (150, 151), (151, 400))]
    check_metric(DRIFT, parts, context(reference, whole))


# --- what fires -----------------------------------------------------------------------------------------------------

COUNTED = ("psi", "js", "cramers_v", "linf")
SHIFTS: dict[str, tuple[str, Callable[[pandas.DataFrame], Any], tuple[str, ...]]] = {
    "mean": ("normal", lambda f: f["normal"] + 0.7, ("psi", "js", "ks", "wasserstein")),
    "scale": ("normal", lambda f: f["normal"] * 2.2, ("psi", "js", "ks", "wasserstein")),
    "category swap": ("city", lambda f: f["city"].replace({"Rome": "Oslo", "Oslo": "Rome"}), COUNTED),
    "missing burst": ("holes", lambda f: f["holes"].where(np.arange(len(f)) % 3 > 0), ("psi", "js")),
    "flag turned": ("flag", lambda f: ~f["flag"], COUNTED),
}  # fmt: skip
QUIET = {"psi": 0.1, "js": 0.15, "ks": 0.1, "wasserstein": 0.15, "cramers_v": 0.05, "linf": 0.1}


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("rows", [300, 2000])
def test_known_shifts_fire_in_their_column_only(shift: str, rows: int, reference: Profile) -> None:
    name, change, felt = SHIFTS[shift]
    frame = world(rows, 77)
    before = computed(reference, as_batch(frame, probabilities(rows, 3)))
    frame[name] = change(frame)
    after = computed(reference, as_batch(frame, probabilities(rows, 3)))
    for stat in felt:
        assert before["feature_drift", name, stat] < QUIET[stat] < after["feature_drift", name, stat], stat
    drifted = {k[1] for k, v in after.items() if k[0] == "feature_drifted" and v}
    assert drifted == {name}
    assert after["drifted_feature_freq", "", ""] == pytest.approx(1 / 6)
    assert before["drifted_feature_freq", "", ""] == 0
    assert before["prediction_drifted", "", ""] == after["prediction_drifted", "", ""] == 0


def test_inverted_pixels_fire_and_so_do_the_predictions() -> None:
    digits = load_digits()
    model = RandomForestClassifier(n_estimators=20, random_state=0).fit(digits.data[::2], digits.target[::2])
    images, labels = digits.data[1::2], digits.target[1::2]
    features = [f"pixel_{i}" for i in range(64)]
    profile = zmon.profile(model.predict_proba(images), images, labels, classes=10, features=features)
    random = np.random.default_rng(2)
    found = {}
    for inverted in (False, True):
        rows = random.integers(0, len(images), 400)
        taken = 16 - images[rows] if inverted else images[rows]
        reader = Reader(classes=10, features=features)
        (batch,) = reader.batches(model.predict_proba(taken), taken, labels[rows])
        found[inverted] = computed(profile, batch)
    assert found[False]["drifted_feature_freq", "", ""] == 0 == found[False]["prediction_drifted", "", ""]
    assert found[True]["drifted_feature_freq", "", ""] > 0.8
    assert found[True]["prediction_drifted", "", ""] == 1
    assert found[True]["prediction_drift", "max_prediction_proba", "psi"] > 1
    assert found[True]["label_drifted", "", ""] == 0


def test_new_categories_and_values_out_of_range_are_shares_of_the_rows(reference: Profile) -> None:
    frame = world(400, 3)
    frame.loc[:39, "city"] = "Lima"
    frame.loc[:19, "normal"] = 50.0
    frame.loc[20:29, "normal"] = -np.inf
    found = computed(reference, as_batch(frame))
    assert found["feature_new_category_freq", "city", ""] == 0.1
    assert found["feature_out_of_range_freq", "normal", ""] == pytest.approx(30 / 400)
    assert found["feature_new_category_freq", "flag", ""] == 0


def test_values_that_are_hashed_here_or_in_the_reference_have_no_drift(reference: Profile) -> None:
    batch = as_batch(world(400, 3))
    hashed = Batch(replace(batch.schema, hashed=("city",)), batch.raw(), batch.rows, batch.dictionaries)
    ids = [f"customer {i}" for i in range(400)]
    unnamed = zmon.profile(probabilities(400, 1), world(400, 0).assign(city=ids), classes=["a", "b", "c"])
    assert ("feature_drift", "city", "psi") in computed(reference, batch)
    for profile, rows in ((reference, hashed), (unnamed, batch)):
        found = computed(profile, rows)
        assert not [key for key in found if key[1] == "city"]
        assert ("feature_drift", "flag", "psi") in found
    assert "customer 1" not in str(unnamed.categorical)


def test_small_windows_have_distances_and_no_verdict(reference: Profile) -> None:
    frame = world(99, 3)
    frame["normal"] += 5
    found = computed(reference, as_batch(frame, probabilities(99, 0, (9, 1, 1))))
    assert found["feature_drift", "normal", "psi"] > 1
    assert not {what for what, _, _ in found} & {"feature_drifted", "drifted_feature_freq", "prediction_drifted"}
    assert computed(reference, as_batch(frame), min_rows=50)["feature_drifted", "normal", ""] == 1


def test_counts_made_against_another_reference_are_not_mixed(reference: Profile) -> None:
    other = zmon.profile(probabilities(500, 1), world(500, 8), classes=["a", "b", "c"])
    batch = as_batch(world(200, 1))
    accs = []
    for profile, rows in ((reference, 50), (other, 150)):
        ctx = context(profile, batch.take(slice(0, rows)))
        accs.append(DRIFT.update(DRIFT.create(ctx), batch.take(slice(0, rows)), ctx))
    merged = DRIFT.merge(*accs)
    assert merged["of"] == other.digest and merged["numeric"][:, 0].sum() == 150
    assert list(DRIFT.result(merged, context(reference, batch))) == []


def test_a_column_in_another_order_or_beside_new_ones_is_found_by_name(reference: Profile) -> None:
    frame = world(300, 4)
    shuffled = frame[["city", "holes", "flag", "zeros", "normal", "skewed"]].assign(new=1.0)
    one, two = computed(reference, as_batch(frame)), computed(reference, as_batch(shuffled))
    assert one == pytest.approx(two)


# --- false alarms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [0.1, "learned"])
def test_windows_of_the_references_own_distribution_raise_no_verdict(threshold: Any, capsys: Any) -> None:
    """1,000 windows of 500 rows × 20 features: the share with any verdict on any feature, or on the predictions."""
    kinds = 5

    def rows(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(seed)
        whole = random.integers(0, 4, (n, kinds))
        columns = [random.normal(size=(n, kinds)), random.lognormal(0, 1, (n, kinds)), whole,
                   np.where(random.random((n, kinds)) < 0.9, 0.0, random.random((n, kinds)))]  # fmt: skip
        return random.dirichlet((1, 2, 3), n), np.concatenate(columns, axis=1)

    profile = zmon.profile(*rows(10_000, 1), classes=["a", "b", "c"], window_rows=500)
    reader = Reader(classes=["a", "b", "c"])
    alarms = features = 0
    for window in range(1000):
        (batch,) = reader.batches(*rows(500, 1000 + window))
        ctx = replace(context(profile, batch, "agent", threshold=threshold), sample=None)
        acc = DRIFT.update(DRIFT.create(ctx), batch, ctx)
        verdicts = [v for v in DRIFT.result(acc, ctx) if v.what in ("feature_drifted", "prediction_drifted")]
        assert len(verdicts) == 21
        alarms += any(v.value for v in verdicts)
        features += sum(v.value for v in verdicts)
    with capsys.disabled():
        print(f"\nthreshold {threshold}: {alarms} of 1,000 windows have a verdict ({features} of 21,000 columns)")
    assert alarms < 10


@pytest.mark.parametrize("n", [100, 200])
def test_small_windows_and_skewed_categories_raise_no_verdict_either(n: int, reference: Profile) -> None:
    alarms = 0
    for window in range(300):
        found = computed(reference, as_batch(world(n, 5000 + window), probabilities(n, 5000 + window)), "agent")
        alarms += bool(found["drifted_feature_freq", "", ""] or found["prediction_drifted", "", ""])
    assert alarms <= 2


# --- replicas -------------------------------------------------------------------------------------------------------


def replicas(
    broken: int | set[int] | None, profile: Profile | None, rows: int = 300, seed: int = 0, agents: int = 5
) -> list[Point]:
    accs, ctx = {}, None
    for agent in range(agents):
        frame, p = world(rows, seed * 100 + agent), probabilities(rows, seed * 100 + agent)
        if agent in (broken if isinstance(broken, set) else {broken}):  # a preprocessing step that scales twice
            frame["normal"] *= 3
            p = p[:, [2, 0, 1]]
        batch = as_batch(frame, p)
        ctx = replace(context(profile, batch), schema=batch.schema)
        accs[f"pod-{agent}"] = DRIFT.update(DRIFT.create(ctx), batch, ctx)
    assert ctx is not None
    return list(DRIFT.compare(accs, ctx))  # type: ignore[attr-defined]


def named(points: list[Point]) -> set[str | None]:
    return {agent for agent, value in points if value.what == "replica_stands_out" and value.value}


@pytest.mark.parametrize("with_reference", [True, False])
def test_the_broken_replica_is_named_and_no_sound_one(with_reference: bool, reference: Profile) -> None:
    profile = reference if with_reference else None
    for seed in range(10):
        for broken in (None, seed % 5):
            expected = set() if broken is None else {f"pod-{broken}"}
            assert named(replicas(broken, profile, seed=seed)) == expected


def test_two_broken_replicas_are_both_named_and_half_of_them_are_not(reference: Profile) -> None:
    assert named(replicas({1, 4}, reference, agents=7)) == {"pod-1", "pod-4"}
    assert named(replicas({0, 1}, reference, agents=4)) == set(), "there is no majority to differ from"


def test_five_sound_replicas_are_never_named(reference: Profile) -> None:
    assert sum(bool(named(replicas(None, reference, seed=seed))) for seed in range(200)) == 0


def test_of_two_replicas_neither_is_the_odd_one(reference: Profile) -> None:
    points = replicas(1, reference, agents=2)
    assert {v.what for _, v in points} == {"replica_drift"}
    psi = {a: v.value for a, v in points if v.feat_name == "normal"}
    assert psi["pod-0"] > 0.3 and psi["pod-1"] > 0.3


def test_leave_one_out_is_against_all_others_together(reference: Profile) -> None:
    points = replicas(None, reference, seed=3)
    own = [np.bincount(probabilities(300, 300 + i).argmax(1), minlength=3) for i in range(5)]
    for i in range(5):
        others = sum(own) - own[i]
        p, q = ((each + 0.5) / (each.sum() + 1.5) for each in (others, own[i]))
        expected = float(((p - q) * np.log(p / q)).sum())
        (found,) = [v.value for a, v in points if (a, v.what, v.feat_name) == (f"pod-{i}", "replica_drift", "")]
        assert found == pytest.approx(expected)
