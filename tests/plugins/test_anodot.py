"""Anodot's rules: legal names that stay apart, a validator for each rule, and files that hold only valid samples."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zmon_plugins.anodot import LegalNames, samples, violations
from zmon_plugins.sinks.anodot_file import AnodotFile, file_name, register_sinks

from tests.support.points import legal
from zmon.contract import Point, Refused, Report, Value, Window
from zmon.errors import ConfigurationError, RetryLater
from zmon.testing import check_sink, example_report

NOW = 1_700_000_000.0
GOOD: dict[str, Any] = {
    "properties": {"what": "accuracy", "model": "m", "ver": "1", "target_type": "gauge"},
    "tags": {"zone": ["a"]},
    "timestamp": 1_700_000_000,
    "value": 0.5,
}


def test_the_good_one_is_good() -> None:
    assert violations(GOOD, NOW) == []


BAD = {
    "2004": {"properties": {}},
    "2005": {"properties": {**GOOD["properties"], **{f"k{i}": "v" for i in range(17)}}},
    "2006": {"properties": {**GOOD["properties"], "": "v"}},
    "2007": {"properties": {**GOOD["properties"], "k" * 51: "v"}},
    "2008": {"properties": {**GOOD["properties"], "k": ""}},
    "2009": {"properties": {**GOOD["properties"], "k": "v" * 151}},
    "2010": {"properties": {**GOOD["properties"], "a.b": "v"}},
    "2011": {"properties": {**GOOD["properties"], "k": "a b"}},
    "2012": {"properties": {"model": "m"}},
    "2013": {"tags": {f"t{i}": ["v"] for i in range(41)}},
    "2014": {"tags": {"": ["v"]}},
    "2017": {"tags": {"k": ["v" * 151]}},
    "2018": {"tags": {"a=b": ["v"]}},
    "2019": {"tags": {"k": "text"}},
    "2020": {"timestamp": None},
    "2021": {"timestamp": 1.5},
    "2022": {"timestamp": int(NOW) + 3700},
    "2023": {"timestamp": -1},
    "2024": {"value": None},
    "2025": {"value": "0.5"},
    "2026": {"value": math.inf},
    "2030": {"properties": {**GOOD["properties"], "target_type": "rate"}},
}


@pytest.mark.parametrize(("code", "change"), BAD.items(), ids=BAD.keys())
def test_each_rule_has_its_code(code: str, change: dict[str, Any]) -> None:
    found = violations({**GOOD, **change}, NOW)
    assert [each[:4] for each in found] == [code], found


@given(st.lists(st.text(min_size=1, max_size=200), min_size=1, max_size=12, unique=True))
def test_legal_names_are_legal_and_stay_apart(names: list[str]) -> None:
    found = LegalNames().legal("class_name", names)
    assert len(set(found.values())) == len(names)
    assert all(re.fullmatch(r"[^.=\s]{1,150}", name) for name in found.values())
    assert LegalNames().legal("class_name", names[::-1]) == found, "whatever the order"


def test_names_that_become_equal_stay_apart_and_are_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    names = LegalNames()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            found = names.legal("class_name", ["a.b", "a=b", "a_b", "c d"])
    assert found["a_b"] == "a_b"
    assert found["c d"] == "c_d"
    assert re.fullmatch("a_b_[0-9a-f]{8}", found["a.b"])
    assert re.fullmatch("a_b_[0-9a-f]{8}", found["a=b"])
    assert found["a.b"] != found["a=b"]
    assert len(caplog.records) == 2


def test_a_name_keeps_its_form_under_another_key_and_once_alone() -> None:
    names = LegalNames()
    assert names.legal("class_name", ["a.b"]) == {"a.b": "a_b"}
    assert names.legal("feat_name", ["a=b"]) == {"a=b": "a_b"}


def test_a_long_name_is_cut_with_its_hash() -> None:
    names = ["x" * 160 + tail for tail in "ab"]
    found = LegalNames().legal("feat_name", names)
    assert all(re.fullmatch("x{141}_[0-9a-f]{8}", name) for name in found.values())
    assert len(set(found.values())) == 2


def test_samples_of_awkward_names_are_legal() -> None:
    made = list(samples(example_report(), LegalNames()))
    assert len(made) == 15
    for sample in made:
        legal(sample)
        assert violations(sample, time.time()) == []
    assert made[0]["properties"] == {
        "what": "buffer_count",
        "model": "model",
        "model_version": "1_0",
        "ver": "1",
        "target_type": "counter",
    }
    assert made[5]["tags"] == {"zone": ["a"]}


# --- files --------------------------------------------------------------------------------------------------------


def test_the_sink_keeps_the_contract(tmp_path: Path) -> None:
    check_sink(AnodotFile(tmp_path / "anodot", 3600))


def test_a_file_is_an_array_with_one_sample_a_line(tmp_path: Path) -> None:
    sink = AnodotFile(tmp_path, 3600)
    sink.open()
    sink.write(example_report(42))
    (path,) = tmp_path.iterdir()
    assert path.name == "20231114T221400Z-000000000042.json"
    lines = path.read_text().splitlines()
    assert lines[0] == "["
    assert lines[-1] == "]"
    assert len(lines) == 17
    assert [json.loads(line.rstrip(",")) for line in lines[1:-1]] == json.loads(path.read_text())


def test_writing_again_changes_nothing(tmp_path: Path) -> None:
    sink = AnodotFile(tmp_path, 3600)
    sink.open()
    sink.write(example_report())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    sink.write(example_report())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_no_points_no_file_and_no_leftover(tmp_path: Path) -> None:
    (tmp_path / "20200101T000000Z-000000000001.tmp").write_text("half a fi")
    sink = AnodotFile(tmp_path, 3600)
    sink.open()
    sink.write(Report(1, "m", "", Window(0, 60), []))
    assert list(tmp_path.iterdir()) == []


def test_what_anodot_would_refuse_is_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sink = AnodotFile(tmp_path, 3600)
    sink.open()
    sink.write(Report(1, "m", "", Window(0, 60), [Point(None, Value("accuracy", math.inf))] * 3))
    assert list(tmp_path.iterdir()) == []
    assert sink.invalid == 3
    assert caplog.text.count("2026") == 1


def test_a_window_is_written_although_the_systems_clock_was_set_back_since(tmp_path: Path) -> None:
    ahead = int(time.time()) + 7200
    sink = AnodotFile(tmp_path, 3600)
    sink.open()
    sink.write(Report(1, "m", "", Window(ahead, ahead + 60), [Point(None, Value("accuracy", 0.5))]))
    (path,) = tmp_path.iterdir()
    assert [sample["timestamp"] for sample in json.loads(path.read_text())] == [ahead]
    assert sink.invalid == 0


def test_what_is_left_out_of_the_files_is_set_aside_once(tmp_path: Path) -> None:
    done: dict[int, list[Refused]] = {}

    class Noted:
        def settled(self, sequence: int) -> int:
            return len(done.get(sequence, []))

        def settle(self, sequence: int, samples: int, refused: Any = ()) -> None:
            done.setdefault(sequence, []).extend(refused)

    sink = AnodotFile(tmp_path, 3600, properties={"env": "prod"})
    sink.attach(Noted())
    sink.open()
    for _ in range(2):
        sink.write(Report(1, "m", "", Window(0, 60), [Point(None, Value("accuracy", math.inf))]))
        sink.write(example_report(2))
    assert [each.code for each in done[1]] == ["2026"]
    assert 2 not in done
    (path,) = tmp_path.iterdir()
    assert all(sample["properties"]["env"] == "prod" for sample in json.loads(path.read_text()))


def test_a_folder_that_cannot_be_written_is_retried_later(tmp_path: Path) -> None:
    sink = AnodotFile(tmp_path / "data/gone", 3600)
    sink.open()
    (tmp_path / "data/gone").rmdir()
    (tmp_path / "data").rmdir()
    with pytest.raises(RetryLater) as error:
        sink.write(example_report())
    assert error.value.after > 0


def test_old_files_are_deleted(tmp_path: Path) -> None:
    old = tmp_path / file_name(example_report(1))
    old.write_text("[]")
    os.utime(old, (time.time() - 7200,) * 2)
    sink = AnodotFile(tmp_path, 3600)
    sink.open()
    sink.write(example_report(2))
    assert [path.name for path in tmp_path.iterdir()] == [file_name(example_report(2))]


@pytest.mark.parametrize(
    "table",
    [
        {"keep": "soon"},
        {"keep": 30},
        {"keep": "0d"},
        {"kep": "30d"},
        {"properties": {"a": ""}},
        {"properties": {f"k{i}": "v" for i in range(7)}},
    ],
)
def test_wrong_options_refuse_to_start(table: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"\[sinks.anodot_file\]"):
        register_sinks(lambda sink: None, {"sinks": {"anodot_file": table}})
