"""CURVE keys of a collector and its clients, for a scene: who may do what is in the configuration."""

from __future__ import annotations

from pathlib import Path

import zmq


class Keys:
    """A collector's keys, and those of its clients by name.

    Parameters
    ----------
    folder : Path
        Where the collector's secret key is written.
    **clients : str
        The lines of each client's table but its key.

    Attributes
    ----------
    config : str
        Sections of zmon.toml.
    """

    def __init__(self, folder: Path, **clients: str) -> None:
        public, secret = (key.decode() for key in zmq.curve_keypair())
        self.server = public
        path = folder / "server.key_secret"
        path.write_text(secret)
        path.chmod(0o600)
        self._secrets: dict[str, str] = {}
        tables = []
        for name, lines in clients.items():
            own, self._secrets[name] = (key.decode() for key in zmq.curve_keypair())
            tables.append(f'[security.clients.{name}]\nkey = "{own}"\n{lines}\n')
        self.config = f'[security]\nsecret_key_file = "{path}"\n' + "".join(tables)

    def of(self, client: str) -> dict[str, str]:
        """Arguments of a client's `zmon.Publisher`."""
        return {"secret_key": self._secrets[client], "server_key": self.server}
