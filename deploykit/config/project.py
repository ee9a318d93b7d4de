"""What a checked deploykit.toml means, as plain frozen values: the controller's view, before sources are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path

from deploykit.agent.dataclass import dataclass
from deploykit.agent.secret import HostSecret, Secret
from deploykit.agent.values import Build, Check, ConfigFile, Process, Redis, Schedule, Service, Site, Tls, Web
from deploykit.config.models import FromCommand, FromEnv
from deploykit.errors import DeploykitError, Problem

#: A value whose text may still have to be fetched at the controller (see `resolve`).
Wanted = str | Secret | HostSecret | FromEnv | FromCommand

ROLES = ("web", "database", "cache")


@dataclass(frozen=True)
class VagrantEntry:
    """A machine of a Vagrantfile: the (absolute) folder, and the machine's name there."""

    folder: Path
    machine: str


@dataclass(frozen=True)
class HostEntry:
    """A host of the file, or an ssh target somebody typed (`listed` is false; `meant` is a listed name like it)."""

    name: str
    address: str
    user: str = ""
    port: int = 0
    roles: tuple[str, ...] = ROLES
    recipes: tuple[str, ...] = ()
    listed: bool = True
    meant: str = ""
    vagrant: VagrantEntry | None = None


@dataclass(frozen=True)
class Source:
    """Where an app's code is: a folder (absolute), or a git URL and a ref, or neither: installed packages are all."""

    folder: Path | None = None
    git: str = ""
    ref: str = ""
    inside: str = ""  # the folder of the repository that is meant, "" is all of it

    def __str__(self) -> str:
        return f"{self.git} at {self.ref}" if self.git else str(self.folder or "packages alone")


@dataclass(frozen=True)
class DatabaseEntry:
    """The database. `kind` is "postgres", "sqlite", "none" or "url"; `url` only with the last."""

    kind: str
    name: str = ""
    url: Wanted | None = None
    extensions: tuple[str, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    connections: int = 0


@dataclass(frozen=True)
class Installed:
    """What is installed beside the requirements, and from where; `commands` instead of all of it."""

    packages: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    index: str = ""
    extra_indexes: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    apt: tuple[str, ...] = ()


@dataclass(frozen=True)
class AppEntry:
    """An app as the file describes it; None means: find out from the source.

    `static` and `media`: None, False (nginx does not serve it), True, or a URL that begins and ends with "/".
    `redis` is None (none) or the cache. `users` (of the site) have passwords that may still have to be fetched.
    """

    name: str
    source: Source
    domains: tuple[str, ...]
    redirects: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    root: str | None = None
    python: str = ""
    requirements: tuple[str, ...] | None = None
    settings: str | None = None
    wsgi: str | None = None
    asgi: str | None = None
    database: DatabaseEntry = DatabaseEntry("postgres")
    redis: Redis | None = None
    static: str | bool | None = None
    media: str | bool | None = None
    web: Web = field(default_factory=Web)
    env: Mapping[str, Wanted] = field(default_factory=dict)
    health: str = ""
    exclude: tuple[str, ...] = ()
    nginx: bool = True
    port: int = 0
    keep: int = 5
    command_timeout: int = 3600
    tls: Tls | None = None
    installed: Installed = Installed()
    services: tuple[Service, ...] = ()
    processes: tuple[Process, ...] = ()
    schedule: tuple[Schedule, ...] = ()
    build: Build = field(default_factory=Build)
    checks: tuple[Check, ...] = ()
    files: tuple[ConfigFile, ...] = ()
    site: Site = field(default_factory=Site)
    users: Mapping[str, Wanted] = field(default_factory=dict)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The names of the host's secrets that are asked for in its tables."""
        wanted = (*self.env.values(), self.database.url, *self.users.values())
        return tuple(dict.fromkeys(each.name for each in wanted if isinstance(each, HostSecret)))

    @property
    def invented(self) -> tuple[str, ...]:
        """Those of them that the host invents when nobody has set them."""
        return tuple(
            dict.fromkeys(each.name for each in self.env.values() if isinstance(each, HostSecret) and each.make)
        )


@dataclass(frozen=True)
class Project:
    """The folder of deploykit.toml and what is in that file. `warnings` are no mistakes, but worth showing."""

    folder: Path
    hosts: tuple[HostEntry, ...] = ()
    apps: tuple[AppEntry, ...] = ()
    warnings: tuple[Problem, ...] = ()
    file: Path = Path("deploykit.toml")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the apps, in the file's order."""
        return tuple(app.name for app in self.apps)

    def host(self, name: str) -> HostEntry:
        """The host of that name. Raises DeploykitError that lists the hosts."""
        for entry in self.hosts:
            if entry.name == name:
                return entry
        raise _unknown("host", name, [entry.name for entry in self.hosts], self.file)

    def app(self, name: str) -> AppEntry:
        """The app of that name. Raises DeploykitError that lists the apps."""
        for entry in self.apps:
            if entry.name == name:
                return entry
        raise _unknown("app", name, list(self.names), self.file)

    def apps_of(self, entry: HostEntry) -> tuple[AppEntry, ...]:
        """The apps that run on a host: pinned to it by `hosts`, or pinned to none if the host has the role web."""
        return tuple(app for app in self.apps if (entry.name in app.hosts if app.hosts else "web" in entry.roles))


def _unknown(kind: str, name: str, known: list[str], file: Path) -> DeploykitError:
    from deploykit.config.check import nearest

    meant = nearest(name, known)
    listed = ", ".join(known) or "none yet"
    todo = f"did you mean: {meant}\n" if meant else ""
    return DeploykitError(f'there is no {kind} "{name}"', str(file), f"{todo}{kind}s in the file: {listed}")
