"""The tables inside an app's: every table as a frozen dataclass, every key described once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from deploykit.agent.dataclass import dataclass
from deploykit.config.keys import key

Server = Literal["gunicorn", "uvicorn", "daphne"]
Signal = Literal["TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "WINCH", "ABRT", "KILL"]

#: A command of the user's: run by /bin/sh as the app's user, with the app's environment.
_COMMAND = "a command as a shell takes it; ${...} of deploykit's is replaced first"


@dataclass(frozen=True)
class FromHost:
    """A value that lives in the host's own secret store and never leaves the host."""

    secret: str = key("The secret's name in the host's store.", "a name such as STRIPE_KEY", example='"STRIPE_KEY"')
    make: int = key(
        "The host invents it when nobody has set it: so many letters, digits, - and _. In `env` only.",
        "a number of characters, 16 to 1024",
        0,
        ge=16,
        le=1024,
        example="40",
    )


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
    folder: str = key(
        "The folder of the repository that is the source. Without it: all of it.",
        "a folder inside the repository",
        "",
        example='"services/blog"',
    )


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
    extensions: tuple[str, ...] = key(
        "Extensions of the PostgreSQL database; the superuser makes them, their packages are installed.",
        'a list such as ["pg_trgm", "postgis"]',
        (),
        example='["pg_trgm"]',
    )
    settings: Mapping[str, str | int | bool] = key(
        "Settings of the PostgreSQL database (ALTER DATABASE ... SET).",
        "names of PostgreSQL's settings with their values",
        {},
        example='{ statement_timeout = "30s" }',
    )
    connections: int = key(
        "How many connections the app may have to PostgreSQL at once; 0: worked out from its processes.",
        "a number from 1 to 10000",
        0,
        ge=0,
        le=10000,
    )


@dataclass(frozen=True)
class RedisTable:
    """The app's own Redis as a cache, with a limit of its own."""

    memory: int = key("Limit in MiB; 0: sized from the host's memory.", "a number of MiB", 0, ge=0, le=1048576)
    port: int = key(
        "A port on the loopback, with a password, for a project that cannot use a socket; 0: the socket only.",
        "a number from 1024 to 65535",
        0,
        ge=1024,
        le=65535,
        example="6401",
    )


@dataclass(frozen=True)
class ServiceTable:
    """A cache or broker of the app's own. NAME is what `${NAME.url}` and NAME_URL are called by."""

    kind: Literal["redis", "memcached", "rabbitmq"] = key(
        "What it is.", '"redis", "memcached" or "rabbitmq"', example='"redis"'
    )
    memory: int = key("Limit in MiB; 0: sized from the host's memory.", "a number of MiB", 0, ge=0, le=1048576)
    persistent: bool = key(
        "Redis only: kept on disk and never evicted, as a broker must be. false: a cache, whose oldest goes.",
        "true or false",
        False,
        example="true",
    )
    port: int = key(
        "A port on the loopback (Redis: with a password), for a project that cannot use a socket; 0: the socket only.",
        "a number from 1024 to 65535",
        0,
        ge=1024,
        le=65535,
        example="6401",
    )


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
    start_timeout: int = key(
        "Seconds in which a new release must come to answer: a large project on a small host may need more.",
        "a number of seconds, 5 to 3600",
        60,
        ge=5,
        le=3600,
    )
    max_body: int | str = key(
        "The largest request body: MiB as a number, or text with k, m or g.",
        'MiB as a number, or text such as "20m" or "1g"',
        20,
        ge=1,
        le=1048576,
        example='"20m"',
    )
    server: Server = key(
        "The server program: gunicorn (WSGI, and ASGI by uvicorn's worker), or for ASGI uvicorn or daphne themselves.",
        '"gunicorn", "uvicorn" or "daphne"',
        "gunicorn",
    )
    args: tuple[str, ...] = key(
        "Further arguments of the server program.",
        "a list of words",
        (),
        example='["--max-requests", "1000"]',
    )


