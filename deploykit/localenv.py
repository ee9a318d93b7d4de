"""The environment of an app on the developer's own machine: every name it has on a host, with a value from here."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import re
import secrets
import socket
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path

from deploykit.agent.configfile import ConfigurationFile
from deploykit.agent.dataclass import dataclass
from deploykit.agent.deployment import Deployment, Venv
from deploykit.agent.envfile import EnvFile
from deploykit.agent.secret import HostSecret, Joined, Quoted, Secret, quote
from deploykit.agent.values import REFERENCE, App, Build, Database, Facts, Host, Service, Site, Value
from deploykit.config import complete, resolve
from deploykit.config.models import FromEnv
from deploykit.config.project import AppEntry, DatabaseEntry, HostEntry, Project, Wanted
from deploykit.detect import Detected, Tree
from deploykit.errors import DeploykitError
from deploykit.manifest import build

#: Asks a person for a value that is not shown. Raises DeploykitError where nobody can be asked.
Ask = Callable[[str], str]

HERE = ("localhost", "127.0.0.1", "[::1]")
_ALPHABET = string.ascii_letters + string.digits + "-_"
#: What belongs to a host's users and folders, or is this machine's own to say.
_OF_HOSTS = re.compile(
    r"HOME|USER|LOGNAME|LANG|PATH|VIRTUAL_ENV|DJANGO_SETTINGS_MODULE|DEPLOYKIT_\w+|PG(?:HOST|USER|DATABASE)"
)
_DEBUG = re.compile(r"(?:[A-Z0-9]+_)?DEBUG")
#: Any host would do: nothing of it is made, only the app's environment is read out of what would be.
_FACTS = Facts("debian", "12", "bookworm", "x86_64", 1024, 1, platform.python_version())


@dataclasses.dataclass
class Store:
    """The values that only this machine knows, by name: `secrets.json`, readable by its owner alone."""

    file: Path
    ask: Ask
    values: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.values = json.loads(self.file.read_text())

    def get(self, name: str, about: str, make: int = 0) -> str:
        """The value; made when it may be, asked for when not."""
        if name not in self.values:
            self.values[name] = (
                "".join(secrets.choice(_ALPHABET) for _ in range(make)) if make else self._asked(name, about)
            )
            _write(self.file, json.dumps(self.values, indent=2))
        return self.values[name]

    def _asked(self, name: str, about: str) -> str:
        try:
            return self.ask(f"{name} for this machine ({about})")
        except DeploykitError:
            todo = f"type it in a terminal, or write it into {self.file}"
            raise DeploykitError(f"{name} has no value on this machine", about, todo) from None


@dataclass(frozen=True)
class Local:
    """What runs here: the app as it is understood, its variables, and what is worth knowing."""

    app: App
    variables: Mapping[str, str]
    notes: tuple[str, ...]
    venv: Venv


def environment(
    project: Project,
    entry: AppEntry,
    tree: Tree,
    detected: Detected,
    folder: Path,
    store: Store,
    port: int,
    database: str,
) -> Local:
    """The app's variables here. `database` is a URL, "" is SQLite in `folder`.

    Raises DeploykitError for a value that nobody has.
    """
    notes: list[str] = []
    entry = replace(entry, hosts=(), users={}, database=_database(entry, database), env=_asked(entry))
    alone = resolve(replace(project, apps=(entry,)))
    here = HostEntry("this machine", "localhost", listed=False)
    app = complete(alone, here, {entry.name: tree}, look=lambda *_: detected).apps[0]
    known = dict(_services(app.stores, notes))
    app = replace(
        app, redis=None, services=(), processes=(), schedule=(), build=Build(), checks=(), site=Site(),
        health="", tls=None, redirects=(*app.redirects, *HERE), env=_env(app, known, notes),
    )  # fmt: skip
    if entry.build.hooks:
        notes.append("its hooks are not run here: " + "; ".join(dict.fromkeys(each for _, each in entry.build.hooks)))
    deployment = _deployment(app, project, notes)
    (file,) = (each for each in deployment.files("a") if isinstance(each, EnvFile))
    moves = (
        (f"{deployment.folder}/static", f"{folder}/static"),
        (str(deployment.code), str(tree.folder / detected.root) if tree.folder else ""),
        (f"{deployment.home}/media", f"{folder}/media"),
        (f"{deployment.home}/data", f"{folder}/data"),
        (f"/etc/deploykit/{app.name}.a.d", f"{folder}/files"),
        (str(deployment.home), str(folder)),
    )
    found = {
        name: _moved(_plain(value, name, store), moves)
        for name, value in file.variables
        if not _OF_HOSTS.fullmatch(name) or name in app.env
    }
    for each in deployment.files("a"):
        if isinstance(each, ConfigurationFile):
            made = folder / "files" / Path(each.path).name
            _write(made, _moved(_plain(each.content, made.name, store), moves))
            if each.link and tree.folder:
                notes += _linked(tree.folder, each.link, made, ours=bool(entry.source.git))
    if "CSRF_TRUSTED_ORIGINS" not in app.env:
        origins = [found["CSRF_TRUSTED_ORIGINS"], *(f"http://{name}:{port}" for name in HERE)]
        found["CSRF_TRUSTED_ORIGINS"] = ",".join(origins)
    found |= {name: value for name, value in _named(known).items() if name not in found}
    for name in detected.env:
        if _DEBUG.fullmatch(name):
            found[name] = detected.truths.get(name, "1")
    return Local(app, found, tuple(notes), deployment.venv)


def _deployment(app: App, project: Project, notes: list[str]) -> Deployment:
    """The app as a host would have it; without its configuration files when they want what is not here."""
    try:
        return build(Host("this machine", apps=(app,)), _FACTS, project.folder).deployments[0]
    except DeploykitError as error:
        if not app.files:
            raise
        notes.append(f"{', '.join(each.name for each in app.files)} cannot be made here: {error.what}")
        return _deployment(replace(app, files=()), project, notes)


def _linked(source: Path, path: str, file: Path, *, ours: bool) -> Iterator[str]:
    """A link in the source where it is a copy of `ours`. In the developer's own folder nothing is put: says so."""
    place = source / path
    if place.is_symlink() and os.readlink(place) == str(file):
        return
    if ours:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.symlink_to(file)
    elif os.path.lexists(place):
        yield f"{path} of your source is used, and not {file.name}"
    else:
        yield f"{path} is not in your source: ln -s {file} {place}"


