"""Reasons that publishers make up are bounded: by name as long as there is room, then together, and every row once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from zmon_collector.ingest.reason_names import IN_ALL, OF_MODEL, ReasonNames
from zmon_collector.ingest.stream_position import StreamPosition
from zmon_collector.telemetry import LABELS, Telemetry

from tests.support.unstarted import Table
from zmon._wire.tally import FOLDED, KNOWN, REASONS, check_tally
from zmon.errors import WireError

MODEL = ("m", "")
DOCS = Path(__file__).parents[3] / "docs"
Lay = Callable[[], Table]


# --- places ----------------------------------------------------------------------------------------------------------


def test_a_model_has_places_for_so_many_reasons_of_its_own() -> None:
    names = ReasonNames()
    found = [names.place(MODEL, f"own_{i}") for i in range(2 * OF_MODEL)]
    assert found == [f"own_{i}" for i in range(OF_MODEL)] + [None] * OF_MODEL
    assert names.place(MODEL, "own_0") == "own_0", "a reason keeps its place"
    assert names.place(("other", ""), "own_99") == "own_99"


def test_all_models_together_have_places_for_so_many_reasons() -> None:
    names = ReasonNames()
    models = [(f"m{i}", "") for i in range(2 * IN_ALL // OF_MODEL)]
    found = [names.place(model, f"own_{i}") for model in models for i in range(OF_MODEL)]
    assert sum(name is not None for name in found) == IN_ALL
    names.forget(models[0])
    assert [names.place(models[-1], f"new_{i}") for i in range(OF_MODEL)].count(None) == 0


def test_the_reasons_of_this_release_always_have_a_place() -> None:
    names = ReasonNames()
    for i in range(2 * OF_MODEL):
        names.place(MODEL, f"own_{i}")
    assert {names.place(MODEL, reason) for reason in KNOWN} == KNOWN


def test_the_documented_reasons_are_known() -> None:
    """Reasons of rows: the tables of docs/publisher.md, and the list of docs/collector.md."""
    tables = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", (DOCS / "publisher.md").read_text(), re.MULTILINE)
    listed = (DOCS / "collector.md").read_text().partition("\n## Reasons\n")[2].partition("Of messages")[0]
    found = {reason for cell in (*tables, listed) for reason in re.findall(r"`([a-z]+(?:_[a-z]+)*)`", cell)}
    assert {"probabilities_nan", "schema_conflict", "timestamp_span"} <= found
    assert found - KNOWN <= {"rows_rejected", "late_label_count", "buffer_full", "closed"}


def test_counters_keep_room_for_the_reasons_of_this_release() -> None:
    telemetry = Telemetry()
    for i in range(2 * LABELS):
        telemetry.count("rejected", f"own_{i}")
    for reason in KNOWN:
        telemetry.count("rejected", reason)
    assert telemetry.get("rejected") == 2 * LABELS + len(KNOWN)
    assert all(telemetry.get("rejected", reason) for reason in KNOWN)
    assert len(telemetry.snapshot()) <= LABELS


# --- the tallies of streams ------------------------------------------------------------------------------------------


@st.composite
def histories(draw: st.DrawFn) -> list[dict[str, int]]:
    """Cumulative counts of a stream, as it sends them one after the other."""
    counts: Counter[str] = Counter()
    found = []
    for _ in range(draw(st.integers(1, 8))):
        counts.update(draw(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 5), max_size=4)))
        found.append(dict(counts))
    return found


@given(histories(), st.data())
def test_every_row_is_counted_once_whatever_has_room(history: list[dict[str, int]], data: st.DataObject) -> None:
    """Over late tallies, restarts, and places that come and go: the counts by reason only grow, and add up."""
    position, counted = StreamPosition(0), Counter[str]()
    for number in range(len(history)):
        room = data.draw(st.sets(st.sampled_from("abcdefgh")))
        most = data.draw(st.integers(1, 8))
        for tally in (history[number], data.draw(st.sampled_from(history[: number + 1]))):
            places = dict(zip(room, room, strict=True))
            for _, reason, rows in position.update_tally({"rejected": tally}, places.get, most):
                counted[reason] += rows
        assert counted.total() == sum(history[number].values())
        assert len(position.tally.get("rejected", {}).keys() - {FOLDED}) <= most
        if data.draw(st.booleans()):
            kept, position = position, StreamPosition(0)
            position.tally = check_tally(dict(kept.tally))
    for reason in counted.keys() - {"other"}:
        assert counted[reason] <= history[-1][reason]


def test_a_stream_that_was_never_full_has_all_reasons_by_name() -> None:
    position = StreamPosition(0)
    tally = {"rejected": {f"own_{i}": i + 1 for i in range(REASONS)}}
    assert len(position.update_tally(tally)) == REASONS
    assert position.tally == tally


def test_what_is_no_word_is_counted_as_other() -> None:
    tally = check_tally({"rejected": {"a b": 2, "x" * 900: 3, "\x1b[2J": 4, "fine": 5, "other": 6}})
    assert tally == {"rejected": {"other": 15, "fine": 5}}
    with pytest.raises(WireError):
        check_tally({"rejected": {"": 1}})


# --- the collector ---------------------------------------------------------------------------------------------------


def own(count: int, rows: int = 1) -> dict[str, int]:
    return {f"own_{i}": rows for i in range(count)}


def test_a_model_counts_further_reasons_as_other(lay: Lay) -> None:
    table = lay()
    table.greeting("ping", rejected={"label_missing": 7, **own(REASONS - 1)}, details={"own_0": "x", "own_60": "y"})
    assert table.tally().rejected == {"label_missing": 7, **own(OF_MODEL), "other": REASONS - 1 - OF_MODEL}
    assert {detail.reason for detail in table.ingestor.details_of(MODEL)} == {"own_0", "other"}


def test_counts_go_on_after_a_restart_under_the_same_reasons(lay: Lay) -> None:
    first, second = lay(), lay()
    first.greeting("hello", rejected=own(2 * OF_MODEL))
    first.end_turn()
    second.recovery(first.disk).restore(second.now)
    second.greeting("hello", rejected=own(2 * OF_MODEL, rows=3))
    assert second.tally().rejected == {**own(OF_MODEL, rows=3), "other": 3 * OF_MODEL}


def test_batches_carry_the_same_tally_as_greetings(lay: Lay) -> None:
    table = lay()
    table.greeting("hello", rejected=own(2 * OF_MODEL))
    table.batch(1, 3, tally={"rejected": own(2 * OF_MODEL, rows=2)})
    assert table.tally().rejected == {**own(OF_MODEL, rows=2), "other": 2 * OF_MODEL}


def test_one_model_leaves_others_their_places(lay: Lay) -> None:
    table = lay()
    for i in range(30):
        table.greeting("ping", agent=f"agent {i}", rejected={f"own_{i}_{j}": 1 for j in range(REASONS)})
    table.greeting("ping", agent="good", rejected={"label_missing": 1, "probabilities_nan": 2})
    assert table.tally("good").rejected == {"label_missing": 1, "probabilities_nan": 2}


def test_a_stream_of_another_collector_brings_no_names_without_a_place(lay: Lay) -> None:
    table = lay()
    table.greeting("hello", counted={"rejected": own(REASONS)}, rejected=own(REASONS), store=b"elsewhere")
    assert not table.ingestor.models, "it is counted there"
    (session,) = table.ingestor.sessions
    assert session.position.tally["rejected"] == {FOLDED: REASONS}


def test_a_tally_of_0_1_0_whose_reasons_are_no_words_is_counted_once(lay: Lay) -> None:
    first, second = lay(), lay()
    first.greeting("hello", rejected={"x": 1})
    first.end_turn()
    first.disk.execute("UPDATE streams SET tally = ?, crc = NULL", (msgpack.packb({"rejected": {"a b": 5, "x": 1}}),))
    second.recovery(first.disk).restore(second.now)
    second.greeting("ping", rejected={"a b": 6, "x": 1})
    assert second.tally().rejected["other"] == 1
