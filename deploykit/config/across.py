"""What hosts and apps must obey together: one domain, one port, one database name belong to one app on a host."""

from __future__ import annotations

from collections.abc import Sequence

from deploykit.agent.secret import Secret
from deploykit.config.check import Reader, nearest, shown
from deploykit.config.project import AppEntry, HostEntry
from deploykit.config.toml import Path as Way


def check(reader: Reader, hosts: Sequence[HostEntry], apps: Sequence[AppEntry]) -> None:
    """Adds a mistake to `reader` for each clash, at the later of the two."""
    known = [host.name for host in hosts]
    for app in apps:
        for index, name in enumerate(app.hosts):
            if name and name not in known:
                meant = nearest(name, known)
                allowed = ", ".join(known) or "no host is in the file yet; add a table [hosts.NAME]"
                reader.add(
                    ("apps", app.name, "hosts", index),
                    f"there is no host {shown(name)}",
                    allowed,
                    meant and f'"{meant}"',
                )
    _addresses(reader, hosts)
    for app in apps:
        _ports(reader, app)
    places = {app.name: _places(app, hosts) for app in apps}
    for number, later in enumerate(apps):
        for earlier in apps[:number]:
            if places[later.name] & places[earlier.name]:
                _clash(reader, earlier, later)
        for index, domain in enumerate(later.redirects):
            if domain and domain in later.domains:
                what = f"{domain} is in `domains` too: it would redirect to itself"
                reader.add(("apps", later.name, "redirects", index), what, "a domain that is not in `domains`")


#: Stands for a host that is typed and not in the file: all apps without `hosts` go there together.
_TYPED = ""


def _places(app: AppEntry, hosts: Sequence[HostEntry]) -> set[str]:
    return set(app.hosts) if app.hosts else {_TYPED, *(host.name for host in hosts if "web" in host.roles)}


def _addresses(reader: Reader, hosts: Sequence[HostEntry]) -> None:
    seen: dict[tuple[object, int], str] = {}
    for host in hosts:
        first = seen.setdefault((host.vagrant or host.address, host.port), host.name)
        if first != host.name:
            reader.add(
                ("hosts", host.name, "vagrant" if host.vagrant else "address"),
                f"[hosts.{first}] is the same machine",
                "one table for each machine",
            )


def _clash(reader: Reader, earlier: AppEntry, later: AppEntry) -> None:
    taken = {*earlier.domains, *earlier.redirects} - {""}
    for key in ("domains", "redirects"):
        for index, domain in enumerate(getattr(later, key)):
            if domain in taken:
                what = f"{domain} belongs to [apps.{earlier.name}] already, on the same host"
                reader.add(("apps", later.name, key, index), what, "a domain leads to one app on a host")
    used = {port for _, port in _used(earlier)}
    for way, port in _used(later):
        if port in used:
            what = f"{port} belongs to [apps.{earlier.name}] already, on the same host"
            reader.add(("apps", later.name, *way), what, "a port of its own for each app, cache and broker")
    if later.database.name and later.database.name == earlier.database.name:
        what = f"the database {later.database.name} belongs to [apps.{earlier.name}] already, on the same host"
        reader.add(("apps", later.name, "database"), what, "a database of its own for each app")


#: What other programs of the host have, or would have: nginx, PostgreSQL, RabbitMQ and its Erlang, Redis, Memcached.
_TAKEN = {80: "nginx", 443: "nginx", 4369: "RabbitMQ", 5432: "PostgreSQL", 5672: "RabbitMQ", 6379: "Redis"}
_TAKEN |= {11211: "Memcached", 25672: "RabbitMQ"}


def _used(app: AppEntry) -> list[tuple[Way, int]]:
    """The ports of an app, of its Redis and of its services, with the place of each in the table."""
    found: list[tuple[Way, int]] = [(("port",), app.port), (("redis", "port"), app.redis.port if app.redis else 0)]
    found += [(("services", each.name, "port"), each.port) for each in app.services]
    return [(way, port) for way, port in found if port]


def _ports(reader: Reader, app: AppEntry) -> None:
    seen: set[int] = set()
    for way, port in _used(app):
        if port in _TAKEN:
            what = f"{port} is the port of {_TAKEN[port]} on every host"
            reader.add(("apps", app.name, *way), what, "another port, such as 6401")
        elif port in seen:
            what = f"{port} is set twice in [apps.{app.name}]"
            reader.add(("apps", app.name, *way), what, "a port of its own for each cache and broker")
        seen.add(port)


def warn(apps: Sequence[AppEntry]) -> Reader:
    """What is no mistake but worth a word, as the mistakes of a reader of its own."""
    reader = Reader()
    for app in apps:
        way = ("apps", app.name)
        if isinstance(app.env.get("SECRET_KEY"), str):
            what = "the secret key stands in this file to be read; without it the host makes one that never leaves it"
            reader.add((*way, "env", "SECRET_KEY"), what, 'nothing, or { env = "SECRET_KEY" }')
        url = app.database.url
        if isinstance(url, Secret) and "@" in url.reveal() and ":" in url.reveal().split("://", 1)[1].rsplit("@", 1)[0]:
            what = "the database's password stands in this file to be read"
            reader.add((*way, "database"), what, '{ secret = "NAME" }, { env = "X" } or { command = "..." }')
    return reader
