"""``zmon keygen``: make a pair of CURVE keys, and print the configuration that uses it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click
import zmq

from zmon.errors import ConfigurationError
from zmon_collector.cli.options import FOLDER

FORM = """#   zmon CURVE key of {name}: {note}
curve
    public-key = "{public}"
"""


@click.command()
@click.argument("name")
@click.option("--collector", is_flag=True, help="Make the pair for a collector, not for a publisher.")
@click.option("--out", type=FOLDER, default=".", show_default=True, help="Folder for the files.")
def keygen(name: str, collector: bool, out: Path) -> None:
    """Make a pair of CURVE keys: NAME.key_secret, which only you can read, and NAME.key, which is public.

    Prints the public key and the configuration for both sides. The secret key is never printed, and existing files are
    not overwritten. Without --collector the pair is for a publisher.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        raise ConfigurationError(f"invalid name {name!r:.80}: use letters, digits, - and _ only, at most 64")
    public, secret = (key.decode() for key in zmq.curve_keypair())
    hidden, shown = out / f"{name}.key_secret", out / f"{name}.key"
    _write(hidden, 0o600, FORM.format(name=name, note="SECRET, keep it", public=public)
           + f'    secret-key = "{secret}"\n')  # fmt: skip
    _write(shown, 0o644, FORM.format(name=name, note="public", public=public))
    click.echo(f"secret key: {hidden} (0600; move it to the machine that uses it, and keep no copy)")
    click.echo(f"public key: {shown}\n            {public}\n")
    click.echo(_for_collector(hidden, shown) if collector else _for_client(name, public, hidden))


def _write(path: Path, mode: int, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    except FileExistsError:
        raise ConfigurationError(f"{path} exists, and keys are not overwritten; choose another name") from None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from None
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, mode)  # whatever the umask says
        file.write(text)


def _for_collector(hidden: Path, shown: Path) -> str:
    return f"""zmon.toml of the collector:

[security]
secret_key_file = "{hidden}"

Every publisher: zmon.Publisher(..., server_key="{shown.name}"), or ZMON_SERVER_KEY_FILE={shown.name}"""


def _for_client(name: str, public: str, hidden: Path) -> str:
    return f"""zmon.toml of the collector (or its clients_file, as [clients.{name}]), then reload it:

[security.clients.{name}]
key = "{public}"
models = ["*"]  # globs: what it may publish as
agents = ["*"]  # late labels: of rows of these agents only, unless labels = [MODELS] is added

The publisher: zmon.Publisher(..., secret_key="{hidden}"), or ZMON_SECRET_KEY_FILE={hidden}"""