@dataclass(frozen=True)
class ProcessTable:
    """A further process of the app: a worker, a scheduler, or a web server of its own for some paths."""

    command: str = key(
        "What runs. Without it: a web server, by wsgi or asgi and paths.",
        _COMMAND,
        "",
        example='"celery -A config worker --loglevel info"',
    )
    count: int = key("How many of it run.", "a number from 1 to 64", 1, ge=1, le=64)
    folder: str | None = key(
        "Its working folder inside the source. Without it: the folder of manage.py.",
        "a folder inside the source",
        None,
        example='"backend"',
    )
    once: bool = key(
        "Exactly one may run, in a deploy too: a scheduler such as celery beat. The old one ends first.",
        "true or false",
        False,
        example="true",
    )
    stop_signal: Signal = key(
        "The signal that asks it to finish what it holds and end.", "a signal's name such as TERM or INT", "TERM"
    )
    stop_timeout: int = key(
        "Seconds it may take to end before it is killed.", "a number of seconds, 0 to 86400", 60, ge=0, le=86400
    )
    steady: int = key(
        "Seconds it must run without ending before a deploy trusts it, beside those that the project takes to start.",
        "a number of seconds, 1 to 300",
        5,
        ge=1,
        le=300,
    )
    paths: tuple[str, ...] = key(
        "URL paths that nginx sends to it: for a web server beside the app's own, WebSockets included.",
        'a list such as ["/ws/"]',
        (),
        example='["/ws/"]',
    )
    wsgi: str | None = key("Its WSGI application.", "a module and a name", None, example='"config.wsgi:application"')
    asgi: str | None = key("Its ASGI application.", "a module and a name", None, example='"config.asgi:application"')
    server: Server = key("Its server program.", '"gunicorn", "uvicorn" or "daphne"', "gunicorn")
    args: tuple[str, ...] = key("Further arguments of the server program.", "a list of words", ())
    workers: int = key("Number of its processes.", "a number from 1 to 256", 1, ge=1, le=256)
    threads: int = key("Threads in each process.", "a number from 1 to 256", 2, ge=1, le=256)
    timeout: int = key("Seconds that one request may take.", "a number of seconds, 1 to 3600", 30, ge=1, le=3600)


@dataclass(frozen=True)
class ScheduleTable:
    """A command that runs by the clock (a systemd timer), as the app's user with the app's environment."""

    command: str = key("What runs.", _COMMAND, example='"python manage.py clearsessions"')
    at: str = key(
        "When: hourly, daily, weekly, monthly, a calendar expression of systemd, or five fields as cron has them.",
        'such as "daily", "Mon..Fri 03:30" or "*/15 * * * *"',
        example='"03:30"',
    )
    catch_up: bool = key(
        "Whether a run that was missed, the machine being off, is made up for.", "true or false", False
    )
    timeout: int = key("Seconds it may take; 0: no limit.", "a number of seconds", 0, ge=0, le=604800)
    folder: str | None = key(
        "Its working folder inside the source. Without it: the folder of manage.py.",
        "a folder inside the source",
        None,
        example='"backend"',
    )


@dataclass(frozen=True)
class HooksTable:
    """Commands at a deploy's steps, as the app's user in the folder of manage.py; one that fails ends the deploy."""

    after_checkout: str | tuple[str, ...] = key(
        "When the code is there: builds that need no virtualenv, such as npm's.",
        "a command or a list of them",
        (),
        example='["npm ci", "npm run build"]',
    )
    after_install: str | tuple[str, ...] = key("When the virtualenv is there.", "a command or a list of them", ())
    before_collectstatic: str | tuple[str, ...] = key("Before collectstatic.", "a command or a list of them", ())
    after_collectstatic: str | tuple[str, ...] = key("After collectstatic.", "a command or a list of them", ())
    before_migrate: str | tuple[str, ...] = key("Before migrate.", "a command or a list of them", ())
    after_migrate: str | tuple[str, ...] = key(
        "After migrate, with each new release.", "a command or a list of them", ()
    )
    first_deploy: str | tuple[str, ...] = key(
        "After the first migrate of a new database, once.",
        "a command or a list of them",
        (),
        example='"python manage.py loaddata initial"',
    )


