"""Asks a broker for its cluster and who belongs to it, in Kafka's own protocol and nothing but the standard library.

A port that accepts connections is not a broker that serves: this is what starting waits for. It is synchronous and
needs no event loop, so that it works from fixtures, from the command line and in the middle of an async test.
"""

from __future__ import annotations

import socket
import struct

_METADATA_REQUEST = 3
_METADATA_VERSION = 2  # the oldest that names the cluster, and one that every broker still speaks
_CLIENT = b"apportion-probe"
_TIMEOUT_SECONDS = 2.0
_ANSWER_BYTES_MAX = 1_000_000


def ask(port: int) -> tuple[str, int] | None:
    """The id of the cluster behind the loopback port, and how many of its brokers are alive.

    None where nobody answers, or not in Kafka's protocol.
    """
    body = struct.pack(">hhih", _METADATA_REQUEST, _METADATA_VERSION, 1, len(_CLIENT)) + _CLIENT
    request = body + struct.pack(">i", 0)  # of no topics: the brokers come with every answer
    try:
        with socket.create_connection(("127.0.0.1", port), _TIMEOUT_SECONDS) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            (size,) = struct.unpack(">i", _receive(connection, 4))
            return _read_answer(_receive(connection, size)) if size <= _ANSWER_BYTES_MAX else None
    except (OSError, struct.error, UnicodeDecodeError):
        return None


def _read_answer(answer: bytes) -> tuple[str, int]:
    (count,) = struct.unpack_from(">i", answer, 4)  # behind the number of the request
    offset = 8
    for _ in range(count):
        _host, offset = _read_text(answer, offset + 4)  # behind the number of the broker
        _rack, offset = _read_text(answer, offset + 4)  # behind its port
    cluster, _ = _read_text(answer, offset)
    return cluster, count


def _read_text(answer: bytes, offset: int) -> tuple[str, int]:
    (length,) = struct.unpack_from(">h", answer, offset)
    end = offset + 2 + max(length, 0)  # -1 stands for no text at all
    return answer[offset + 2 : end].decode(), end


def _receive(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        part = connection.recv(size - len(received))
        if not part:
            raise ConnectionError("the broker closed the connection")
        received += part
    return bytes(received)
