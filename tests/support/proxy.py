"""A TCP relay between publisher and collector that misbehaves as networks do."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time

from tests.support.ports import free_port

DELAY = 0.003  # seconds at most, of each piece
STALL, STALLS = 4.0, 0.001  # seconds at most, of one piece in so many: beyond the patience of heartbeats


class Proxy:
    """A TCP relay that delays, stalls, cuts off in the middle of a message, resets and half-closes, by chance."""

    def __init__(self, target: int, chance: random.Random) -> None:
        self.listener = socket.create_server(("127.0.0.1", free_port()))
        self.port: int = self.listener.getsockname()[1]
        self.target = target
        self.chance = chance
        self.calm = False
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Accept no more connections."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self) -> None:
        while self.listener.fileno() >= 0:
            try:
                client, _ = self.listener.accept()
            except OSError:
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.target), 2)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            for here, there in ((client, server), (server, client)):
                threading.Thread(target=self._relay, args=(here, there), daemon=True).start()

    def _relay(self, here: socket.socket, there: socket.socket) -> None:
        left = self.chance.expovariate(1 / 60_000)
        how = socket.SHUT_RDWR
        try:
            while data := here.recv(4096):
                if not self.calm:
                    longest = STALL if self.chance.random() < STALLS else DELAY
                    time.sleep(self.chance.random() * longest)  # the delay
                    left -= len(data)
                    if left < 0:
                        self.cuts += 1
                        there.sendall(data[: len(data) // 2])
                        match self.chance.randrange(4):
                            case 0 | 1:  # a reset instead of an end
                                there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                            case 2:  # one direction ends, the other goes on
                                how = socket.SHUT_WR
                        break
                there.sendall(data)
        except OSError:
            pass
        finally:
            with contextlib.suppress(OSError):
                there.shutdown(how)
            if how == socket.SHUT_RDWR:
                for each in (here, there):
                    with contextlib.suppress(OSError):
                        each.shutdown(how)
                    each.close()
