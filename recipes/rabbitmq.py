"""RabbitMQ: the one server of Debian's package, on the loopback only; in it a user and a vhost for each app.

The node is rabbit@localhost, whatever the machine is called: its data goes by that name, and a new one starts empty.
"""

from __future__ import annotations

import binascii
import glob
import hashlib
import json
import os
import pwd
import re
import secrets
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from deploykit.agent import store
from deploykit.agent.dataclass import dataclass
from deploykit.agent.process import run
from deploykit.agent.resource import Failed, HostSecret, NotYet, Render, Resource, State
from deploykit.agent.resources import Directory, File, Package, SharedService, disk
from deploykit.agent.values import App, Facts, Host
from deploykit.recipes import amqp
from deploykit.recipes.sizing import sizes

ADDRESS, PORT = "127.0.0.1", 5672
PASSWORD = HostSecret("RABBITMQ_PASSWORD", make=40)

_NODE = "rabbit@localhost"
_CONTROL = "/usr/sbin/rabbitmqctl"
_SERVICE = "rabbitmq-server.service"
#: Clients; other nodes and rabbitmqctl; epmd, which tells those where a node is.
PORTS = (PORT, 25672, 4369)
_STARTED = "/run/deploykit-rabbitmq"  # the settings as they were when the server started
_DEFINITIONS = "/run/deploykit-rabbitmq.json"  # for a moment
_PATIENCE = 60  # seconds for one rabbitmqctl, which takes one or two
_MNESIA = "/var/lib/rabbitmq/mnesia"


def vhost(app: App) -> str:
    """The vhost of an app."""
    return app.name


@dataclass(frozen=True)
class Folder(Resource):
    """A folder that must be there before its package is, which then decides whose it is."""

    removable: ClassVar[bool] = False

    path: str

    @property
    def key(self) -> str:
        return f"folder {self.path}"

    def wanted(self) -> State:
        return {"exists": True}

    def observe(self) -> State | None:
        return {"exists": True} if os.path.isdir(self.path) else None

    def change(self, observed: State | None) -> None:
        Directory(self.path).change(None)


@dataclass(frozen=True)
class Setting(File):
    """A file that stays with the server: without it the next start would open the server to the network."""

    removable: ClassVar[bool] = False


@dataclass(frozen=True)
class Started(Resource):
    """What the running server was started with, and that nothing of it listens beyond the loopback.

    A resource and not an action of the files: so a server that started with the right values, as a new one does, is
    not restarted, which takes seconds and cuts off every worker.
    """

    removable: ClassVar[bool] = False

    settings: tuple[tuple[str, str], ...]

    @property
    def key(self) -> str:
        return "rabbitmq settings"

    def wanted(self) -> State:
        return {**dict(self.settings), "open to the network": ""}

    def observe(self) -> State | None:
        if not os.path.exists(_CONTROL):
            raise NotYet("RabbitMQ is not installed")
        try:
            with open(_STARTED, encoding="utf-8") as file:
                pairs = re.findall(r"^(\S+) = (.*)$", file.read(), re.MULTILINE)
        except FileNotFoundError:
            pairs = []
        return {**dict(pairs), "open to the network": ", ".join(map(str, _open()))}

    def consequences(self, observed: State | None) -> tuple[str, ...]:
        return ("restart RabbitMQ: for some seconds its apps have no broker",)

    def change(self, observed: State | None) -> None:
        run(("systemctl", "daemon-reload"))
        # epmd is started by the first who asks for it, with the address it has then
        run(("systemctl", "stop", _SERVICE, "epmd.service", "epmd.socket", "epmd@0.0.0.0.socket"), check=False)
        run(("systemctl", "start", _SERVICE))


def _open() -> list[int]:
    """Which of the ports somebody listens on at an address that is not the loopback's."""
    found = set()
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(path, encoding="ascii") as file:
                lines = [line.split() for line in file][1:]
        except FileNotFoundError:  # no IPv6
            continue
        for line in lines:
            address, _, port = line[1].partition(":")
            if line[3] == "0A" and int(port, 16) in PORTS and address not in _LOOPBACK:
                found.add(int(port, 16))
    return sorted(found)


#: 127.0.0.1, ::1 and ::ffff:127.0.0.1 as the kernel of a little-endian machine writes them (proc(5)).
_LOOPBACK = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}


