"""ZMTP by hand, for peers that do what libzmq does not: break off in the middle."""

from __future__ import annotations

import socket
import struct

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32)
PING = b"\x04\x07\x04PING\x00\x00"


def shake_hands(peer: socket.socket, kind: bytes) -> None:
    """Become a socket of a kind, ``b"PUB"`` for instance."""
    body = b"\x05READY\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind
    peer.sendall(GREETING + b"\x04" + bytes([len(body)]) + body)
    peer.recv(64, socket.MSG_WAITALL)


def reset(peer: socket.socket) -> None:
    """End a connection at once, so that the other side finds an error."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
