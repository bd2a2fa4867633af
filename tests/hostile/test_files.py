"""Files: who may read what a collector writes, and what files that are broken or hostile cost."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from zmon_collector.admin import ask

import zmon
from tests.hostile.scene import Scene
from tests.support.waiting import busy, until


@pytest.fixture
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("no_umask")
def test_nothing_that_a_collector_writes_can_be_read_by_others(tmp_path: Path) -> None:
    """In a folder that was there before and is open to all, with a database that an earlier run left open."""
    data = tmp_path / "data"
    data.mkdir(mode=0o777)
    (data / "history.sqlite").touch(mode=0o666)
    with Scene(tmp_path) as scene:
        with zmon.Publisher("m", classes=3, collector=scene.collector.endpoint, agent_id="a") as publisher:
            publisher.publish(np.full((10, 3), 1 / 3), ids=np.arange(10))
            assert publisher.flush(30)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in data.rglob("*")}
        assert {"state.sqlite", "state.sqlite-wal", "history.sqlite", "admin.sock", "anodot"} <= modes.keys()
        assert {name for name, mode in modes.items() if mode & 0o077} == set()
        said = f"all users can write to the folder {str(data)!r} (mode 777), which holds rows; run chmod 700 on it"
        assert scene.collector.said().count(said) == 1


MEMORY = 512 * 2**20  # bytes that reading a broken file may take
SPACE = 4 * 2**30  # bytes of address space of the process that reads them
SECONDS = 10.0  # for one file
SENTENCE = 600  # characters

Make = Callable[[Path], object]


def _claiming(shape: str, kind: str = "<f8", data: bytes = b"\0" * 8) -> Make:
    """An npz file whose array claims a shape."""

    def make(path: Path) -> None:
        header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}\n".encode()
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("p.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data)

    return make


def _members(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(20_000):
            archive.writestr(f"{'x' * 1000}{number}.npy", b"")


def _columns(path: Path) -> None:
    empty = pyarrow.array([], pyarrow.float64())
    pyarrow.parquet.write_table(pyarrow.table({f"c{i}": empty for i in range(70_000)}), path)


def _string(path: Path) -> None:
    """A file of a megabyte that means sixteen gigabytes."""
    column = pyarrow.DictionaryArray.from_arrays(np.zeros(20_000, np.int32), ["x" * 2**20])
    pyarrow.parquet.write_table(pyarrow.table({"p": column}), path, store_schema=False)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


def _objects(path: Path) -> None:
    np.savez(path, p=np.array([{}, 1], dtype=object))


def _other_program(path: Path) -> None:
    path.mkdir()
    with contextlib.closing(sqlite3.connect(path / "state.sqlite")) as connection:
        connection.execute("PRAGMA application_id = 1")
        connection.execute("CREATE TABLE mine (x)")


def _profile_of(lists: int) -> bytes:
    return b"\x81\xa6format\xdd" + lists.to_bytes(4, "big") + b"\x90" * lists


ROWS = b"p,q\n" + b"0,1\n" * 2**22  # more than are read at a time
POINT = b'[{"properties":{"what":"f1"},"value":%b,"timestamp":%b}]'
PROFILE = ("profile", "{}", "--probabilities", "p", "--classes", "a,b", "--out", "{}.zmon")
SHOW, VALIDATE, REPORT = ("profile", "--show", "{}"), ("validate", "{}"), ("report", "{}", "--out", "{}.html")
DRY_RUN, COLLECT = ("push", "--dry-run", "{}"), ("collect", "--data-dir", "{}")

# Command, suffix of the file, exit code; and by name what is in the file, and what is said of it.
BROKEN: list[tuple[tuple[str, ...], str, int, dict[str, tuple[Make | bytes, str]]]] = [
    (PROFILE, ".npz", 2, {
        "rows that are not there": (_claiming("(1000000000000,)"), "claims 1,000,000,000,000 rows"),
        "columns without end": (_claiming("(1, 1000000000000)"), "more than 65,536 columns"),
        "a row without end": (_claiming("(1,)", "<U100000000"), "which are not in the file"),
        "a header of parentheses": (_claiming("(" * 5000 + ")" * 5000), "is not an array"),
        "pickled objects": (_objects, "holds Python objects"),
        "arrays without end": (_members, "has too many arrays"),
        "no archive": (b"PK\x03\x04" + b"\xff" * 1000, "cannot be read: File is not a zip file"),
        "an empty npz": (b"", "cannot be read: File is not a zip file"),
    }),
    (PROFILE, ".csv", 2, {
        "a line without end": (b"p\n" + b"1" * 40 * 2**20, "a row has more than 8 MiB; is a quote missing?"),
        "a quote without end": (b'p,q\n1,"' + b"1,2\n" * 2**23, "a row has more than 8 MiB; is a quote missing?"),
        "a late quote without end": (ROWS + b'1,"' + b"1,2\n" * 2**23, "row that begins at byte 16,777,220"),
        "a header without end": (b"p" * 40 * 2**20, "its first line has 8,388,608 bytes"),
        "a million columns": (b"c," * 10**6 + b"p\n", "1,000,001 columns"),
        "an empty csv": (b"", "cannot be read: Empty CSV file"),
        "another encoding": (b"p\n\xff\xfe\n", "rows 1 to 1: column 'p' holds no probabilities"),
        "words for probabilities": (b"p\n0.5\nhalf\n", "holds no probabilities"),
        "rows of other lengths": (b"p,q\n0.5,1\n0.5\n", "Expected 2 columns, got 1"),
    }),
    (PROFILE, ".parquet", 2, {
        "no parquet": (b"PAR1" + b"\0" * 100 + b"\x10\0\0\0PAR1", "cannot be read"),
        "a footer without end": (b"PAR1" + b"\xff\xff\xff\x7fPAR1", "its footer has 2,147,483,647 bytes"),
        "a string in every row": (_string, "16,384 strings of column 'p' have more than 256 MiB"),
        "many columns": (_columns, "70,000 columns, at most 65,536 are read"),
    }),
    (SHOW, ".zmon", 2, {
        "lists in a profile": (_profile_of(2**26), "more than 4,194,304 values"),
        "as many lists as may be": (_profile_of(2**20), "it does not start like one"),
        "lists in lists": (b"\x91" * 2**20, "more than 16 lists or maps"),
        "a profile without end": (_sparse, "more than 1,073,741,824 bytes"),
    }),
    (VALIDATE, ".toml", 2, {
        "a configuration without end": (_sparse, "more than 2,097,152 bytes"),
        "nested configuration": (b"x = " + b"[" * 100_000, "more than 16 lists or tables"),
        "a key without end": (b"a." * 500_000 + b"a = 1", "line 1 has 500000 dots"),
        "an escape sequence": (b'["\\u001b[2J"]', "unknown section [?[2J]"),
    }),
    (DRY_RUN, ".json", 1, {
        "nested samples": (b'[{"properties":' + b'{"a":' * 100_000 + b"\n", "not a JSON object"),
        "lists in samples": (b'[{"value":[' + b"[]," * 10**7 + b"\n", "not a JSON object"),
        "digits": (b'[{"value":' + b"9" * 10**6 + b"}]\n", "not a JSON object"),
    }),
    (DRY_RUN, ".json", 2, {"samples without end": (_sparse, "more than 536,870,912 bytes")}),
    (REPORT, ".json", 2, {
        "nested points": (b"[" * 100_000, "is not a file of Anodot samples: lists without end"),
        "a point of digits": (POINT % (b"9" * 10**5, b"0"), "limit (4300 digits)"),
        "a point without number": (POINT % (b'"x"', b"0"), "sample 1 lacks"),
        "a point beyond doubles": (POINT % (b"9" * 400, b"0"), "sample 1 lacks"),
        "a point of the far future": (POINT % (b"1", b"1e30"), "sample 1 lacks"),
        "a point of lists": (b'[{"properties":{"what":[]},"timestamp":0,"value":1}]', "sample 1 lacks"),
        "points without end": (_sparse, "more than 536,870,912 bytes"),
    }),
    (COLLECT, "", 2, {
        "a file for a folder": (b"", "is a file"),
        "another program's state": (_other_program, "choose another --data-dir"),
    }),
]  # fmt: skip


def test_a_broken_file_costs_a_sentence(tmp_path: Path) -> None:
    """Whatever is read from it: no stack trace, and neither much memory nor time."""
    commands, expected = [], []
    for arguments, suffix, code, files in BROKEN:
        for name, (content, says) in files.items():
            path = tmp_path / f"{len(commands)}{suffix}"
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                content(path)
            commands.append([argument.format(path) for argument in arguments])
            expected.append((name, code, says))
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile.command", str(SPACE)],
        input=json.dumps(commands), capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    wrong = {}
    for (name, code, says), got in zip(expected, json.loads(done.stdout), strict=True):
        said = got["said"]
        fits = got["code"] == code and says in said and len(said) < SENTENCE and "Traceback" not in said
        if not fits or got["grown"] > MEMORY or got["seconds"] > SECONDS * busy():
            wrong[name] = {**got, "said": said[-1500:]}
    assert not wrong, json.dumps(wrong, indent=1)


def test_a_reload_of_broken_files_changes_nothing(tmp_path: Path) -> None:
    """The configuration, and what it names: the good publisher goes on under what was in force."""
    named = tmp_path / "named"
    with Scene(tmp_path) as scene:
        path = scene.collector.config
        good = path.read_text()
        reference = f'\n[models.m]\nreference = "{named}"\n'.encode()
        broken: list[tuple[bytes, bytes, str]] = [
            (b"x = " + b"[" * 100_000, b"", "more than 16 lists or tables"),
            (b"a." * 500_000 + b"a = 1", b"", "dots; write a long list"),
            (b"[limits]\nmodels = " + b"9" * 5000, b"", "more than 64 bits"),
            (b"[collector]\nwindow = '99999999999s'", b"", "longer than a hundred years"),
            (b"#" * 2**22, b"", "more than 2,097,152 bytes"),
            (b"\xff\xfe", b"", "not UTF-8"),
            (good.encode() + reference, _profile_of(2**22), "more than 4,194,304 values"),
            (good.encode() + reference, b"", "is not a reference profile"),
        ]
        for content, other, says in broken:
            path.write_bytes(content)
            named.write_bytes(other)
            answer = ask(scene.collector.folder, "reload", 60.0)
            assert answer is not None and says in answer["error"] and len(answer["error"]) < SENTENCE, answer
        scene.collector.hang_up()
        until(lambda: "the configuration is not valid and nothing is changed" in scene.collector.said(), "the log line")
        path.write_text(good)
        assert ask(scene.collector.folder, "reload", 60.0) == {"waiting": []}
    assert scene.grown < MEMORY, scene.grown