def _write(file: Path, text: str) -> None:
    """A file that only its owner reads: secrets may be in it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as handle:
        handle.write(text)
    fresh.replace(file)


def _database(entry: AppEntry, url: str) -> DatabaseEntry:
    if entry.database.kind == "none":
        return entry.database
    return DatabaseEntry("url", url=Secret(url)) if url else DatabaseEntry("sqlite")


def _asked(entry: AppEntry) -> dict[str, Wanted]:
    """The app's variables; those of the developer's own environment that are not there are asked for, as secrets."""
    found: dict[str, Wanted] = {}
    for name, value in entry.env.items():
        missing = isinstance(value, FromEnv) and value.env not in os.environ
        found[name] = HostSecret(name) if missing else value
    return found


def _env(app: App, known: Mapping[str, str], notes: list[str]) -> dict[str, Value]:
    """The user's own variables, with what they say of caches, brokers and the database replaced by what is here."""
    gone = {f"{store.name}." for store in app.stores}
    found: dict[str, Value] = {}
    for name, value in app.env.items():
        if not isinstance(value, str):
            found[name] = value
            continue
        text = REFERENCE.sub(lambda each: known.get(each["name"] or "", each[0]), value)
        left = [each["name"] for each in REFERENCE.finditer(text) if each["name"]]
        lacks = [
            each for each in left
            if each.startswith(tuple(gone)) or (each.startswith("database.") and not _has(app.database, each))
        ]  # fmt: skip
        if lacks:
            notes.append(f"{name} is not set: there is no ${{{lacks[0]}}} on this machine")
        else:
            found[name] = text
    return found


def _has(database: Database, name: str) -> bool:
    if database.kind == "none":
        return False
    return database.kind != "sqlite" or name in ("database.url", "database.name")


def _plain(value: Value | Quoted, name: str, store: Store) -> str:
    if isinstance(value, Quoted):
        return quote(value.how, _plain(value.value, name, store))
    if isinstance(value, Joined):
        return "".join(_plain(each, name, store) for each in value.parts)
    if isinstance(value, HostSecret):
        return store.get(value.name, f"for {name}" if value.name != name else "a secret of the app's", value.make)
    return value.reveal() if isinstance(value, Secret) else value


def _moved(text: str, moves: Sequence[tuple[str, str]]) -> str:
    for host, here in moves:
        text = re.sub(re.escape(host) + r"(?=/|$|[:,;])", lambda _, there=here: there, text)  # type: ignore[misc]
    return text


# -- services of this machine ------------------------------------------------------------------------------------------

_PORTS = {"redis": 6379, "memcached": 11211, "rabbitmq": 5672}
_GREETING = {
    "redis": (b"PING\r\n", b"+PONG"),
    "memcached": (b"version\r\n", b"VERSION"),
    "rabbitmq": (b"AMQP\x00\x00\x09\x01", b"\x01"),  # the first frame is of the kind "method": AMQP 0-9-1, 2.2.4
}


def _services(stores: Sequence[Service], notes: list[str]) -> Iterator[tuple[str, str]]:
    """(reference, value) for those caches and brokers that answer here, on the ports that all the world knows."""
    for number, store in enumerate(stores):
        port = _PORTS[store.kind]
        place = f"127.0.0.1:{port}"
        if not answers(store.kind, port):
            notes.append(f"no {store.kind} answers on {place}: {store.name.upper()}_URL is not set")
            continue
        url = {"redis": f"redis://{place}/{number}", "memcached": f"pymemcache://{place}",
               "rabbitmq": f"amqp://guest:guest@{place}//"}[store.kind]  # fmt: skip
        parts = {"url": url, "host": "127.0.0.1", "port": str(port), "location": place, "password": ""}
        parts |= {"celery": url} if store.kind != "memcached" else {}
        parts |= {"user": "guest", "password": "guest", "vhost": "/"} if store.kind == "rabbitmq" else {}
        yield from ((f"{store.name}.{part}", value) for part, value in parts.items())


def _named(known: Mapping[str, str]) -> dict[str, str]:
    """The variables that a host sets by itself for what it has."""
    found = {
        f"{name.removesuffix('.url').upper()}_URL": value for name, value in known.items() if name.endswith(".url")
    }
    return found | ({"CELERY_BROKER_URL": known["broker.celery"]} if "broker.celery" in known else {})


def answers(kind: str, port: int) -> bool:
    """Whether a server of that kind answers on this machine, and lets us in."""
    hello, answer = _GREETING[kind]
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as peer:
            peer.sendall(hello)
            return peer.recv(64).startswith(answer)
    except OSError:
        return False