@dataclass(frozen=True)
class Vhost(Resource):
    """An app's vhost, and its user, who may do everything there and nothing elsewhere. No plan removes them.

    Observed by logging in as that user: that costs milliseconds, where each call of rabbitmqctl starts an Erlang.
    """

    removable: ClassVar[bool] = False
    together: ClassVar[bool] = True

    name: str
    user: str

    @property
    def key(self) -> str:
        return f"rabbitmq vhost {self.name}"

    def wanted(self) -> State:
        return {"login": "accepted"}

    def observe(self) -> State | None:
        if not os.path.exists(_CONTROL):
            raise NotYet("RabbitMQ is not installed")
        password = store.look(self.app, PASSWORD)
        if password is None:
            return None
        return {"login": _refusal(self.user, password.reveal(), self.name) or "accepted"}

    def change(self, observed: State | None) -> None:
        type(self).change_together([self])

    @classmethod
    def change_together(cls, several: Sequence[Resource]) -> None:
        """One rabbitmqctl for all. It reads a file: not every version has a standard input for this."""
        definitions: dict[str, list[dict[str, Any]]] = {"users": [], "vhosts": [], "permissions": []}
        for each in several:
            if isinstance(each, Vhost):
                password = store.ensure(each.app, PASSWORD).reveal()
                definitions["users"].append({"name": each.user, "tags": "", **_hashed(password)})
                definitions["vhosts"].append({"name": each.name})
                everything = {"configure": ".*", "write": ".*", "read": ".*"}
                definitions["permissions"].append({"user": each.user, "vhost": each.name, **everything})
        account = pwd.getpwnam("rabbitmq")
        try:
            disk.write(_DEFINITIONS, json.dumps(definitions).encode(), account.pw_uid, account.pw_gid, 0o400)
            _control("import_definitions", _DEFINITIONS)
        finally:
            disk.unlink(_DEFINITIONS)
        # A server that was here before has the user that everybody knows; ours is never given it: see `early`.
        if "ACCESS_REFUSED" not in _refusal("guest", "guest", "/"):
            _control("delete_user", "guest")

    def erase(self) -> str:
        for command, name in (("delete_vhost", self.name), ("delete_user", self.user)):
            done = run((_CONTROL, "-q", "-n", _NODE, command, name), check=False, timeout=_PATIENCE)
            if done.returncode != 0 and "not exist" not in done.stderr:
                raise Failed(f"`rabbitmqctl {command} {name}` failed", done.stderr.strip())
        return ""


def _refusal(user: str, password: str, vhost: str) -> str:
    try:
        return amqp.refusal((ADDRESS, PORT), user, password, vhost)
    except OSError as error:
        raise NotYet(f"RabbitMQ does not answer: {error}") from None


def _hashed(password: str) -> dict[str, str]:
    """As RabbitMQ keeps passwords: https://www.rabbitmq.com/docs/passwords."""
    salt = secrets.token_bytes(4)
    digest = binascii.b2a_base64(salt + hashlib.sha256(salt + password.encode()).digest(), newline=False)
    return {"password_hash": digest.decode(), "hashing_algorithm": "rabbit_password_hashing_sha256"}


def _control(*words: str) -> None:
    run((_CONTROL, "-q", "-n", _NODE, *words), timeout=_PATIENCE)


@dataclass(frozen=True)
class Alone(Resource):
    """Nobody else's RabbitMQ is here: under our node's name it would come up empty. Looked at before any change."""

    removable: ClassVar[bool] = False

    @property
    def key(self) -> str:
        return "rabbitmq node"

    def wanted(self) -> State:
        return {"others": ""}

    def observe(self) -> State | None:
        nodes = {os.path.basename(path) for path in glob.glob(f"{_MNESIA}/rabbit@*") if os.path.isdir(path)}
        others = {node for node in nodes if not node.endswith("-plugins-expand")} - {_NODE}
        if others and _NODE not in nodes:
            raise Failed(
                f"a RabbitMQ with data of its own is on the host: {', '.join(sorted(others))}",
                f"Its data is in {_MNESIA}; deploykit's node is {_NODE}, and would start without it.",
                'Use that server by its URL, in [apps.NAME.env]: CELERY_BROKER_URL = { env = "..." }. Or remove it '
                "with its data, if nobody needs it: `apt-get purge rabbitmq-server`. Then deploy again.",
            )
        return {"others": ""}

    def change(self, observed: State | None) -> None:
        """There is nothing that could be changed."""


def early(host: Host, facts: Facts, render: Render) -> Iterator[Resource]:
    """What must be there before the package is, which starts the server at once, open to the network by default."""
    if not _apps(host):
        return
    yield Alone()
    yield Folder("/etc/rabbitmq")
    yield Setting("/etc/rabbitmq/rabbitmq-env.conf", render("rabbitmq/rabbitmq-env.conf.j2", node=_NODE))
    yield Setting("/etc/rabbitmq/rabbitmq.conf", render("rabbitmq/rabbitmq.conf.j2", settings=_settings(host, facts)))
    yield Setting("/etc/rabbitmq/definitions.json", render("rabbitmq/definitions.json.j2"))
    # Debian and later Ubuntus start epmd by the first of these sockets, earlier ones by the second.
    for socket in ("epmd.socket", "epmd@0.0.0.0.socket"):
        yield Directory(f"/etc/systemd/system/{socket}.d")
        yield Setting(f"/etc/systemd/system/{socket}.d/deploykit.conf", render("rabbitmq/epmd.conf.j2"))
    yield Directory(f"/etc/systemd/system/{_SERVICE}.d")
    yield Setting(
        f"/etc/systemd/system/{_SERVICE}.d/deploykit.conf", render("rabbitmq/service.conf.j2", started=_STARTED)
    )


def recipe(host: Host, facts: Facts, render: Render) -> Iterator[Resource]:
    """The server, and each app's user and vhost."""
    apps = _apps(host)
    if not apps:
        return
    yield Package("rabbitmq-server")
    yield SharedService(_SERVICE)
    yield Started(_settings(host, facts))
    for app in apps:
        yield Vhost(vhost(app), app.user, app=app.name)


def _apps(host: Host) -> list[App]:
    return [app for app in host.apps if any(store.kind == "rabbitmq" for store in app.stores)]


def _settings(host: Host, facts: Facts) -> tuple[tuple[str, str], ...]:
    return (
        ("listeners.tcp.local", f"{ADDRESS}:{PORT}"),
        ("vm_memory_high_watermark.absolute", f"{sizes(facts, host.apps).rabbitmq}MiB"),
        ("load_definitions", "/etc/rabbitmq/definitions.json"),
    )
