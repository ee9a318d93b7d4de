"""`${database.host}` and the like in environment values: what may be referred to, and mistakes in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from deploykit.agent.values import COMMAND_REFERENCE, REFERENCE, Redis, Service
from deploykit.config.check import nearest, shown

#: Name -> "" when it may be used in this app, or why it may not.
Known = dict[str, str]

DESCRIPTIONS = {
    "app.name": "the app's name",
    "app.user": "the OS user that runs it",
    "app.home": "its folder on the host",
    "app.domain": "the first of its domains",
    "app.domains": "all its domains, with commas between",
    "data.dir": "the folder for files of its own, kept over releases",
    "database.url": "the URL of the database, as DATABASE_URL",
    "database.host": "the database server: a folder of sockets, or a name",
    "database.port": "the port of the database server",
    "database.name": "the name of the database",
    "database.user": "the database's user",
    "database.password": "the password in the URL of somebody else's database",
    "files.dir": "the folder of its configuration files",
    "static.root": "the folder of the collected static files",
    "static.url": "the URL they are served under",
    "media.root": "the folder of uploaded files",
    "media.url": "the URL they are served under",
}

#: The parts of a cache or broker, by its kind: of `redis`, `cache`, `broker`, or one of [apps.NAME.services].
SERVICES = {
    "redis": {
        "url": "its URL, as redis-py, django-redis and Channels take it; also the variable NAME_URL",
        "celery": "its URL as Celery and kombu take it",
        "socket": "the path of its socket",
        "host": "its host, with `port`",
        "port": "its port, with `port`",
        "password": "its password, with `port`",
    },
    "memcached": {
        "url": "its URL; also the variable NAME_URL",
        "location": "its LOCATION, as Django's cache backends take it",
        "socket": "the path of its socket",
        "host": "its host, with `port`",
        "port": "its port, with `port`",
    },
    "rabbitmq": {
        "url": "its URL with user, password and vhost; also the variable NAME_URL",
        "celery": "the same",
        "host": "its host",
        "port": "its port",
        "user": "the app's user there",
        "password": "that user's password",
        "vhost": "the app's vhost",
    },
}
_BY_PORT = ("host", "port", "password")


def _service(name: str, kind: str, port: int) -> Known:
    def reason(part: str) -> str:
        if part in _BY_PORT and not port and kind != "rabbitmq":
            return f"it listens on a socket only; give it a port: {name} = {{ ..., port = 6401 }}"
        if part == "socket" and port and kind == "memcached":
            return "Memcached has a socket or a port, and this one has a port"
        return ""

    return {f"{name}.{part}": reason(part) for part in SERVICES.get(kind, ())}


def known(
    database: str,
    redis: Redis | None,
    static: str | bool | None,
    media: str | bool | None,
    services: Sequence[Service] = (),
    files: bool = False,
) -> Known:
    """What an app with such a database, Redis, static, media, services and files may refer to."""
    found = dict.fromkeys(DESCRIPTIONS, "")
    found |= _service("redis", "redis", redis.port if redis else 0)
    for service in services:
        found |= _service(service.name, service.kind, service.port)
    for name in found:
        part = name.split(".")[0]
        if part == "database" and database == "none":
            found[name] = 'this app has database = "none"'
        elif part == "database" and database == "sqlite" and name not in ("database.url", "database.name"):
            found[name] = "SQLite is a file: it has a URL and a name (the file's path), nothing else"
        elif name == "database.password" and database == "postgres":
            found[name] = "there is no password: PostgreSQL knows the app by its OS user, over the socket"
        elif name == "files.dir" and not files:
            found[name] = "this app has no configuration files; add [apps.NAME.files]"
        elif part == "redis" and redis is None:
            found[name] = "this app has no Redis; set redis = true"
        elif (name == "static.url" and static is False) or (name == "media.url" and media is False):
            found[name] = f"nothing is served: this app has {part} = false"
    return found


def check(text: str, allowed: Known, add: Callable[[str, str, str], None]) -> None:
    """Calls add(what, allowed, suggestion) for each reference that cannot be replaced."""
    for found in REFERENCE.finditer(text):
        name = found["name"]
        if name is None:
            continue  # "$${" stands for itself
        usable = ", ".join(key for key, reason in allowed.items() if not reason)
        if name not in allowed:
            meant = nearest(name, [key for key, reason in allowed.items() if not reason])
            what = f"there is no reference {shown('${' + name + '}')}; a literal ${{ is written $${{"
            add(what, usable, f"${{{meant}}}" if meant else "")
        elif allowed[name]:
            add(f"${{{name}}}: {allowed[name]}", usable, "")
    if "${" in REFERENCE.sub("", text):
        add("a ${ has no closing brace; a literal ${ is written $${", "${database.host} and the like", "")


def check_command(text: str, allowed: Known, add: Callable[[str, str, str], None]) -> None:
    """The same for a command. What has no dot in it (`${HOME}`) is the shell's own."""
    for found in COMMAND_REFERENCE.finditer(text):
        name = found["name"]
        if allowed.get(name, "?"):
            meant = nearest(name, [key for key, reason in allowed.items() if not reason])
            what = (
                f"${{{name}}}: {allowed[name]}"
                if name in allowed
                else f"there is no reference {shown('${' + name + '}')}"
            )
            usable = ", ".join(key for key, reason in allowed.items() if not reason)
            add(what, usable, f"${{{meant}}}" if meant and name not in allowed else "")
