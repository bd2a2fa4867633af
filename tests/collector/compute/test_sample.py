"""The row sample: uniform, exact to merge, and the same whatever the order and the split."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from zmon_collector.compute.merge import merge_samples
from zmon_collector.compute.sample import TOP, AgentSamples, Sample, draw, merge, row_keys, stream_seed

from zmon.batch import Batch, Schema

SCHEMA = Schema(classes=("a", "b"), features=("x",), kinds=("numeric",))
SEEDS = np.array([stream_seed(bytes([i] * 16)) for i in range(3)], dtype=np.uint64)


def rows(streams: np.ndarray, numbers: np.ndarray, batches: int = 1) -> tuple[list[Batch], np.ndarray]:
    """Batches whose single input tells the row: stream × 1e6 + number; and the keys of all their rows."""
    x = (streams * 1_000_000 + numbers).astype(np.float64)[:, np.newaxis]
    found = [Batch(SCHEMA, {"inputs": part}) for part in np.array_split(x, batches)]
    return found, row_keys(SEEDS[streams], numbers.astype(np.uint64))


def told(sample: Sample) -> list[float]:
    return sample.batch.inputs[:, 0].tolist()


@settings(max_examples=100)
@given(st.integers(0, 2**32), st.integers(1, 400), st.integers(1, 120), st.integers(1, 7))
def test_order_and_split_change_nothing(seed: int, total: int, size: int, parts: int) -> None:
    random = np.random.default_rng(seed)
    streams, numbers = random.integers(0, 3, total), np.arange(total)
    whole = draw(*rows(streams, numbers), size)
    order = random.permutation(total)
    drawn = [
        draw(*rows(streams[part], numbers[part], random.integers(1, 5)), size) for part in np.array_split(order, parts)
    ]
    while len(drawn) > 1:  # merge in a random tree
        some = random.choice(len(drawn), random.integers(2, len(drawn) + 1), replace=False)
        merged = merge([drawn[i] for i in some], size)
        drawn = [each for i, each in enumerate(drawn) if i not in some] + [merged]
    assert told(drawn[0]) == told(whole)
    assert drawn[0].bound == whole.bound
    assert (whole.bound == TOP) == (total <= size)
    assert len(whole.keys) == min(total, size)


@settings(max_examples=50)
@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 60))
def test_samples_of_two_sizes_merge_to_what_both_know(seed: int, small: int, large: int) -> None:
    random = np.random.default_rng(seed)
    streams, numbers = random.integers(0, 3, 300), np.arange(300)
    left, right = draw(*rows(streams[:150], numbers[:150]), small), draw(*rows(streams[150:], numbers[150:]), large)
    merged = merge([left, right], large)
    keys = rows(streams, numbers)[1]
    assert merged.keys.tolist() == sorted(keys[keys < merged.bound].tolist()) if merged.bound != TOP else True
    assert len(merged.keys) <= large


def test_a_bound_passes_over_what_cannot_be_in() -> None:
    streams, numbers = np.zeros(10_000, dtype=int), np.arange(10_000)
    first = draw(*rows(streams[:5000], numbers[:5000]), 100)
    rest = draw(*rows(streams[5000:], numbers[5000:]), 100, first.bound)
    assert len(rest.keys) < 250
    assert told(merge([first, rest], 100)) == told(draw(*rows(streams, numbers), 100))


def test_it_is_uniform_after_random_splits_and_merges() -> None:
    """χ² of how often each of 2,000 rows is drawn, over 400 sets of streams; and of where in its stream it stood."""
    random = np.random.default_rng(7)
    total, size, rounds = 2000, 200, 400
    drawn = np.zeros(total)
    for _ in range(rounds):
        seed = np.uint64(random.integers(0, 2**63))
        keys = row_keys(seed, np.arange(1, total + 1, dtype=np.uint64))
        batch = Batch(SCHEMA, {"inputs": np.arange(total, dtype=np.float64)[:, np.newaxis]})
        sample: Sample | None = None
        for part in np.array_split(random.permutation(total), random.integers(2, 9)):
            one = draw([batch.take(part)], keys[part], size)
            sample = one if sample is None else merge([sample, one], size)
        assert sample is not None
        drawn[sample.batch.inputs[:, 0].astype(int)] += 1
    assert drawn.sum() == size * rounds
    # Draws without replacement vary by (1 − size/total) less than χ² assumes.
    statistic = chisquare(drawn).statistic / (1 - size / total)
    degrees = total - 1
    assert abs(statistic - degrees) < 4.5 * np.sqrt(2 * degrees), statistic
    assert chisquare(drawn.reshape(20, -1).sum(axis=1)).pvalue > 1e-4


def test_keys_of_a_stream_look_random() -> None:
    keys = row_keys(np.uint64(1), np.arange(100_000, dtype=np.uint64))
    assert len(np.unique(keys)) == len(keys)
    counts = np.bincount((keys >> np.uint64(56)).astype(int), minlength=256)
    assert chisquare(counts).pvalue > 1e-4
    bits = np.unpackbits(keys.view(np.uint8)).reshape(-1, 64).mean(axis=0)
    assert np.abs(bits - 0.5).max() < 0.01


def test_samples_of_many_agents_are_merged_in_slices() -> None:
    """A window of many agents and features has some hundred MB of samples, and other windows wait for the executor."""
    random = np.random.default_rng(1)
    samples, sizes = {}, {}
    for i in range(3):
        drawn = [draw(*rows(np.full(30, i), random.permutation(40)[:30]), 20) for _ in range(2)]
        samples[f"agent {i}"], sizes[f"agent {i}"] = drawn, 10 + i
    whole = merge_samples(samples, sizes, {})
    merged: AgentSamples = {}
    slices = 0
    while None not in merged:
        merge_samples(samples, sizes, merged, lambda: True)
        slices += 1
        assert len(merged) <= slices + 1
    assert slices == 4
    assert merge_samples(samples, sizes, merged) is merged
    for name, kept in whole.items():
        again = merged[name]
        assert kept is not None
        assert again is not None
        assert (told(again), again.bound) == (told(kept), kept.bound)
    assert whole[None] is not None
    assert len(whole[None].keys) <= 10
