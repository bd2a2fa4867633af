"""Reference profiles: counts equal NumPy's, merging equals one pass, the file keeps everything and refuses the rest."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

import zmon
from zmon._packed import check_packed
from zmon.batch import Batch, Schema
from zmon.errors import ConfigurationError
from zmon.reference import Counting, Knots, Profile, Reader, Sketch, bins, calibration, codec, from_batches, text
from zmon.state import pack_state, unpack_state


def rows(n: int, seed: int = 0) -> tuple[np.ndarray, pandas.DataFrame, np.ndarray]:
    random = np.random.default_rng(seed)
    frame = pandas.DataFrame(
        {
            "normal": np.where(random.random(n) < 0.05, np.nan, random.normal(10, 3, n)),
            "mostly_zero": np.where(random.random(n) < 0.7, 0.0, random.exponential(1.0, n)),
            "ones": (random.random(n) < 0.95).astype(float),
            "constant": np.full(n, 0.1),
            "gone": np.full(n, np.nan),
            "wild": np.where(random.random(n) < 0.01, np.inf, random.normal(0, 1e6, n)),
            "city": random.choice(["Rome", "Oslo", "Bonn", None], n, p=[0.5, 0.3, 0.1, 0.1]),
            "vip": random.random(n) < 0.2,
        }
    )
    p = random.dirichlet((1, 2, 3), n)
    labels = np.array([random.choice(3, p=each) for each in p])
    return p, frame, labels


def made(n: int = 5000, seed: int = 0) -> Profile:
    p, frame, labels = rows(n, seed)
    return zmon.profile(p, frame, labels, classes=["a", "b", "c"])


def test_counts_are_those_of_numpy() -> None:
    p, frame, labels = rows(5000)
    profile = zmon.profile(p, frame, labels, classes=["a", "b", "c"])
    assert profile.numeric.names == ("normal", "mostly_zero", "ones", "constant", "gone", "wild")
    for i, name in enumerate(profile.numeric.names):
        column = frame[name].to_numpy()
        inner = profile.numeric.edges[:, i]
        inner = inner[np.isfinite(inner)]
        present = column[~np.isnan(column)]
        expected = [
            ((present > a) & (present <= b)).sum() for a, b in zip([-np.inf, *inner], [*inner, np.inf], strict=True)
        ]
        expected[0] += (present == -np.inf).sum()
        own = profile.numeric.bins[:, i]
        assert own[own >= 0].tolist() == [*expected, np.isnan(column).sum()]
        finite = present[np.isfinite(present)]
        if len(finite):
            assert profile.numeric.mean[i] == pytest.approx(finite.mean(), rel=1e-9)
            assert profile.numeric.std[i] == pytest.approx(finite.std(), rel=1e-9, abs=1e-12)
            grid = np.quantile(finite, (np.arange(256) + 0.5) / 256)
            assert np.allclose(profile.numeric.quantiles[:, i], grid)
    city, vip = profile.categorical
    counts = frame["city"].value_counts()
    assert city.categories == tuple(counts.index) and city.counts.tolist() == counts.tolist()
    assert (city.missing, city.other) == (frame["city"].isna().sum(), 0)
    assert dict(zip(vip.categories, vip.counts.tolist(), strict=True)) == {
        "False": (~frame["vip"]).sum(), "True": frame["vip"].sum()
    }  # fmt: skip
    assert profile.predicted is not None and profile.labels is not None
    assert profile.predicted.tolist() == np.bincount(p.argmax(1), minlength=3).tolist()
    assert profile.labels.tolist() == np.bincount(labels, minlength=3).tolist()
    assert profile.score is not None and profile.score.counts.sum() == 5000


def test_a_constant_and_a_column_of_ones_differ_from_values_below() -> None:
    profile = made()
    for name, below in (("constant", 0.05), ("ones", 0.0)):
        i = profile.numeric.place[name]
        edges = profile.numeric.edges[:, [i]]
        counts = bins.count(np.full((500, 1), below), edges)
        assert bins.psi(profile.numeric.bins[:, [i]], counts)[0] > 1


def test_the_same_numbers_in_float32_share_their_bins() -> None:
    _, frame, _ = rows(5000)
    profile = made()
    narrow = frame[list(profile.numeric.names)].to_numpy(dtype=np.float32)
    assert (bins.count(narrow, profile.numeric.edges) == profile.numeric.counts).mean() > 0.97
    i = profile.numeric.place["constant"]
    assert (bins.count(narrow, profile.numeric.edges)[:, i] == profile.numeric.counts[:, i]).all()


def test_rows_that_travel_in_several_pieces_are_all_counted() -> None:
    random = np.random.default_rng(0)
    inputs, p = random.normal(size=(3000, 400)), random.dirichlet((1, 1, 1), 3000)  # more than one message may hold
    profile = zmon.profile(p, inputs, classes=3)
    assert profile.predicted is not None
    assert profile.predicted.tolist() == np.bincount(p.argmax(axis=1), minlength=3).tolist()
    assert (profile.numeric.counts.sum(axis=0) == 3000).all()


def test_parts_merge_to_the_whole() -> None:
    p, frame, labels = rows(4000)
    reader = Reader(classes=["a", "b", "c"])
    parts = [b for s in range(0, 4000, 500)
             for b in reader.batches(p[s:s + 500], frame[s:s + 500], labels[s:s + 500])]  # fmt: skip
    whole = from_batches(lambda: parts, window_rows=500)
    sketches = [Sketch(parts[0].schema, seed) for seed in (1, 2)]
    for i, part in enumerate(parts):
        sketches[i % 2].add(part)
    sketches[0].merge(sketches[1])
    countings = [Counting(sketches[0], 500) for _ in range(2)]
    for i, part in enumerate(parts):
        countings[i % 2].add(part)
    countings[0].merge(countings[1])
    merged = countings[0].profile()
    assert merged.rows == whole.rows == 4000
    assert np.array_equal(merged.numeric.counts, whole.numeric.counts)
    assert np.allclose(merged.numeric.mean, whole.numeric.mean, equal_nan=True)
    assert [c.counts.tolist() for c in merged.categorical] == [c.counts.tolist() for c in whole.categorical]
    assert merged.own is not None and whole.own is not None
    assert merged.own.mean == pytest.approx(whole.own.mean) and merged.own.windows == whole.own.windows == 8


def test_more_rows_than_the_sample_keep_exact_counts_and_say_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zmon.reference.sketch.SAMPLE_ROWS", 2000)
    random = np.random.default_rng(3)
    schema = Schema(classes=("a", "b"), features=("x",), kinds=("numeric",))
    parts = [Batch(schema, {"inputs": np.sort(random.normal(size=(5000, 1)), axis=0) + i}) for i in range(6)]
    profile = from_batches(lambda: parts)
    whole = np.concatenate([part.inputs for part in parts])[:, 0]
    assert profile.rows == profile.numeric.counts.sum() == 30_000
    assert 0 < profile.error < 0.012
    ranks = np.searchsorted(np.sort(whole), profile.numeric.quantiles[:, 0]) / 30_000
    assert np.abs(ranks - bins.POSITIONS).max() < 5 * profile.error
    assert f"{profile.error:.2%}" in text(profile)


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.integers(2, 200))
def test_isotonic_is_that_of_scikit_learn(seed: int, n: int) -> None:
    random = np.random.default_rng(seed)
    x, y, weight = np.sort(random.random(n)), random.random(n), random.integers(1, 9, n).astype(float)
    knots = calibration.isotonic(x, y, weight)
    expected = IsotonicRegression(out_of_bounds="clip").fit(x, y, sample_weight=weight)
    assert np.allclose(knots.y, expected.predict(x))
    at = random.random(50)
    assert np.allclose(knots.of(at), expected.predict(at))


def test_calibration_is_kept_only_where_it_helps() -> None:
    random = np.random.default_rng(5)
    truth = random.random(20_000)
    labels = (random.random(20_000) < truth).astype(int)
    sound = zmon.profile(truth, None, labels, classes=2)
    assert sound.calibration == (None, None), "there is nothing to mend"
    sure = np.clip(truth * 1.6 - 0.3, 0, 1)  # overconfident
    off = zmon.profile(sure, None, labels, classes=2)
    assert off.calibration is not None and off.calibration[1] is not None
    assert abs(float(off.calibration[1].of(np.array([0.9]))[0]) - 0.75) < 0.05
    assert zmon.profile(truth[:100], None, labels[:100], classes=2).calibration is None, "too few labels"


def test_the_file_keeps_everything_and_no_row(tmp_path) -> None:  # type: ignore[no-untyped-def]
    profile = made()
    path = tmp_path / "a.zmon"
    profile.save(path)
    again = Profile.load(path)
    assert again.to_bytes() == profile.to_bytes() and again.digest == profile.digest
    assert text(again) == text(profile)
    assert path.stat().st_size < 100_000
    for word in ("Rome", "mostly_zero", "isotonic", "own windows", "5,000 rows"):
        assert word in text(again) or word == "isotonic"


def test_a_profile_that_version_1_wrote_is_read() -> None:
    golden = Profile.load(Path(__file__).parent / "golden_v1.zmon")
    assert (golden.rows, golden.schema.classes, golden.categorical[0].name) == (600, ("a", "b", "c"), "city")
    assert golden.numeric.counts.sum() == 6 * 600
    assert golden.own is None, "600 rows are less than two windows"


def test_a_newer_version_is_refused() -> None:
    data = unpack_state(made(300).to_bytes())
    data["version"] = codec.VERSION + 1
    with pytest.raises(ConfigurationError, match="newer release"):
        Profile.from_bytes(pack_state(data))


@settings(max_examples=300)
@given(st.data())
def test_damaged_bytes_are_one_error(data: st.DataObject) -> None:
    whole = bytearray(SMALL)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    with contextlib.suppress(ConfigurationError):
        Profile.from_bytes(bytes(whole))


@settings(max_examples=200)
@given(st.data())
def test_fields_of_other_types_are_one_error(data: st.DataObject) -> None:
    found = unpack_state(SMALL)
    values = st.sampled_from(
        [None, -1, 2**70, "x", [], {}, b"", 1.5, [1], np.zeros(3), np.zeros((2, 2), dtype=np.int64)]
    )
    key = data.draw(st.sampled_from(sorted(found)))
    holder = found
    if isinstance(found[key], dict) and data.draw(st.booleans()):
        holder, key = found[key], data.draw(st.sampled_from(sorted(found[key])))
    holder[key] = data.draw(values)
    if isinstance(holder[key], int) and holder[key] == 2**70:
        holder[key] = 2**63
    with contextlib.suppress(ConfigurationError):
        text(Profile.from_bytes(pack_state(found)))


SMALL = made(300).to_bytes()


def test_a_schema_that_does_not_fit_is_reported_column_by_column() -> None:
    profile = made(300)
    schema = profile.schema
    assert profile.conflict(schema) == "" == profile.conflict(Schema(classes=schema.classes))
    more = Schema(classes=schema.classes, features=(*schema.features, "new"), kinds=(*schema.kinds, "numeric"))
    assert profile.conflict(more) == ""
    kinds = tuple("categorical" if f == "normal" else k for f, k in zip(schema.features, schema.kinds, strict=True))
    assert "'normal' is categorical, not numeric" in profile.conflict(
        Schema("classification", schema.classes, schema.features, kinds)
    )
    assert "'vip' is missing" in profile.conflict(
        Schema("classification", schema.classes, schema.features[:-1], kinds[:-1])
    )
    assert "classes" in profile.conflict(Schema(classes=("a", "b")))


def test_knots_are_a_map() -> None:
    assert Knots(np.array([0.0, 1.0]), np.array([0.2, 0.6])).of(np.array([0.5])).tolist() == [0.4]


@pytest.mark.parametrize("inputs_first", [True, False])
def test_batches_without_inputs_keep_their_scores(inputs_first: bool) -> None:
    random = np.random.default_rng(0)
    reader = Reader(classes=["no", "yes"], features=["x"])
    p, x = random.dirichlet((1, 2), 3000), random.normal(size=(2000, 1))
    (whole,), (bare,) = reader.batches(p[:2000], x), reader.batches(p[2000:])
    parts = [whole, bare] if inputs_first else [bare, whole]
    sketch = Sketch(whole.schema)
    for part in parts:
        sketch.add(part)
    profile = from_batches(lambda: parts, sketch=sketch)
    assert profile.rows == 3000
    assert profile.numeric.counts.sum() == 2000
    assert profile.score is not None
    assert profile.score.counts.sum() == 3000
    top = p.max(axis=1)
    assert profile.score.mean[0] == pytest.approx(top.mean())
    assert profile.numeric.mean[0] == pytest.approx(x.mean())
    again = Sketch(whole.schema, seed=1)
    again.merge(sketch)
    assert again.rows == 3000


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\xdd\x00\x50\x00\x00" + b"\x90" * 100, "more than 4,194,304 values"),  # claimed, and room made for them
        (b"\x91" * 17, "more than 16 lists or maps in each other"),
        (b"\xc7\x12\x01" + b"\x91" * 18, "more than 16 lists or maps in each other"),  # in an array's place
        (b"\xdb\x04\x00\x00\x01" + b"x" * 100, "more than 64 MiB of text"),
        (b"\x92\xdf\x00\x30\x00\x00", "more than 4,194,304 values"),  # of keys and values
    ],
)
def test_bytes_that_would_become_many_objects_are_refused_before(data: bytes, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Profile.from_bytes(data, "x.zmon")


@given(st.recursive(st.none() | st.integers(-(2**63), 2**63) | st.floats() | st.text() | st.binary(), lambda inner: (
    st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)), max_leaves=30))  # fmt: skip
def test_values_are_counted_as_they_are(value: object) -> None:
    def size(inner: object) -> int:
        if isinstance(inner, dict):
            return 2 * len(inner) + sum(map(size, inner.values()))
        return len(inner) + sum(map(size, inner)) if isinstance(inner, list) else 0

    data = pack_state([value, np.arange(3)])
    held = size([value]) + 1 + 1 + 3 + 1  # the array, as an extension, its three parts and its shape
    check_packed(data, held)
    with pytest.raises(ValueError, match=r"more than \d+ values"):
        check_packed(data, held - 1)


def test_numbers_that_would_grow_are_refused() -> None:
    content = unpack_state(made(500).to_bytes())
    content["numeric"]["mean"] = content["numeric"]["mean"].astype("f2")
    with pytest.raises(ConfigurationError, match="an array of another type"):
        Profile.from_bytes(pack_state(content))
