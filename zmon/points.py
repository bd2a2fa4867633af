"""Reads written files back into a table, for notebooks. pandas is imported on first use."""

from __future__ import annotations

import importlib
import json
from os import PathLike
from pathlib import Path
from typing import Any

from zmon._files import read_bounded
from zmon.contract import DIMENSIONS
from zmon.errors import MissingExtraError

LARGEST = 512 * 2**20  # bytes of a file
LATEST = 9_000_000_000  # epoch seconds that pandas can hold
NAMES = ("what", "model", "model_version", "agent_id", *DIMENSIONS)


def read_points(path: str | PathLike[str], *, what: str | list[str] | None = None) -> Any:
    """Read the points of written Anodot files into a tidy pandas DataFrame with one row per point.

    Parameters
    ----------
    path : path
        A file, a folder of files, or a collector's data folder.
    what : str or list of str, optional
        Only these measures; others are not kept in memory.

    Returns
    -------
    DataFrame
        Columns: ``time`` (the window's start, UTC), ``value``, and every name that identifies a series, as categories:
        ``what``, ``model``, ``model_version``, ``agent_id`` (empty on the rollup), ``class_name``, ``feat_name``,
        ``stat``, ``category``, … A name that does not apply is the empty string. Sorted by time.

    Raises
    ------
    MissingExtraError
        pandas is not installed.
    FileNotFoundError
        There is nothing at `path`.
    ValueError
        A file was not written by a collector, or is larger than 512 MiB; the message names it.

    Examples
    --------
    >>> import json, tempfile, zmon
    >>> sample = {"properties": {"what": "accuracy", "model": "fraud"}, "timestamp": 1700000000, "value": 0.9}
    >>> with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
    ...     _ = file.write(json.dumps([sample])), file.flush()
    ...     frame = zmon.read_points(file.name)
    >>> frame[["model", "what", "value"]].to_dict("records")
    [{'model': 'fraud', 'what': 'accuracy', 'value': 0.9}]
    """
    try:
        pandas = importlib.import_module("pandas")  # by name: this package stays light
    except ImportError:
        raise MissingExtraError("pandas", "notebook") from None
    wanted = {what} if isinstance(what, str) else None if what is None else set(what)
    columns: dict[str, list[Any]] = {"timestamp": [], "value": [], **{name: [] for name in NAMES}}
    for file in _files(Path(path)):
        for sample in _samples(file):
            names = sample["properties"]
            if wanted is not None and names["what"] not in wanted:
                continue
            columns["timestamp"].append(sample["timestamp"])
            columns["value"].append(sample["value"])
            for name in NAMES:
                columns[name].append(names.get(name, ""))
    times = pandas.to_datetime(columns.pop("timestamp"), unit="s", utc=True)
    values = pandas.Series(columns.pop("value"), dtype="float64")
    frame = pandas.DataFrame({"time": times, "value": values, **{n: pandas.Categorical(c) for n, c in columns.items()}})
    return frame.sort_values("time", kind="stable", ignore_index=True)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    folder = path / "anodot" if (path / "anodot").is_dir() else path
    if not folder.is_dir():
        raise FileNotFoundError(f"{path} is neither a file nor a folder; pass a collector's data folder")
    return sorted(folder.glob("*.json"))


def _samples(file: Path) -> list[dict[str, Any]]:
    try:
        samples = json.loads(read_bounded(file, LARGEST).decode("utf-8"))
        if not isinstance(samples, list):
            raise ValueError("it holds no list")
        for number, sample in enumerate(samples, 1):
            if not _is_sample(sample):
                raise ValueError(f"sample {number} lacks properties, timestamp or value, or one is of another type")
    except RecursionError:
        raise ValueError(f"{file} is not a file of Anodot samples: lists without end") from None
    except ValueError as error:
        raise ValueError(f"{file} is not a file of Anodot samples: {error}") from None
    return samples


def _is_sample(sample: Any) -> bool:
    if not isinstance(sample, dict) or not {"properties", "timestamp", "value"} <= sample.keys():
        return False
    names, timestamp, value = sample["properties"], sample["timestamp"], sample["value"]
    return (
        isinstance(names, dict)
        and "what" in names
        and all(isinstance(names.get(name, ""), str) for name in NAMES)
        and type(timestamp) in (int, float)
        and 0 <= timestamp <= LATEST
        and type(value) in (int, float)
        and (type(value) is float or abs(value) < 2**1000)  # a double can hold it
    )
