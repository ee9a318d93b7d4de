"""What a recipe is given: the checked configuration of one host as plain frozen values.

They live beside the agent because recipes travel to the host and may import nothing else.
Everything here is already validated and complete: no `None` that means "find out later" but where said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field

from deploykit.agent.dataclass import dataclass
from deploykit.agent.secret import HostSecret, Joined, Secret

#: A value of an app's environment: literal, secret of the user's, secret that only the host knows, or a text with such.
Value = str | Secret | HostSecret | Joined

#: What is replaced in the *literal* values of an environment (never in secrets): `${database.host}` by its value,
#: `$${` by `${`. The names are checked against `deploykit.config.references` before they come here.
REFERENCE = re.compile(r"\$\$\{|\$\{(?P<name>[^}]*)\}")

#: The same in commands, where `${HOME}` is the shell's: ours have a dot in them, which no variable's name has.
COMMAND_REFERENCE = re.compile(r"\$\{(?P<name>[a-z][a-z0-9_]*\.[a-z_]+)\}")


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
    extensions: tuple[str, ...] = ()  # of PostgreSQL, by name
    settings: tuple[tuple[str, str], ...] = ()  # of the PostgreSQL database, as it takes them
    connections: int = 0  # at most so many at once; 0: worked out


@dataclass(frozen=True)
class Redis:
    """One Redis instance of the app's own. Memory in MiB, 0: sized from the host's RAM. `port` 0: a socket only."""

    memory: int = 0
    port: int = 0


@dataclass(frozen=True)
class Service:
    """A cache or broker of the app's own. `kind` is "redis", "memcached" or "rabbitmq"; memory in MiB, 0: sized.

    `persistent`: Redis as a broker, kept on disk and never evicting. `port`: of the loopback, 0 is a socket only.
    """

    name: str
    kind: str
    memory: int = 0
    persistent: bool = False
    port: int = 0


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
    server: str = "gunicorn"  # "gunicorn", "uvicorn" or "daphne"
    args: tuple[str, ...] = ()
    start: int = 60  # until it answers


@dataclass(frozen=True)
class Process:
    """A further process. `command` may hold `${...}`; with `web` it is a server for `paths` and has no command.

    Times in seconds. `folder` is relative to the source, None is the folder of manage.py.
    """

    name: str
    command: str = ""
    count: int = 1
    folder: str | None = None
    once: bool = False
    signal: str = "TERM"
    stop: int = 60
    steady: int = 5
    paths: tuple[str, ...] = ()
    web: Web | None = None


@dataclass(frozen=True)
class Schedule:
    """A command by the clock. `at` is a calendar expression of systemd; `timeout` in seconds, 0 is none."""

    name: str
    command: str
    at: str
    catch_up: bool = False
    timeout: int = 0
    folder: str | None = None


#: The steps of a deploy at which commands of the user's run, in their order.
STEPS = (
    "after_checkout",
    "after_install",
    "before_collectstatic",
    "after_collectstatic",
    "before_migrate",
    "after_migrate",
    "first_deploy",
)


@dataclass(frozen=True)
class Build:
    """How a release is built. `hooks` are (step, command) pairs; None for collectstatic or migrate: it is not run."""

    hooks: tuple[tuple[str, str], ...] = ()
    collectstatic: tuple[str, ...] | None = ()
    migrate: tuple[str, ...] | None = ()
    persist: tuple[str, ...] = ()  # paths relative to the source; a folder's ends with "/"

    def commands(self, step: str) -> tuple[str, ...]:
        """The commands of one step, in order."""
        return tuple(command for name, command in self.hooks if name == step)


@dataclass(frozen=True)
class Check:
    """A question to a release. `json` are (keys with dots between, value as JSON) pairs. Timeout in seconds.

    `statuses` () is 200 to 399; `host` and `scheme` "" are the site's own. With `command` it is that, and no request.
    """

    path: str = ""
    host: str = ""
    scheme: str = ""
    statuses: tuple[int, ...] = ()
    text: str = ""
    json: tuple[tuple[str, str], ...] = ()
    asset: bool = False
    websocket: bool = False
    command: str = ""
    timeout: int = 10


@dataclass(frozen=True)
class ConfigFile:
    """A configuration file outside the release: its name, the project's template, whether Python may import it."""

    name: str
    template: str
    pythonpath: bool = False
    link: str = ""  # where it is to be found in the release, too: relative to the source


@dataclass(frozen=True)
class Location:
    """What nginx does at one URL path. `folders` are relative to the source; `max_body` in MiB, 0: as the site."""

    url: str
    folders: tuple[str, ...] = ()
    process: str = ""
    max_body: int = 0
    timeout: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    snippet: str = ""


def all_below(path: str, target: str) -> bool:
    """Whether a redirect is of all below its path, too: both end with "/". The front page alone may lead to a path."""
    return path.endswith("/") and target.endswith("/") and "?" not in target and (path != "/" or target[0] != "/")


@dataclass(frozen=True)
class Site:
    """More of an app's site: (name, value) headers, (path, target) redirects, (user, password) pairs."""

    locations: tuple[Location, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    redirects: tuple[tuple[str, str], ...] = ()
    users: tuple[tuple[str, Secret | HostSecret], ...] = ()
    proxies: tuple[str, ...] = ()
    snippet: str = ""


@dataclass(frozen=True)
class Python:
    """What the virtualenv is made from. `version` "" is the system's interpreter.

    `kind`: "requirements" (pip files), "pyproject" (its dependencies), "uv" (uv.lock), "poetry" (poetry.lock), "pipenv"
    (Pipfile.lock), "commands", "none". `files` are relative to the source (of a lock: what was locked, then the lock);
    `digest` is the SHA-256 of all that decides the virtualenv's contents.
    """

    version: str = ""
    kind: str = "none"
    files: tuple[str, ...] = ()
    digest: str = ""
    requires: str = ""  # requires-python of its pyproject.toml
    plain: bool = False  # it asks for nothing but versions from the default index (no option, URL, path or hash)
    packages: tuple[str, ...] = ()  # requirements beside those of the files
    constraints: tuple[str, ...] = ()  # files, relative to the source
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    index: str = ""
    extra_indexes: tuple[str, ...] = ()
    install: tuple[str, ...] = ()  # commands instead of all of that (kind "commands")
    local: bool = False  # it builds packages out of the source, in the release's code
    tied: bool = False  # it leads into the release's code (editable): no other release may have it
    hint: tuple[str, str] = ("", "")  # the file that names another Python, and which; "" is none


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
    command_timeout: int = 3600  # seconds for one command of a deploy
    services: tuple[Service, ...] = ()  # beside `redis`
    processes: tuple[Process, ...] = ()
    schedule: tuple[Schedule, ...] = ()
    build: Build = Build()
    checks: tuple[Check, ...] = ()
    files: tuple[ConfigFile, ...] = ()
    site: Site = Site()
    apt: tuple[str, ...] = ()

    @property
    def user(self) -> str:
        """The OS user that runs the app."""
        return self.name

    @property
    def home(self) -> str:
        """The app's folder on the host."""
        return f"/srv/{self.name}"

    @property
    def stores(self) -> tuple[Service, ...]:
        """Its caches and brokers: the cache named "redis", and its services."""
        if self.redis is None:
            return self.services
        return (Service("redis", "redis", self.redis.memory, port=self.redis.port), *self.services)


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