@dataclass(frozen=True)
class CheckTable:
    """A question that a release must answer well before it goes live, and again after."""

    path: str = key("The path that is asked for.", 'a path such as "/api/"', "", example='"/api/status"')
    host: str = key("The host it is asked for. Without it: the first domain.", "a domain", "")
    scheme: Literal["http", "https"] | None = key(
        "The scheme. Without it: as the site has it.", '"http" or "https"', None
    )
    status: int | tuple[int, ...] = key(
        "The status, or several, that are well. Without it: 200 to 399.", "a status or a list of them", ()
    )
    text: str = key("Text that must be in the body.", "text", "", example='"Welcome"')
    json: Mapping[str, str | int | bool] = key(
        "Values of the JSON body, by their keys with dots between.",
        "keys and their values",
        {},
        example='{ "database.ok" = true }',
    )
    asset: bool = key(
        "Whether each stylesheet and script that the page links from this site must be there, too.",
        "true or false",
        False,
    )
    websocket: bool = key("Whether a WebSocket handshake at the path must succeed.", "true or false", False)
    command: str = key(
        "Instead of a path: a command that must end with 0.",
        _COMMAND,
        "",
        example='"python manage.py check --database default"',
    )
    timeout: int = key("Seconds to wait for the answer.", "a number of seconds, 1 to 600", 10, ge=1, le=600)


@dataclass(frozen=True)
class FileTable:
    """A configuration file outside the release, made from a template of the project's."""

    template: str = key("The template, in the project's folder templates/.", "a file", example='"blog/local.py.j2"')
    pythonpath: bool = key("Whether Python finds it as a module.", "true or false", False, example="true")
    link: str = key(
        "Where in the source the project looks for it: there each release has a link to it, whatever git has there.",
        "a path inside the source",
        "",
        example='"blog/settings/local.py"',
    )


@dataclass(frozen=True)
class LocationTable:
    """What nginx does at one URL path."""

    folder: str | tuple[str, ...] = key(
        "Folders of the source, or of `persist`, whose files are served: the first that has the file.",
        "a folder or a list of them",
        (),
        example='["frontend/dist", "assets"]',
    )
    process: str = key("The web process that answers: a name of [apps.NAME.processes] with paths.", "a name", "")
    max_body: int | str = key("As in [apps.NAME.web].", 'MiB, or text such as "1g"', 0, ge=0, le=1048576)
    timeout: int = key("Seconds to wait for the app; 0: as for all.", "a number of seconds", 0, ge=0, le=86400)
    headers: Mapping[str, str] = key(
        "Headers of the answers, beside those of the site; one without a value is not sent.", "names and values", {}
    )
    snippet: str = key("Text of nginx's own for this location.", "nginx's directives", "")


@dataclass(frozen=True)
class NginxTable:
    """More of the app's site."""

    locations: Mapping[str, LocationTable] = key("What happens at some paths.", "tables by URL path", {})
    headers: Mapping[str, str] = key(
        "Headers of every answer; they replace those of the app. One without a value is not sent.",
        "names and values",
        {},
        example='{ X-Frame-Options = "DENY" }',
    )
    redirects: Mapping[str, str] = key(
        "Paths that lead elsewhere (301): a path, or a path and all below it when both end with /.",
        "paths and where they lead",
        {},
        example='{ "/old/" = "/new/" }',
    )
    basic_auth: Mapping[str, FromHost | FromEnv | FromCommand] = key(
        "Who may see the site: user names and their passwords.",
        'names with { secret = "NAME" }, { env = "X" } or { command = "..." }',
        {},
        example='{ anna = { env = "ANNA_PASSWORD" } }',
    )
    proxies: tuple[str, ...] = key(
        "Addresses of proxies in front of this machine, whose X-Forwarded-For, -Proto, -Host and -Port are believed.",
        'a list such as ["10.0.0.0/8"]; "unix:" is one that comes by a socket',
        (),
        example='["203.0.113.10"]',
    )
    snippet: str = key("Text of nginx's own for the server block.", "nginx's directives", "")
