"""`${database.host}` and the like in environment values: what may be referred to, and mistakes in it."""

from __future__ import annotations

from collections.abc import Callable

from deploykit.agent.values import REFERENCE
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
    "redis.url": "the URL of the app's Redis, as REDIS_URL",
    "redis.socket": "the path of its socket",
    "static.root": "the folder of the collected static files",
    "static.url": "the URL they are served under",
    "media.root": "the folder of uploaded files",
    "media.url": "the URL they are served under",
}


def known(database: str, redis: bool, static: str | bool | None, media: str | bool | None) -> Known:
    """What an app with such a database, Redis, static and media may refer to."""
    found = dict.fromkeys(DESCRIPTIONS, "")
    for name in found:
        part = name.split(".")[0]
        if part == "database" and database == "none":
            found[name] = 'this app has database = "none"'
        elif part == "database" and database == "sqlite" and name not in ("database.url", "database.name"):
            found[name] = "SQLite is a file: it has a URL and a name (the file's path), nothing else"
        elif name == "database.password" and database == "postgres":
            found[name] = "there is no password: PostgreSQL knows the app by its OS user, over the socket"
        elif part == "redis" and not redis:
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
            meant = nearest(name, allowed)
            what = f"there is no reference {shown('${' + name + '}')}; a literal ${{ is written $${{"
            add(what, usable, f"${{{meant}}}" if meant else "")
        elif allowed[name]:
            add(f"${{{name}}}: {allowed[name]}", usable, "")
    if "${" in REFERENCE.sub("", text):
        add("a ${ has no closing brace; a literal ${ is written $${", "${database.host} and the like", "")
