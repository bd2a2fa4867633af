"""Files of rows: csv, parquet and npz give the same profile, chunk by chunk; what does not fit is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas
import pytest
from click.testing import CliRunner
from zmon_collector.cli.profile import profile
from zmon_collector.jobs import npz_file, row_files, tabular

import zmon
from tests.client.reference.test_profile import rows
from zmon.errors import ConfigurationError
from zmon.reference import Profile


@pytest.fixture
def frame() -> pandas.DataFrame:
    p, inputs, labels = rows(3000)
    inputs = inputs.drop(columns=["gone", "wild"])
    columns = {f"p_{name}": p[:, i] for i, name in enumerate("abc")}
    return pandas.DataFrame({**columns, **inputs, "y": labels, "id": np.arange(3000), "ts": 1.7e9 + np.arange(3000.0)})


def expected(frame: pandas.DataFrame) -> Profile:
    inputs = frame[["normal", "mostly_zero", "ones", "constant", "city", "vip"]]
    return zmon.profile(frame[["p_a", "p_b", "p_c"]].to_numpy(), inputs, frame["y"].to_numpy(), classes=["a", "b", "c"])


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_command_makes_what_the_function_makes(
    suffix: str, frame: pandas.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_files, "ROWS", 1000)  # the windows of 1000 rows are then the same
    path, out = tmp_path / f"rows.{suffix}", tmp_path / "reference.zmon"
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    options = ["--probabilities", "p_*", "--labels", "y", "--ids", "id", "--time", "ts", "--out", str(out)]
    result = CliRunner().invoke(profile, [str(path), *options], catch_exceptions=False)
    assert result.exit_code == 0 and "3,000 rows, 6 features, 3 classes" in result.output
    made, wanted = Profile.load(out), expected(frame)
    assert made.schema.features == wanted.schema.features and made.schema.kinds == wanted.schema.kinds
    assert np.array_equal(made.numeric.counts, wanted.numeric.counts)
    assert made.own is not None and made.own.windows == 3
    assert [c.counts.tolist() for c in made.categorical] == [c.counts.tolist() for c in wanted.categorical]
    shown = CliRunner().invoke(profile, ["--show", str(out)], catch_exceptions=False)
    assert "mostly_zero" in shown.output and "Oslo" in shown.output


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_read_as_a_stream(save: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_files, "ROWS", 700)
    p, frame, labels = rows(3000)
    inputs = frame[["normal", "ones"]].to_numpy(dtype=np.float32)
    path, out = tmp_path / "rows.npz", tmp_path / "reference.zmon"
    save(path, p=p, inputs=inputs, y=labels)  # type: ignore[operator]
    options = ["--classes", "a,b,c", "--probabilities", "p_*", "--labels", "y", "--inputs", "feat_*", "--out", str(out)]
    result = CliRunner().invoke(profile, [str(path), *options], catch_exceptions=False)
    assert result.exit_code == 0
    made, wanted = Profile.load(out), zmon.profile(p, inputs, labels, classes=["a", "b", "c"])
    assert made.numeric.names == ("feat_0", "feat_1")
    assert np.array_equal(made.numeric.counts, wanted.numeric.counts)
    assert made.labels is not None and wanted.labels is not None and made.labels.tolist() == wanted.labels.tolist()


def test_whole_numbers_may_become_fractions_further_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_files, "CSV_BLOCK", 1000)
    path = tmp_path / "a.csv"
    path.write_text("p,x\n" + "0.5,1\n" * 1000 + "0.25,1.5\n" * 3 + "0.25,\n")
    read = tabular.Dataset([path], tabular.Columns(("no", "yes"), ("p",)))
    batches = list(read.batches())
    assert len(batches) > 3 and sum(batch.rows for batch in batches) == 1004
    assert np.isnan(batches[-1].inputs[-1, 0])


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"probabilities": ("q_*",)}, "matches no column"),
        ({"probabilities": ("p_*",), "labels": "truth"}, "no such column"),
        ({}, "--probabilities"),
        ({"probabilities": ("p_a",)}, "--classes"),
    ],
)
def test_columns_that_do_not_fit(
    columns: dict[str, object], said: str, frame: pandas.DataFrame, tmp_path: Path
) -> None:
    frame.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ConfigurationError, match=said):
        tabular.Dataset([tmp_path / "a.parquet"], tabular.Columns(**columns))  # type: ignore[arg-type]


def test_bad_rows_are_reported_by_file_and_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("p,x\n0.5,1\n7.5,2\n")
    result = CliRunner().invoke(profile, [str(path), "--classes", "a,b", "--probabilities", "p", "--out", "x"])
    assert isinstance(result.exception, ConfigurationError)
    assert "rows 1 to 2" in str(result.exception) and "probabilities" in str(result.exception)
    pickled = tmp_path / "b.npz"
    np.savez(pickled, p=np.array([{}], dtype=object))
    with pytest.raises(ConfigurationError, match="Python objects"):
        tabular.Dataset([pickled], tabular.Columns(("a", "b"), ("p",)))


def test_wide_rows_make_smaller_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.npz"
    given = np.arange(40_000.0).reshape(1000, 40)
    np.savez(path, inputs=given, ts=np.arange(1000))
    monkeypatch.setattr(npz_file, "CHUNK_BYTES", 41 * 8 * 7)
    with npz_file.NpzFile(path) as file:
        chunks = list(file.read(500, 300, file.names, 16))
    assert {len(chunk["ts"]) for chunk in chunks} <= {6, 7} and len(file.names) == 41
    assert np.array_equal(np.concatenate([chunk["ts"] for chunk in chunks]), np.arange(500, 800))
    assert np.array_equal(np.concatenate([chunk["feat_39"] for chunk in chunks]), given[500:800, 39])


@pytest.mark.parametrize(
    ("limit", "value", "says"),
    [
        ("WHOLE", 100, r"'p' is stored column by column and has more than 0 GiB; save np\.ascontiguousarray\(array\)"),
        ("CHUNK_BYTES", 20, "a row of array 'p' has 24 bytes"),
        ("MOST_COLUMNS", 2, "more than 2 columns, the limit"),
    ],
)
def test_arrays_beyond_a_limit_are_refused(
    limit: str, value: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "rows.npz", p=np.asfortranarray(np.ones((50, 3))))
    monkeypatch.setattr(npz_file, limit, value)
    with pytest.raises(ConfigurationError, match=says), npz_file.NpzFile(tmp_path / "rows.npz") as file:
        list(file.read(0, 50, (), 16))


def test_an_archive_that_claims_more_than_it_has_is_refused(tmp_path: Path) -> None:
    """Its list of arrays says how many bytes an array has; deflate does not make a thousand of one."""
    path = tmp_path / "rows.npz"
    np.savez_compressed(path, p=np.zeros(1000))
    data = path.read_bytes()
    header = (128 + 8000).to_bytes(4, "little")  # bytes of the array, as the list has them
    path.write_bytes(data.replace(header, (128 + 8 * 10**8).to_bytes(4, "little")))
    with pytest.raises(ConfigurationError, match="claims 1,000 rows of 8 bytes, which are not in the file"):
        npz_file.NpzFile(path)
