"""SSH: the only module that knows fabric and paramiko.

A transport has one method, `exec`. What the project needs beyond Fabric's `Connection`: host keys that are never
accepted in silence, errors that say what to do, and no 45 ms of Nagle's algorithm before each command.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from deploykit.agent.dataclass import dataclass
from deploykit.channel import ASK, SILENCE, Channel, Exchange
from deploykit.errors import DeploykitError

if TYPE_CHECKING:
    import paramiko
    from fabric import Connection

CONNECT_TIMEOUT = 15  # seconds
START_TIMEOUT = 60  # seconds until a command has begun
_LOST_CONNECTION = 0x80  # TCP_RXT_CONNDROPTIME of macOS: <netinet/tcp.h>


@dataclass(frozen=True)
class Target:
    """Where to go. Empty fields are ssh's to say (~/.ssh/config). `identity` and `host_key` are a sandbox's.

    `ssh_config` is text as in ~/.ssh/config, and stands in its place: what `vagrant ssh-config` says of the host
    `address`, the only one in it.
    """

    name: str
    address: str
    user: str = ""
    port: int = 0
    identity: Path | None = None
    host_key: str = ""
    ssh_config: str = ""


class Transport(Protocol):
    """A connection to a host. `user` is who logs in there."""

    user: str

    def exec(self, command: str) -> Exchange:
        """Starts a command; its words are the shell's, so they hold no values from outside."""


#: Asked about an unknown host key: (host, key type, fingerprint) -> whether it is right.
Confirm = Callable[[str, str, str], bool]


class Ssh:
    """A transport over one SSH connection. `connections` and `execs` count what was used."""

    def __init__(self, target: Target, confirm: Confirm) -> None:
        self.target = target
        self.connections = 0
        self.execs = 0
        self._connection = _connection(target, confirm)
        self.user = str(self._connection.user)

    def open(self) -> None:
        """Connects. Raises DeploykitError."""
        with _in_words(self.target, self._connection):
            self._connection.open()
        self.connections += 1

    def close(self) -> None:
        """Hangs up; what runs on the host goes on."""
        self._connection.close()

    def exec(self, command: str) -> Exchange:
        """Starts a command in a channel of its own."""
        with _in_words(self.target, self._connection), self._soon():
            channel = self._connection.create_session()
            channel.exec_command(command)
        self.execs += 1
        return Channel(channel)

    @contextlib.contextmanager
    def _soon(self) -> Iterator[None]:
        """Hangs up when what is done in this context does not end: paramiko itself waits for an hour, or for ever."""
        late = threading.Timer(START_TIMEOUT, self._connection.transport.close)
        late.daemon = True
        late.start()
        try:
            yield
        except Exception:
            if late.finished.is_set():
                raise TimeoutError from None
            raise
        finally:
            late.cancel()

    def join(self, command: str, *, pty: bool, first: bytes = b"", interrupt: Callable[[], None] = lambda: None) -> int:
        """Runs a command with our own standard streams, on a terminal there with `pty`; its exit status.

        `first` is sent before standard input; `interrupt` is called at Ctrl-C where no terminal there hears it.
        Raises DeploykitError when the connection was lost.
        """
        from deploykit import terminal

        with _in_words(self.target, self._connection), self._soon():
            channel = self._connection.create_session()
            if pty:
                channel.get_pty(os.environ.get("TERM") or "dumb", *terminal.size())
            channel.exec_command(command)
        self.execs += 1
        status = terminal.join(channel, pty=pty, first=first, interrupt=interrupt)
        if status == -1:
            raise DeploykitError("the connection was lost", f"host {self.target.name}", "what ran there may go on")
        return status


def _connection(target: Target, confirm: Confirm) -> Connection:
    import logging

    from fabric import Config, Connection

    # Without a handler, Python shows what paramiko logs, tracebacks and all; our errors say it in words.
    logging.getLogger("paramiko").addHandler(logging.NullHandler())
    keywords: dict[str, Any] = {"compress": False, "banner_timeout": CONNECT_TIMEOUT, "auth_timeout": 60}
    if target.identity:
        keywords |= {"key_filename": str(target.identity), "look_for_keys": False, "allow_agent": False}
    said = None
    if target.ssh_config:
        from paramiko.config import SSHConfig

        keywords |= {"look_for_keys": False, "allow_agent": False}  # the text names the key
        said = SSHConfig.from_text(target.ssh_config)
    connection = Connection(
        target.address,
        user=target.user or None,
        port=target.port or None,
        config=Config(ssh_config=said),
        connect_kwargs=keywords,
        connect_timeout=CONNECT_TIMEOUT,
    )
    step: Connection | str | None = connection
    while step is not None and not isinstance(step, str):  # every jump on the way, too
        step.connect_kwargs["transport_factory"] = _prompt
        _know_hosts(step, target, confirm)
        step = step.gateway
    return connection


