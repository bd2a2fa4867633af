"""Where a publisher's keys come from; a secret is in no error, whatever was wrong with it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import zmq
import zmq.auth

from zmon._transport import keys
from zmon.errors import ConfigurationError

PUBLIC, SECRET = (key.decode() for key in zmq.curve_keypair())
SERVER = zmq.curve_keypair()[0].decode()


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    zmq.auth.create_certificates(tmp_path, "pod")
    (tmp_path / "pod.key_secret").chmod(0o600)
    return tmp_path / "pod.key_secret", tmp_path / "pod.key"


def test_without_any_there_is_no_curve() -> None:
    assert keys.from_arguments(None, None) is None


def test_from_text_bytes_and_files(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, shown = files
    made = keys.from_arguments(SECRET, SERVER.encode())
    assert made == keys.Keys(PUBLIC.encode(), SECRET.encode(), SERVER.encode())
    read = keys.from_arguments(hidden, str(shown))
    assert read is not None
    assert read.public == read.server, "the public key belongs to the secret one"
    plain = hidden.with_name("plain")
    plain.write_text(f"{SECRET}\n")
    plain.chmod(0o600)
    monkeypatch.setenv(keys.SECRET_FILE, str(plain))
    monkeypatch.setenv(keys.SERVER_FILE, str(shown))
    assert keys.from_arguments(None, None) == keys.Keys(PUBLIC.encode(), SECRET.encode(), read.server)
    assert keys.from_arguments(None, SERVER) == made


def test_a_key_at_a_path_of_forty_characters_is_a_key() -> None:
    assert keys.from_arguments(SECRET, SERVER) is not None
    assert len(SECRET) == 40


WRONG = {
    "half": (SECRET, None),
    "the other half": (None, SERVER),
    "a letter missing": (SECRET[:-1], SERVER),
    "a letter too many": (SECRET + "0", SERVER),
    "a letter that is none": (SECRET[:-1] + '"', SERVER),
    "bytes that are no text": (b"\xff" * 40, SERVER),
    "nothing": ("", SERVER),
    "a number": (7, SERVER),
    "very long": (SECRET * 1000, SERVER),
    "NUL": (SECRET[:-1] + "\0", SERVER),
    "a server key that is none": (SECRET, SERVER[:-1]),
}


@pytest.mark.parametrize(("secret", "server"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_said_without_the_secret(secret: object, server: object) -> None:
    with pytest.raises(ConfigurationError) as error:
        keys.from_arguments(secret, server)  # type: ignore[arg-type]
    assert "secret_key" in str(error.value) or "server_key" in str(error.value)
    assert SECRET[:8] not in str(error.value)
    assert error.value.__cause__ is None


def test_a_key_in_the_variable_that_names_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(keys.SECRET_FILE, SECRET)
    with pytest.raises(ConfigurationError, match="must name a file") as error:
        keys.from_arguments(None, SERVER)
    assert SECRET not in str(error.value)


def test_a_file_that_is_absent_or_holds_no_key(tmp_path: Path, files: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        keys.from_arguments(tmp_path / "absent", SERVER)
    with pytest.raises(ConfigurationError, match="holds no secret-key"):
        keys.from_arguments(files[1], SERVER)  # the public file


def test_a_secret_that_everybody_can_read_is_warned_of(
    files: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    files[0].chmod(0o644)
    caplog.set_level(logging.WARNING)
    assert keys.from_arguments(*files) is not None
    assert "all users can read the secret in" in caplog.text
