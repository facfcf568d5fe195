"""Asks a broker who belongs to its cluster, in Kafka's own protocol and nothing but the standard library.

A port that accepts connections is not a broker that serves: this is what starting waits for. It is synchronous and
needs no event loop, so that it works from fixtures, from the command line and in the middle of an async test.
"""

from __future__ import annotations

import socket
import struct

_METADATA_REQUEST = 3
_METADATA_VERSION = 1  # the oldest whose answer is simple, and one that every broker still speaks
_CLIENT = b"apportion-probe"
_TIMEOUT_SECONDS = 2.0
_ANSWER_BYTES_MAX = 1_000_000


def count_brokers(port: int) -> int:
    """How many brokers the one on this loopback port knows to be alive, itself included; 0 where it does not answer."""
    body = struct.pack(">hhih", _METADATA_REQUEST, _METADATA_VERSION, 1, len(_CLIENT)) + _CLIENT
    request = body + struct.pack(">i", 0)  # of no topics: the brokers come with every answer
    try:
        with socket.create_connection(("127.0.0.1", port), _TIMEOUT_SECONDS) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            (size,) = struct.unpack(">i", _receive(connection, 4))
            if not 8 <= size <= _ANSWER_BYTES_MAX:
                return 0
            answer = _receive(connection, size)
    except OSError:
        return 0
    (count,) = struct.unpack_from(">i", answer, 4)  # behind the number of the request
    return max(int(count), 0)


def _receive(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        part = connection.recv(size - len(received))
        if not part:
            raise ConnectionError("the broker closed the connection")
        received += part
    return bytes(received)
