"""Ports of the loopback: each belongs to the service that deploykit set up there, and to the apps that use it.

Any user of a machine may listen on a free port above 1023 and connect to any. So an app could wait for the moment in
which another's Redis restarts, take its port, and be sent its password. A table of our own in nftables lets packets
leave such a port only when the socket is of the right user (meta skuid, which is the listener's for the first answer:
nft(8)), and reach it only from those who have business there. Nothing of anybody else's rules is touched.
"""

from __future__ import annotations

import hashlib
import os
import pwd
from collections.abc import Iterator, Sequence
from pathlib import Path

from deploykit.agent.dataclass import dataclass
from deploykit.agent.process import remembered, run
from deploykit.agent.resource import Failed, NotYet, Render, Resource, State
from deploykit.agent.resources import REREAD, File, Package, Service, disk
from deploykit.agent.values import Facts, Host
from deploykit.recipes import rabbitmq

RULES = "/etc/deploykit/ports.nft"
UNIT = "deploykit-ports.service"

_NFT = "/usr/sbin/nft"
_TABLE = ("inet", "deploykit")


@dataclass(frozen=True)
class Guard:
    """One port: whose sockets may answer there, and who may connect ("" in `clients`: everybody, from anywhere)."""

    port: int
    servers: tuple[str, ...]
    clients: tuple[str, ...]


def guards(host: Host) -> tuple[Guard, ...]:
    """The ports that deploykit gives to what it sets up on a host; none with one app, which has no other to fear."""
    if len(host.apps) < 2:
        return ()
    found = [
        Guard(store.port, ("root", app.user), ("root", app.user))
        for app in host.apps
        for store in app.stores
        if store.port and store.kind in ("redis", "memcached")
    ]
    # The launcher listens as root; what is accepted there is the app's.
    found += [Guard(app.port, ("root", app.user), ("",)) for app in host.apps if app.port and not app.nginx]
    users = tuple(app.user for app in host.apps if any(store.kind == "rabbitmq" for store in app.stores))
    if users:
        own = ("root", "rabbitmq", "epmd")
        found += [Guard(port, own, (*own, *users) if port == rabbitmq.PORT else own) for port in rabbitmq.PORTS]
    return tuple(sorted(found, key=lambda guard: guard.port))


def recipe(host: Host, facts: Facts, render: Render) -> Iterator[Resource]:
    """The rules, now and at every boot; nothing where no port is used."""
    found = guards(host)
    if not found:
        return
    yield Package("nftables")
    yield Rules(path=RULES, guards=found)
    yield File(f"/etc/systemd/system/{UNIT}", render("ports/service.j2", rules=RULES), actions=(REREAD,))
    yield Service(UNIT)


@dataclass(frozen=True, kw_only=True)
class Rules(Resource):
    """The table of our own, as the kernel has it, and the file that it is loaded from."""

    path: str
    guards: tuple[Guard, ...]

    @property
    def key(self) -> str:
        return "rules of ports"

    def wanted(self) -> State:
        return {"ports": tuple(str(guard.port) for guard in self.guards), "loaded": True, "file": True}

    def observe(self) -> State | None:
        live = _live()
        if live is None:
            return None
        text, mark, count = self._text()
        try:
            kept = Path(self.path).read_text()
        except OSError:
            kept = ""
        ports = tuple(str(guard.port) for guard in self.guards if f"port {guard.port} " in live)
        return {"ports": ports, "loaded": live.count(mark) == count, "file": kept == text}

    def change(self, observed: State | None) -> None:
        text, _, _ = self._text()
        disk.write(self.path, text.encode(), 0, 0, 0o644)
        done = run((_NFT, "-f", self.path), check=False)
        if done.returncode != 0:
            raise Failed(
                "the kernel does not take nftables' rules, so ports of the loopback cannot be kept apart",
                done.stderr.strip(),
                "use sockets in place of `port` and RabbitMQ, or a machine whose kernel has nftables",
            )

    def remove(self) -> None:
        if _live() is not None:
            run((_NFT, "delete", "table", *_TABLE))
        Path(self.path).unlink(missing_ok=True)

    def _text(self) -> tuple[str, str, int]:
        """(the file, the comment that each of its rules has, how many rules they are)."""
        rules = []
        for guard in self.guards:
            servers, clients = _set(guard.servers), _set(guard.clients)
            rules.append(f"tcp sport {guard.port} meta skuid != {servers} drop")
            if "" not in guard.clients:
                rules.append(f"tcp dport {guard.port} oif lo meta skuid != {clients} reject with tcp reset")
        mark = hashlib.sha256("\n".join(rules).encode()).hexdigest()[:16]
        lines = "".join(f'\t\t{rule} comment "{mark}"\n' for rule in rules)
        head = "# Written by deploykit: see docs/services.md. Only this table is replaced.\n"
        table = " ".join(_TABLE)
        chain = "\tchain output {\n\t\ttype filter hook output priority 0; policy accept;\n"
        return (
            f"{head}table {table}\ndelete table {table}\ntable {table} {{\n{chain}{lines}\t}}\n}}\n",
            mark,
            len(rules),
        )


def _set(users: Sequence[str]) -> str:
    """Users as a set of their numbers: those that the host does not have, or not yet, have no sockets."""
    numbers = set()
    for user in users:
        try:
            numbers.add(pwd.getpwnam(user).pw_uid)
        except KeyError:
            continue
    return f"{{ {', '.join(map(str, sorted(numbers)))} }}"


@remembered
def _live() -> str | None:
    """Our table as the kernel has it; None when it has none. Raises NotYet."""
    if not os.path.exists(_NFT):
        raise NotYet("nftables is not installed")
    done = run((_NFT, "-n", "list", "table", *_TABLE), check=False)
    return done.stdout if done.returncode == 0 else None
