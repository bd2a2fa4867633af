"""Everything that earlier releases wrote is read: frames, database, files."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
from zmon_collector.storage import schema

import zmon
from tests.support.databases import stored
from tests.support.frameworks import require
from tests.support.points import by_names
from tests.support.processes import Running
from zmon._wire import control
from zmon._wire import frames as wire

HERE = Path(__file__).parent
RELEASES = sorted(path for path in HERE.iterdir() if (path / "frames.json").exists())
# Databases as killed collectors left them, with their tables' version: those of releases, and one of the tables between
# 0.1.0 and the next release, which collectors that follow the main branch have.
DATABASES = [(HERE / "0.1.0", 2), (HERE / "tables-3", 3)]


def test_this_release_has_its_copies() -> None:
    assert zmon.__version__ in [path.name for path in RELEASES], "run python -m tests.golden before it is published"


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_frames(release: Path) -> None:
    frames = {
        name: [bytes.fromhex(each) for each in kept]
        for name, kept in json.loads((release / "frames.json").read_text()).items()
    }
    schema_message = wire.decode(frames["schema"])
    schema = wire.decode_schema(schema_message.body, schema_message.schema)
    assert (schema.classes, schema.kinds, schema.threshold) == (("ok", "fraud"), ("numeric", "categorical"), 0.3)
    batch = wire.decode(frames["batch"])
    assert (batch.topic, batch.first, batch.rows, batch.base) == (wire.Topic("fraud", "2.0", "pod/1"), 7, 2, 5)
    assert batch.columns["labels"].tolist() == [0, -1]
    assert batch.tally == {"sampled_out": 3, "rejected": {"label_unknown": 1}}
    hello = control.decode_greeting(frames["hello"][0])
    assert (hello.kind, hello.base, hello.acked, hello.issued, hello.store) == ("hello", 5, 4, 8, b"12345678")
    ack = control.decode_ack(frames["ack"][0])
    assert (ack.row, ack.window, ack.store) == (8, 65536, b"12345678")


def test_every_database_is_read() -> None:
    assert {path for path, _ in DATABASES} == {path.parent for path in HERE.glob("*/state.sqlite")}


@pytest.mark.parametrize(("release", "version"), DATABASES, ids=[path.name for path, _ in DATABASES])
def test_the_database_of_a_killed_collector(release: Path, version: int, tmp_path: Path) -> None:
    """It is migrated, and goes on with the open windows; their points are those that release itself gave."""
    folder, looked_at = tmp_path / "data", tmp_path / "looked at"  # which changes the log
    for copy in (folder, looked_at):
        copy.mkdir()
        for name in ("state.sqlite", "state.sqlite-wal", "history.sqlite"):
            if (release / name).exists():
                shutil.copy(release / name, copy / name)
    assert stored(looked_at, "PRAGMA user_version") == [(version,)]
    config = tmp_path / "zmon.toml"
    config.write_text('[collector]\nwindow = "60s"\n[metrics]\npreset = "full"\n')
    running = Running(folder, "--config", str(config))
    said = running.end()
    assert "damaged" not in said
    assert stored(folder, "PRAGMA user_version") == [(schema.VERSION,)]
    found = {each[0]["timestamp"]: by_names(each) for each in read(folder / "anodot")}
    kept = {each[0]["timestamp"]: by_names(each) for each in read(release / "anodot")}
    assert found.keys() == kept.keys()
    for start, window in kept.items():
        for names, value in window.items():
            assert math.isclose(found[start][names], value, rel_tol=1e-9, abs_tol=1e-12), names


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_files(release: Path) -> None:
    require("pandas")
    frame = zmon.read_points(release / "anodot")
    assert set(frame["agent_id"]) == {"a", "b", ""}
    assert (frame["what"] == "buffer_count").sum() >= 6


def read(folder: Path) -> list[list[dict[str, object]]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("2*.json"))]
