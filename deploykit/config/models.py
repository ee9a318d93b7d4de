"""What may stand in deploykit.toml: every table as a frozen dataclass, every key described once.

The reader (`check`), the JSON schema (`schema`) and docs/reference.md are all made from these classes. They are
dataclasses and not pydantic models because each command pays for its imports: pydantic costs 0.1 s.
"""

from __future__ import annotations

# ruff: noqa: RUF009 (`key` makes a dataclass field; the linter knows only `field` by name)
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from typing import Any, Literal

Role = Literal["web", "database", "cache"]


def key(
    description: str,
    allowed: str,
    default: Any = MISSING,
    *,
    ge: int | None = None,
    le: int | None = None,
    example: str = "",
    pattern: str = "",
) -> Any:
    """One key of a table.

    `allowed` says in words what the value may be, `ge` and `le` bound a number, `example` is TOML for the
    reference, `pattern` is for editors only: the rules themselves say it in words.
    """
    metadata: dict[str, Any] = {"description": description, "allowed": allowed, "example": example}
    if ge is not None:
        metadata["ge"] = ge
    if le is not None:
        metadata["le"] = le
    if pattern:
        metadata["json_schema_extra"] = {"pattern": pattern}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class FromHost:
    """A value that lives in the host's own secret store and never leaves the host."""

    secret: str = key("The secret's name in the host's store.", "a name such as STRIPE_KEY", example='"STRIPE_KEY"')


@dataclass(frozen=True)
class FromEnv:
    """A value from your own environment, read when you run a command."""

    env: str = key("The variable's name on your machine.", "a name such as STRIPE_KEY", example='"STRIPE_KEY"')


@dataclass(frozen=True)
class FromCommand:
    """A value that a command on your machine prints. No shell runs it: words are split as a shell would."""

    command: str = key(
        "The command. It runs in the folder of deploykit.toml; one final line break is cut off.",
        'a command such as "pass show blog/stripe"',
        example='"pass show blog/stripe"',
    )


@dataclass(frozen=True)
class Git:
    """A git repository as the source of an app."""

    git: str = key("The repository's URL.", "a URL that git clones from", example='"https://example.com/blog.git"')
    ref: str = key("Branch, tag or commit.", "a branch, tag or commit", "HEAD", example='"main"')


@dataclass(frozen=True)
class DatabaseTable:
    """The database, when its kind alone does not say enough."""

    kind: Literal["postgres", "sqlite", "none"] = key("The kind.", '"postgres", "sqlite" or "none"', "postgres")
    name: str = key(
        "Name of the PostgreSQL database and role. Without it: the app's name with `_` for `-`.",
        "lower-case letters, digits and _, at most 63, not beginning with a digit",
        "",
        example='"blog"',
        pattern="^[a-z_][a-z0-9_]{0,62}$",
    )


@dataclass(frozen=True)
class RedisTable:
    """The app's own Redis, with a limit of its own."""

    memory: int = key("Limit in MiB; 0: sized from the host's memory.", "a number of MiB", 0, ge=0, le=1048576)


@dataclass(frozen=True)
class TlsTable:
    """A certificate that is on the host already."""

    certificate: str = key("Path of the certificate chain on the host (PEM).", "an absolute path")
    key: str = key("Path of the private key on the host (PEM).", "an absolute path")


@dataclass(frozen=True)
class WebTable:
    """The processes that answer requests."""

    workers: int = key("Number of processes; 0: sized from the host.", "a number from 0 to 256", 0, ge=0, le=256)
    threads: int = key("Threads in each process.", "a number from 1 to 256", 2, ge=1, le=256)
    timeout: int = key("Seconds that one request may take.", "a number of seconds, 1 to 3600", 30, ge=1, le=3600)
    max_body: int | str = key(
        "The largest request body: MiB as a number, or text with k, m or g.",
        'MiB as a number, or text such as "20m" or "1g"',
        20,
        ge=1,
        le=1048576,
        example='"20m"',
    )


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


@dataclass(frozen=True)
class AppTable:
    """One Django project."""

    source: str | Git = key(
        "Where the code is: a folder (relative to deploykit.toml), a git URL, or a table with git and ref.",
        'a folder such as "../blog", a git URL, or { git = "https://...", ref = "main" }',
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
        "The folder of manage.py inside the source. Found by itself when not given.",
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
        "What to install: requirements files, pyproject.toml or uv.lock, relative to the source. Found by itself.",
        'a file such as "requirements.txt", "pyproject.toml" or "uv.lock", or a list of requirements files',
        None,
        example='"requirements.txt"',
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
        "Whether the app has a Redis of its own.", "true, false or { memory = 64 }", False, example="true"
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
        "Files of the source that stay at home: patterns as in .gitignore.",
        "a list of patterns",
        (),
        example='["*.psd"]',
    )
    nginx: bool = key(
        "false: no nginx for this app; gunicorn listens on `port` itself.",
        "true or false",
        True,
        example="true",
    )
    port: int = key("The port with nginx = false.", "a number from 1024 to 65535", 0, ge=1024, le=65535, example="8000")
    keep: int = key("Number of releases that are kept.", "a number from 2 to 100", 5, ge=2, le=100)
    tls: TlsTable | None = key(
        "A certificate that is on the host already.",
        '{ certificate = "/etc/ssl/x.pem", key = "/etc/ssl/x.key" }',
        None,
    )
    web: WebTable = key("The processes that answer requests.", "a table", WebTable())
    env: Mapping[str, str | FromHost | FromEnv | FromCommand] = key(
        "The app's environment: literal text (which may hold ${database.host} and the like), a secret of the host's, "
        "a variable of your own environment, or a command's output.",
        'text in quotes, { secret = "NAME" }, { env = "X" } or { command = "..." }',
        {},
        example='{ DB_HOST = "${database.host}", STRIPE_KEY = { env = "STRIPE_KEY" } }',
    )


@dataclass(frozen=True)
class Document:
    """The whole file."""

    hosts: Mapping[str, HostTable] = key("Machines, by name.", "tables [hosts.NAME]", {})
    apps: Mapping[str, AppTable] = key("Django projects, by name.", "tables [apps.NAME]", {})
