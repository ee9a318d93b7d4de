"""Asking a web process on its own socket, or nginx, as a visitor would.

HTTP brings TLS and mail along, 15 ms of it: who needs it loads this when there is something to wait for anyway.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import secrets
import socket
import struct
import threading
from collections.abc import Iterator
from http.client import HTTPException as HTTPException

from deploykit.agent.dataclass import dataclass
from deploykit.agent.secret import Secret

_LIMIT = 60.0  # seconds, for who has none
#: What is read of a body, in bytes: enough for any page.
_LARGEST = 4 << 20
#: RFC 6455, 1.3: what a server adds to the key before it hashes it, to show that it speaks WebSocket.
_WEBSOCKET = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket. `peer` is the process that listens (SO_PEERCRED)."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path
        self.peer = 0

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
        credentials = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        self.peer = struct.unpack("3i", credentials)[0]


@dataclass(frozen=True)
class Front:
    """How this host's nginx is asked. Without `tls` it has none: "https" is asked for as a proxy in front of it does.

    `authorization`: the header by which it lets in, where it asks for a password.
    """

    tls: bool = False
    authorization: Secret | None = None

    def headers(self, scheme: str) -> dict[str, str]:
        """What a visitor sends."""
        found = {} if self.tls else {"X-Forwarded-Proto": scheme}
        return found if self.authorization is None else {**found, "Authorization": self.authorization.reveal()}

    def refuses(self, status: int) -> bool:
        """Whether an answer is nginx's own "who are you?": it has another password by now, and is there."""
        return status == 401 and self.authorization is not None

    def connection(self, host: str, scheme: str, timeout: float) -> http.client.HTTPConnection:
        """A connection to nginx. The certificate is not what is asked about, so it is not checked."""
        if self.tls and scheme == "https":
            return _Tls(host, timeout)
        return http.client.HTTPConnection("127.0.0.1", 80, timeout=timeout)


@dataclass(frozen=True)
class Answer:
    """What a web process said. `peer`: the pid of the process that listens."""

    status: int
    body: str
    peer: int


def ask(path: str, url: str, host: str, scheme: str, timeout: float) -> Answer:
    """One GET, as nginx would send it. Raises OSError or HTTPException when there is no answer."""
    connection = UnixConnection(path, timeout)
    headers = {"X-Forwarded-Proto": scheme, "X-Forwarded-For": "127.0.0.1"}
    status, body = _get(connection, url, host, headers)
    return Answer(status, body, connection.peer)


def ask_nginx(url: str, host: str, scheme: str, timeout: float, front: Front) -> Answer:
    """One GET as a visitor of this host's nginx."""
    status, body = _get(front.connection(host, scheme, timeout), url, host, front.headers(scheme))
    return Answer(status, body, 0)


def handshake(path: str, url: str, host: str, scheme: str, timeout: float, front: Front) -> int:
    """The status of a WebSocket's opening at the socket `path`, or through nginx when that is "".

    101 only when the answer proves that the other side speaks WebSocket. Raises OSError or HTTPException.
    """
    connection = UnixConnection(path, timeout) if path else front.connection(host, scheme, timeout)
    key = base64.b64encode(secrets.token_bytes(16)).decode()
    headers = {
        "Host": host,
        "Origin": f"{scheme}://{host}",  # what Channels' AllowedHostsOriginValidator looks at
        "User-Agent": "deploykit-health",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key,
        **({"X-Forwarded-Proto": scheme, "X-Forwarded-For": "127.0.0.1"} if path else front.headers(scheme)),
    }
    with _limited(connection):
        connection.request("GET", url, headers=headers)
        response = connection.getresponse()
        proof = base64.b64encode(hashlib.sha1((key + _WEBSOCKET).encode()).digest()).decode()
        if response.status == 101 and response.headers.get("Sec-WebSocket-Accept") != proof:
            raise HTTPException("it answers 101 without the proof of RFC 6455")
        return response.status


@contextlib.contextmanager
def _limited(connection: http.client.HTTPConnection) -> Iterator[None]:
    """Closes it after, and cuts it off when the whole answer takes thrice as long as one part of it may.

    A server that sends a byte now and then would else hold up the deploy for ever.
    """

    def cut() -> None:
        with contextlib.suppress(OSError, AttributeError):  # not connected, or closed meanwhile
            connection.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(3 * (connection.timeout or _LIMIT), cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        connection.close()


class _Tls(http.client.HTTPConnection):
    """TLS to 127.0.0.1, with the site's own name in the handshake."""

    def __init__(self, host: str, timeout: float) -> None:
        super().__init__("127.0.0.1", 443, timeout=timeout)
        self._name = host

    def connect(self) -> None:
        import ssl

        super().connect()
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self.sock = context.wrap_socket(self.sock, server_hostname=self._name)


def _get(connection: http.client.HTTPConnection, url: str, host: str, headers: dict[str, str]) -> tuple[int, str]:
    with _limited(connection):
        fixed = {"Host": host, "User-Agent": "deploykit-health", "Connection": "close"}
        connection.request("GET", url, headers={**fixed, **headers})
        response = connection.getresponse()
        return response.status, response.read(_LARGEST).decode("utf-8", "replace")
