"""What may stand in deploykit.toml: every table as a frozen dataclass, every key described once.

The reader (`check`), the JSON schema (`schema`) and docs/reference.md are all made from these classes. They are
dataclasses and not pydantic models because each command pays for its imports: pydantic costs 0.1 s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from deploykit.agent.dataclass import dataclass
from deploykit.config.keys import key
from deploykit.config.parts import (
    CheckTable,
    DatabaseTable,
    FileTable,
    FromCommand,
    FromEnv,
    FromHost,
    Git,
    HooksTable,
    LocationTable,
    NginxTable,
    ProcessTable,
    RedisTable,
    ScheduleTable,
    ServiceTable,
    TlsTable,
    WebTable,
)

__all__ = [
    "AppTable",
    "CheckTable",
    "DatabaseTable",
    "Document",
    "FileTable",
    "FromCommand",
    "FromEnv",
    "FromHost",
    "Git",
    "HooksTable",
    "HostTable",
    "LocationTable",
    "NginxTable",
    "ProcessTable",
    "RedisTable",
    "ScheduleTable",
    "ServiceTable",
    "TlsTable",
    "VagrantTable",
    "WebTable",
    "key",
]

Role = Literal["web", "database", "cache"]


@dataclass(frozen=True)
class VagrantTable:
    """A Vagrant machine that has another name than the host."""

    folder: str = key("The folder of the Vagrantfile, relative to deploykit.toml.", "a folder", example='"vagrant"')
    machine: str = key(
        "The machine's name in the Vagrantfile; one that defines no machines has the machine default.",
        "a machine's name",
        example='"default"',
    )


@dataclass(frozen=True)
class HostTable:
    """A machine that is reached over SSH."""

    address: str = key(
        "Address or name, as `ssh` takes it. Without it: the table's name, so an alias of ~/.ssh/config works.",
        "an IP address, a host name, or an alias of ~/.ssh/config",
        "",
        example='"203.0.113.7"',
    )
    user: str = key(
        "Login user: root, or one who may sudo. Without it: what ssh says.", "a user's name", "", example='"root"'
    )
    port: int = key(
        "Port of sshd. Without it: what ssh says.", "a number from 1 to 65535", 0, ge=1, le=65535, example="22"
    )
    vagrant: str | VagrantTable = key(
        "The folder of a Vagrantfile, relative to deploykit.toml: the host is its machine of this name, and "
        "`vagrant ssh-config` says each time how to reach it. Instead of address and port.",
        'a folder such as "vagrant", or { folder = "vagrant", machine = "default" }',
        "",
        example='"vagrant"',
    )
    roles: tuple[Role, ...] = key(
        "What the machine is for.",
        'a list of "web", "database", "cache"',
        ("web", "database", "cache"),
        example='["web", "database", "cache"]',
    )
    recipes: tuple[str, ...] = key(
        "Further recipes for this host: module names in the project's recipes/ folder.",
        "a list of module names",
        (),
        example='["firewall"]',
    )


@dataclass(frozen=True, kw_only=True)
class AppTable:
    """One Django project."""

    source: str | Git | None = key(
        "Where the code is: a folder (relative to deploykit.toml), a git URL, or a table with git and ref. Not needed "
        "when all of the project is in `packages` (or put there by `install`) and `settings` names its settings.",
        'a folder such as "../blog", a git URL, or { git = "https://...", ref = "main" }',
        None,
        example='"../blog"',
    )
    domains: tuple[str, ...] = key(
        "Domains the app is served on.",
        'a list such as ["blog.example"]; "*.blog.example" is allowed',
        example='["blog.example"]',
    )
    redirects: tuple[str, ...] = key(
        "Domains that are answered with a redirect (301) to the first of `domains`.",
        'a list such as ["www.blog.example"]',
        (),
        example='["www.blog.example"]',
    )
    hosts: tuple[str, ...] = key(
        "Hosts the app runs on. Without it: every host with the role web.",
        "a list of names of [hosts.*]",
        (),
        example='["web1"]',
    )
    root: str | None = key(
        "The folder of manage.py inside the source, and the working folder of all that runs. Found by itself when not "
        "given; without a manage.py (then `settings` must be given): the source's top.",
        'a folder inside the source, such as "." or "backend"',
        None,
        example='"backend"',
    )
    python: str = key(
        "Python version. Without it: the host's own python3.",
        'a version in quotes, such as "3.12"',
        "",
        example='"3.12"',
        pattern=r"^3\.\d{1,2}(\.\d{1,2})?$",
    )
    requirements: str | tuple[str, ...] | None = key(
        "What to install, relative to the source: requirements files, pyproject.toml, uv.lock, poetry.lock or "
        "Pipfile.lock. Found by itself.",
        'a file such as "requirements.txt", "pyproject.toml" or "uv.lock", or a list of requirements files',
        None,
        example='"requirements.txt"',
    )
    packages: tuple[str, ...] = key(
        'Further packages, beside what the requirements say; "." or "-e ." is the source itself as a package.',
        "a list of requirements",
        (),
        example='["sentry-sdk", "psycopg[binary]"]',
    )
    constraints: tuple[str, ...] = key(
        "Constraints files, relative to the source, for all that is resolved.",
        "a list of files",
        (),
        example='["constraints.txt"]',
    )
    extras: tuple[str, ...] = key(
        "Extras of pyproject.toml, with a lock file or without.", "a list of names", (), example='["production"]'
    )
    groups: tuple[str, ...] = key(
        "Dependency groups of pyproject.toml (PEP 735), Poetry's groups, or a Pipfile's categories.",
        "a list of names",
        (),
        example='["production"]',
    )
    index: str = key(
        "The package index, instead of PyPI and of what the requirements say. One with a password: UV_DEFAULT_INDEX "
        "in `env`.",
        "a URL",
        "",
        example='"https://pypi.example/simple/"',
    )
    extra_indexes: tuple[str, ...] = key("Package indexes asked before that one.", "a list of URLs", ())
    install: str | tuple[str, ...] = key(
        "Commands that fill the virtualenv, instead of requirements, run by `sh -ec` in the release's code; the "
        "virtualenv is active, uv and pip are there.",
        "a command or a list of them",
        (),
        example='["uv pip install -r deps.txt"]',
    )
    apt: tuple[str, ...] = key(
        "Packages of the system that the app needs, to be built or to run: libraries, compilers, Node.",
        "a list of package names",
        (),
        example='["libmagic1", "npm"]',
    )
    settings: str | None = key(
        "The settings module. Found by itself.",
        'a module such as "config.settings"',
        None,
        example='"config.settings.production"',
    )
    wsgi: str | None = key(
        "The WSGI application. Found by itself; only one of wsgi and asgi.",
        'a module and a name, such as "config.wsgi:application"',
        None,
        example='"config.wsgi:application"',
    )
    asgi: str | None = key(
        "The ASGI application, served by gunicorn with uvicorn's worker.",
        'a module and a name, such as "config.asgi:application"',
        None,
        example='"config.asgi:application"',
    )
    database: str | FromHost | FromEnv | FromCommand | DatabaseTable = key(
        "The database: postgres and sqlite are set up on the host; a URL is somebody else's server.",
        '"postgres", "sqlite", "none", a URL, { secret = "NAME" }, { env = "X" }, { command = "..." } '
        'or { kind = "postgres", name = "x" }',
        "postgres",
        example='"postgres"',
    )
    redis: bool | RedisTable = key(
        "Whether the app has a Redis of its own, as a cache.", "true, false or { memory = 64 }", False, example="true"
    )
    cache: Literal["redis", "memcached"] | None = key(
        "A cache of its own: short for [apps.NAME.services.cache], `${cache.url}`, CACHE_URL.",
        '"redis" or "memcached"',
        None,
        example='"redis"',
    )
    broker: Literal["redis", "rabbitmq"] | None = key(
        "A broker of its own, which keeps what it is given: short for [apps.NAME.services.broker], `${broker.url}`; "
        "BROKER_URL and CELERY_BROKER_URL as Celery takes it.",
        '"redis" or "rabbitmq"',
        None,
        example='"redis"',
    )
    static: str | bool | None = key(
        "URL under which nginx serves the static files; false: it does not. Found in the settings' STATIC_URL.",
        'a URL path such as "/static/", true or false',
        None,
        example='"/static/"',
    )
    media: str | bool | None = key(
        "URL under which nginx serves uploaded files; false: it does not. Found in the settings' MEDIA_URL.",
        'a URL path such as "/media/", true or false',
        None,
        example='"/media/"',
    )
    health: str = key(
        "A path that must answer with 2xx or 3xx before a release goes live. "
        "Without it: / must answer, with anything but 400 and 5xx.",
        'a path such as "/healthz"',
        "",
        example='"/healthz"',
    )
    exclude: tuple[str, ...] = key(
        "Files of the source that stay at home: patterns as in .gitignore, after those of its .deployignore.",
        "a list of patterns",
        (),
        example='["*.psd"]',
    )
    persist: tuple[str, ...] = key(
        "Folders (with / at their end) and files of the source that outlive each release.",
        "a list of paths inside the source",
        (),
        example='["uploads/", "config/local.json"]',
    )
    collectstatic: bool | str | tuple[str, ...] = key(
        "false: collectstatic is not run; or its further arguments.",
        "true, false, or arguments",
        True,
        example='["--ignore", "*.scss"]',
    )
    migrate: bool | str | tuple[str, ...] = key(
        "false: migrate is not run; or its further arguments.", "true, false, or arguments", True
    )
    nginx: bool | NginxTable = key(
        "false: no nginx for this app; its server listens on `port` itself. A table: more of its site.",
        "true, false or a table",
        True,
        example="true",
    )
    port: int = key("The port with nginx = false.", "a number from 1024 to 65535", 0, ge=1024, le=65535, example="8000")
    keep: int = key("Number of releases that are kept.", "a number from 2 to 100", 5, ge=2, le=100)
    command_timeout: int = key(
        "Seconds for one command of the app's in a deploy: a hook, migrate, collectstatic, an installation. One that "
        "takes longer is ended, and the deploy fails.",
        "a number from 1 to 86400",
        3600,
        ge=1,
        le=86400,
    )
    tls: TlsTable | None = key(
        "A certificate that is on the host already.",
        '{ certificate = "/etc/ssl/x.pem", key = "/etc/ssl/x.key" }',
        None,
    )
    web: WebTable = key("The processes that answer requests.", "a table", WebTable())
    processes: Mapping[str, ProcessTable] = key(
        "Further processes, by name: workers, schedulers, web servers for some paths.", "tables by name", {}
    )
    schedule: Mapping[str, ScheduleTable] = key("Commands that run by the clock, by name.", "tables by name", {})
    services: Mapping[str, ServiceTable] = key("Caches and brokers of the app's own, by name.", "tables by name", {})
    hooks: HooksTable = key("Commands at a deploy's steps.", "a table", HooksTable())
    checks: tuple[CheckTable, ...] = key(
        "What a release must answer well before it goes live, and after.", "a list of tables", ()
    )
    files: Mapping[str, str | FileTable] = key(
        "Configuration files outside the release, by name, from templates of the project's.",
        "a template, or a table",
        {},
        example='{ "local_settings.py" = { template = "blog/local.py.j2", pythonpath = true } }',
    )
    env: Mapping[str, str | FromHost | FromEnv | FromCommand] = key(
        "The app's environment: literal text (which may hold ${database.host} and the like), a secret of the host's, "
        "a variable of your own environment, or a command's output.",
        'text in quotes, { secret = "NAME" } (with make = 40: invented), { env = "X" } or { command = "..." }',
        {},
        example='{ DB_HOST = "${database.host}", STRIPE_KEY = { env = "STRIPE_KEY" } }',
    )


@dataclass(frozen=True)
class Document:
    """The whole file."""

    hosts: Mapping[str, HostTable] = key("Machines, by name.", "tables [hosts.NAME]", {})
    apps: Mapping[str, AppTable] = key("Django projects, by name.", "tables [apps.NAME]", {})