def _prompt(sock: Any, **options: Any) -> paramiko.Transport:
    """A transport that sends at once: Nagle's algorithm would hold up the login, and each command, by 40 ms.

    It says something from time to time, and what is not received ends the connection: TCP alone would try for a
    quarter of an hour, and when nothing is sent, never find out.
    """
    import paramiko

    if isinstance(sock, socket.socket):  # a jump is a channel of its own connection
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE * 1000)
            elif sys.platform == "darwin":
                sock.setsockopt(socket.IPPROTO_TCP, _LOST_CONNECTION, SILENCE)
    transport = paramiko.Transport(sock, **options)
    transport.set_keepalive(ASK)
    return transport


def _know_hosts(connection: Connection, target: Target, confirm: Confirm) -> None:
    import paramiko

    client = connection.client
    if target.ssh_config and connection.ssh_config.get("stricthostkeychecking") == "no":
        # As Vagrant itself does, unless its `verify_host_key` says otherwise: a machine made anew has a new key.
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())  # for this connection: nothing is written
        return
    if target.host_key:
        kind, data = target.host_key.split()[:2]
        client.get_host_keys().add(_known_name(connection), kind, _key(kind, data))
    else:
        client.load_system_host_keys()
        with contextlib.suppress(OSError):
            client.load_system_host_keys("/etc/ssh/ssh_known_hosts")
    client.set_missing_host_key_policy(_policy(confirm))


def _known_name(connection: Connection) -> str:
    return str(connection.host) if connection.port == 22 else f"[{connection.host}]:{connection.port}"


def _key(kind: str, data: str) -> paramiko.PKey:
    import base64

    import paramiko

    return paramiko.PKey.from_type_string(kind, base64.b64decode(data))


def _policy(confirm: Confirm) -> paramiko.MissingHostKeyPolicy:
    import base64
    import hashlib

    import paramiko

    class Ask(paramiko.MissingHostKeyPolicy):
        """Shows the key and asks; what is confirmed goes into ~/.ssh/known_hosts, as ssh itself would do."""

        def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
            digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
            if not confirm(hostname, key.get_name(), f"SHA256:{digest}"):
                name, _, port = hostname.removeprefix("[").partition("]:")
                by_hand = f"ssh -p {port} {name}" if port else f"ssh {name}"
                raise DeploykitError(
                    f"the host key of {hostname} is not known: {key.get_name()} SHA256:{digest}",
                    hostname,
                    f"compare it with what your provider shows, then connect once with: {by_hand}",
                )
            file = Path.home() / ".ssh" / "known_hosts"
            file.parent.mkdir(mode=0o700, exist_ok=True)
            with open(file, "a", encoding="ascii") as known:
                known.write(f"{hostname} {key.get_name()} {key.get_base64()}\n")

    return Ask()


@contextlib.contextmanager
def _in_words(target: Target, connection: Connection) -> Iterator[None]:
    """What SSH's libraries raise, as what happened, where, and what to do."""
    import paramiko

    where = f"host {target.name}"
    place = f"{connection.user}@{connection.host}:{connection.port}"
    by_hand = f"ssh {connection.user}@{connection.host}" + (f" -p {connection.port}" if connection.port != 22 else "")
    if target.ssh_config:
        by_hand = f"vagrant ssh {target.address}"
    try:
        yield
    except paramiko.BadHostKeyException as error:
        raise DeploykitError(
            f"{error.hostname} shows another host key than the one known: somebody may be in between",
            where,
            f"if the machine was made anew, forget the old key with: ssh-keygen -R '{error.hostname}'",
        ) from None
    except paramiko.PasswordRequiredException:
        raise DeploykitError(
            f"the private key for {place} is encrypted", where, "unlock it once with: ssh-add"
        ) from None
    except paramiko.AuthenticationException:
        raise DeploykitError(f"{place} accepts none of your keys", where, f"make this work first: {by_hand}") from None
    except socket.gaierror:
        raise DeploykitError(
            f"there is no machine named {connection.host}", where, "correct `address`, or the name after --host"
        ) from None
    except (TimeoutError, paramiko.ssh_exception.NoValidConnectionsError, OSError, EOFError) as error:
        reason = "it does not answer" if isinstance(error, TimeoutError) else _reason(error)
        raise DeploykitError(
            f"{place} cannot be reached: {reason}",
            where,
            "is it on, is the address right, does a firewall stand between?",
        ) from None
    except paramiko.SSHException as error:
        if isinstance(error.__cause__, DeploykitError):
            raise error.__cause__ from None
        raise DeploykitError(f"{place} does not speak SSH with us: {error}", where, f"does `{by_hand}` work?") from None


def _reason(error: BaseException) -> str:
    inner = getattr(error, "errors", None)
    if inner:
        error = next(iter(inner.values()))
    return str(getattr(error, "strerror", None) or error or "the connection was closed").lower()
