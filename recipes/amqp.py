"""Just enough of AMQP 0-9-1 to ask a server whether somebody may log in: milliseconds, where Erlang takes a second.

https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf, sections 2.2 (connections) and 4.2 (frames).
"""

from __future__ import annotations

import socket
import struct

_METHOD, _END = 1, 0xCE
_START, _START_OK = (10, 10), (10, 11)
_TUNE, _TUNE_OK = (10, 30), (10, 31)
_OPEN, _OPEN_OK = (10, 40), (10, 41)
_CLOSE, _CLOSE_OK = (10, 50), (10, 51)


class Strange(OSError):
    """What answers is no server of this protocol, or ended in the middle of it."""


def refusal(address: tuple[str, int], user: str, password: str, vhost: str, seconds: float = 5) -> str:
    """Why the server does not let `user` into `vhost`, in its own words; "" when it does. Raises OSError."""
    with socket.create_connection(address, seconds) as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else two messages in a row wait 40 ms
        link.sendall(b"AMQP\x00\x00\x09\x01")
        _expect(link, _START)
        # Without this capability a refusal comes as a silent end, after seconds.
        # https://www.rabbitmq.com/docs/auth-notification
        capabilities = _short("authentication_failure_close") + b"t\x01"
        properties = _short("capabilities") + b"F" + _long(capabilities)
        answer = _long(b"\0" + user.encode() + b"\0" + password.encode())
        _send(link, _START_OK, _long(properties) + _short("PLAIN") + answer + _short("en_US"))
        method, arguments = _receive(link)
        if method == _TUNE:
            _send(link, _TUNE_OK, arguments[:8])  # what the server proposes
            _send(link, _OPEN, _short(vhost) + b"\0\0")
            method, arguments = _receive(link)
        if method == _OPEN_OK:
            _send(link, _CLOSE, struct.pack(">H", 200) + _short("") + b"\0\0\0\0")
            _expect(link, _CLOSE_OK)
            return ""
        if method != _CLOSE:
            raise Strange(f"the answer of the server is method {method}")
        _send(link, _CLOSE_OK, b"")
        return arguments[3 : 3 + arguments[2]].decode("utf-8", "replace")


def _short(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">B", len(data)) + data


def _long(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _send(link: socket.socket, method: tuple[int, int], arguments: bytes) -> None:
    payload = struct.pack(">HH", *method) + arguments
    link.sendall(struct.pack(">BHI", _METHOD, 0, len(payload)) + payload + bytes((_END,)))


def _expect(link: socket.socket, wanted: tuple[int, int]) -> None:
    method, _ = _receive(link)
    if method != wanted:
        raise Strange(f"the answer of the server is method {method}")


def _receive(link: socket.socket) -> tuple[tuple[int, int], bytes]:
    while True:
        kind, _, size = struct.unpack(">BHI", _bytes(link, 7))
        if size > 1 << 20:
            raise Strange("the answer of the server is no AMQP")
        payload = _bytes(link, size + 1)[:-1]
        if kind == _METHOD:  # and no heartbeat
            first, second = struct.unpack(">HH", payload[:4])
            return (first, second), payload[4:]


def _bytes(link: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        more = link.recv(count - len(found))
        if not more:
            raise Strange("the server closed the connection without a word")
        found += more
    return found
