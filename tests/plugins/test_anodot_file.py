"""The file sink and its folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from zmon_plugins.sinks.anodot_file import AnodotFile

from tests.support.reports import window
from zmon.errors import RetryLater


def test_a_folder_that_was_removed_is_made_again(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    sink = AnodotFile(data / "anodot")
    sink.open()
    shutil.rmtree(data / "anodot")
    sink.write(window(1, 0))
    assert len(list((data / "anodot").glob("*.json"))) == 1


def test_without_the_data_folder_reports_wait(tmp_path: Path) -> None:
    """Perhaps a disk is not mounted at the moment: what is written in its place would be hidden later."""
    data = tmp_path / "data"
    data.mkdir()
    sink = AnodotFile(data / "anodot")
    sink.open()
    shutil.rmtree(data)
    with pytest.raises(RetryLater, match="No such file"):
        sink.write(window(1, 0))
    assert not data.exists()
