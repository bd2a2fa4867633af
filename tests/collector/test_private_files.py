"""Who may read what a collector writes, in new folders and in those that were there before."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from zmon_collector.cli.main import cli
from zmon_collector.dashboard.history import History
from zmon_collector.jobs.push.ledger import PushLedger
from zmon_collector.private_files import create_private, open_folder, private_umask, replace_file, share_socket
from zmon_collector.storage.store_file import StoreFile
from zmon_collector.telemetry import Telemetry
from zmon_plugins.sinks.anodot_file import AnodotFile

from tests.support.reports import window
from zmon._files import read_bounded
from zmon.errors import ConfigurationError

WRITES_ROWS = ("collect", "demo", "backfill", "push")


@pytest.fixture(autouse=True)
def common_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def open_to_all(folder: Path) -> list[str]:
    """Files that others than their owner may read or write."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and mode(path) & 0o077)


@pytest.mark.parametrize("name", WRITES_ROWS)
def test_commands_that_write_rows_begin_with_a_private_umask(name: str) -> None:
    command = cli.get_command(None, name)  # type: ignore[arg-type]
    assert command is not None and command.callback.__wrapped__.__name__ == name  # type: ignore[union-attr]


def test_the_umask_is_restored() -> None:
    with private_umask():
        assert os.umask(0o077) == 0o077
    assert os.umask(0o022) == 0o022


def test_databases_are_private_from_their_first_byte(tmp_path: Path) -> None:
    """Their logs, too, which SQLite creates with the mode that the database has at that moment."""
    tmp_path.chmod(0o755)
    connection = StoreFile(tmp_path / "state.sqlite", Telemetry()).open()
    history = History(tmp_path / "history.sqlite", 1e9, 2**30)
    history.open()
    history.append(window(1, 0), 0.0)
    ledger = PushLedger(tmp_path / "push.sqlite", "http://localhost", "token")
    assert {"state.sqlite-wal", "history.sqlite-wal"} <= {path.name for path in tmp_path.iterdir()}
    assert open_to_all(tmp_path) == []
    for opened in (connection, history, ledger):
        opened.close()


def test_files_that_were_there_before_become_private(tmp_path: Path) -> None:
    own = ("state.sqlite", "state.sqlite-wal", "state.sqlite.damaged-17", "history.sqlite", "push.sqlite", "x.backfill")
    for name in (*own, "zmon.toml"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o644)
    open_folder(tmp_path, "[collector] data_dir")
    assert open_to_all(tmp_path) == ["zmon.toml"], "what is not the collector's is left alone"


@pytest.mark.parametrize(
    ("given", "says"), [(0o755, "enter"), (0o701, "enter"), (0o777, "write to"), (0o750, ""), (0o2770, ""), (0o700, "")]
)
def test_a_folder_that_others_enter_is_warned_of(
    given: int, says: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tmp_path.chmod(given)
    open_folder(tmp_path, "[collector] data_dir")
    folder = f"the folder {str(tmp_path)!r} (mode {given:03o})"
    said = f"[collector] data_dir: all users can {says} {folder}, which holds rows; run chmod 700 on it"
    assert [record.getMessage() for record in caplog.records] == ([said] if says else [])


def test_a_folder_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"\[collector\] data_dir: '.*file/data' cannot be created: Not a dir"):
        open_folder(tmp_path / "file" / "data", "[collector] data_dir")


@pytest.mark.parametrize(("folder", "file"), [(0o700, 0o600), (0o755, 0o644), (0o2750, 0o640), (0o777, 0o644)])
def test_written_files_may_be_read_by_whom_their_folder_lets_in(folder: int, file: int, tmp_path: Path) -> None:
    with private_umask():
        sink = AnodotFile(tmp_path / "anodot")
        sink.open()
        assert mode(tmp_path / "anodot") == 0o700
        (tmp_path / "anodot").chmod(folder)
        sink.write(window(1, 0))
    assert [mode(path) for path in (tmp_path / "anodot").iterdir()] == [file]


def test_a_link_in_the_place_of_a_temporary_file_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("unharmed")
    (tmp_path / "x.tmp").symlink_to(victim)
    replace_file(tmp_path / "x.backfill", b"progress")
    sink = AnodotFile(tmp_path)
    written = window(1, 0)
    sink.write(written)
    (name,) = (path.stem for path in tmp_path.glob("*.json"))
    (tmp_path / f"{name}.tmp").symlink_to(victim)
    sink.write(written)
    assert victim.read_text() == "unharmed" and (tmp_path / "x.backfill").read_bytes() == b"progress"
    assert not (tmp_path / "x.backfill").is_symlink()


def test_a_socket_of_publishers_has_the_mode_of_the_users_umask(tmp_path: Path) -> None:
    path = tmp_path / "zmon"
    with private_umask():
        create_private(path)
        share_socket(f"ipc://{path}")
        share_socket("ipc://@abstract")
        share_socket("tcp://127.0.0.1:1")
    assert mode(path) == 0o755


@pytest.mark.parametrize(
    ("given", "secret", "says"),
    [
        (0o600, True, []),
        (0o644, False, []),
        (0o664, False, []),
        (0o604, True, ["all users can read the secret in"]),
        (0o646, False, ["all users can write to"]),
        (0o666, True, ["all users can write to", "all users can read the secret in"]),
    ],
)
def test_what_every_user_may_do_to_a_file_is_said(
    given: int, secret: bool, says: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    path.chmod(given)
    assert read_bounded(path, 7, secret=secret) == b"content"
    assert len(caplog.records) == len(says) and all(said in caplog.text for said in says)


def test_a_file_beyond_its_limit_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2**40)
    for path in (tmp_path / "sparse", Path("/dev/zero")):
        with pytest.raises(ValueError, match="more than 7 bytes, which is the limit"):
            read_bounded(path, 7)
