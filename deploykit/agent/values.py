"""What a recipe is given: the checked configuration of one host as plain frozen values.

They live beside the agent because recipes travel to the host and may import nothing else.
Everything here is already validated and complete: no `None` that means "find out later" but where said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from deploykit.agent.secret import HostSecret, Secret

#: A value of an app's environment: literal, secret of the user's, or secret that only the host knows.
Value = str | Secret | HostSecret

#: What is replaced in the *literal* values of an environment (never in secrets): `${database.host}` by its value,
#: `$${` by `${`. The names are checked against `deploykit.config.references` before they come here.
REFERENCE = re.compile(r"\$\$\{|\$\{(?P<name>[^}]*)\}")


@dataclass(frozen=True)
class Facts:
    """What a host says of itself. Memory in MiB, versions as text."""

    system: str  # os-release ID: "debian" or "ubuntu"
    version: str  # os-release VERSION_ID: "12", "24.04"
    codename: str  # "bookworm", "noble"
    architecture: str  # as `uname -m` says: "x86_64", "aarch64"
    memory: int  # MiB of RAM
    processors: int
    python: str  # version of /usr/bin/python3, "3.11.2"
    ipv6: bool = True  # whether the kernel knows IPv6: /proc/net/if_inet6 is there
    ufw: str | None = None  # the TCP ports that an active ufw has a rule for, "22,80,9000:9010"; None: it is not active


@dataclass(frozen=True)
class Database:
    """Where an app keeps its rows. `kind` is "postgres", "sqlite", "url" or "none"."""

    kind: str = "postgres"
    name: str = ""  # the app's name with "-" as "_" unless the user says otherwise; role and database
    url: Secret | HostSecret | None = None  # kind "url": somebody else's server


@dataclass(frozen=True)
class Redis:
    """One Redis instance of the app's own. Memory in MiB, 0: sized from the host's RAM."""

    memory: int = 0


@dataclass(frozen=True)
class Served:
    """A folder that nginx serves by itself: static or media. `url` begins and ends with "/"."""

    url: str


@dataclass(frozen=True)
class Web:
    """The web processes. `workers` 0: sized from the host. Times in seconds, `max_body` in MiB."""

    interface: str = "wsgi"  # "wsgi" or "asgi"
    application: str = ""  # "config.wsgi:application"
    workers: int = 0
    threads: int = 2
    timeout: int = 30
    max_body: int = 20


@dataclass(frozen=True)
class Python:
    """What the virtualenv is made from. `version` "" is the system's interpreter.

    `kind`: "requirements" (pip files), "pyproject" (its dependencies), "uv" (uv.lock), "none".
    `files` are relative to the source; `digest` is the SHA-256 of all that decides the virtualenv's contents.
    """

    version: str = ""
    kind: str = "none"
    files: tuple[str, ...] = ()
    digest: str = ""
    requires: str = ""  # requires-python of its pyproject.toml
    plain: bool = False  # it asks for nothing but versions from the default index (no option, URL, path or hash)


@dataclass(frozen=True)
class Tls:
    """A certificate that is on the host already (paths there)."""

    certificate: str
    key: str


@dataclass(frozen=True)
class Code:
    """The source of a release. `digest` names the tree's content, `root` is manage.py's folder in it ("": the top)."""

    digest: str
    root: str = ""
    label: str = ""  # what a person calls it: "main@3f2a91c", "3f2a91c + changes", "folder"


@dataclass(frozen=True)
class App:
    """One Django project, complete."""

    name: str
    domains: tuple[str, ...]
    code: Code
    settings: str  # DJANGO_SETTINGS_MODULE
    redirects: tuple[str, ...] = ()  # domains that redirect to the first of `domains`
    python: Python = Python()
    database: Database = Database()
    redis: Redis | None = None
    static: Served | None = Served("/static/")
    media: Served | None = Served("/media/")
    web: Web = Web()
    env: Mapping[str, Value] = field(default_factory=dict)  # the user's, `${...}` not yet replaced
    health: str = ""  # path that must answer 2xx or 3xx; "": "/" must answer, with anything but 400 and 5xx
    tls: Tls | None = None
    nginx: bool = True  # False: the tour's simplest server, gunicorn on `port` with WhiteNoise
    port: int = 0  # only with nginx = False
    keep: int = 5  # releases kept

    @property
    def user(self) -> str:
        """The OS user that runs the app."""
        return self.name

    @property
    def home(self) -> str:
        """The app's folder on the host."""
        return f"/srv/{self.name}"


@dataclass(frozen=True)
class Host:
    """One machine and what shall be on it."""

    name: str
    address: str = ""
    user: str = ""
    port: int = 0
    roles: tuple[str, ...] = ("web", "database", "cache")
    apps: tuple[App, ...] = ()
    recipes: tuple[str, ...] = ()  # further recipes of the project, by module name
