"""Redis: instances of an app's own, each for one use, on a socket that only this app can open.

A broker and a cache are never one instance: a cache that is full forgets the oldest, which in a broker would be tasks.
An instance runs as the app's own user: whoever breaks out of Redis (its Lua sandbox has been broken before,
CVE-2022-0543, CVE-2025-49844) is no further than the app itself, and cannot reach another app's.
"""

from __future__ import annotations

from collections.abc import Iterator

from deploykit.agent.resource import Action, HostSecret, Joined, Render, Resource
from deploykit.agent.resources import REREAD, DataDirectory, Directory, File, Package, Service, SharedService
from deploykit.agent.values import App, Facts, Host
from deploykit.agent.values import Service as Store
from deploykit.recipes.sizing import sizes

#: Stands for the password while the text is made: only the host knows it.
_PASSWORD = "${password}"


def name(app: App, store: Store) -> str:
    """What the host calls an instance. No app's name has a dot in it, so no two are called the same."""
    return app.name if store.name == "redis" else f"{app.name}.{store.name}"


def socket(app: App, store: Store) -> str:
    """Where an instance listens."""
    return f"/run/redis-{name(app, store)}/redis.sock"


def config(app: App, store: Store) -> str:
    """Its settings: not in /etc/redis, which only Debian's own user `redis` may enter."""
    return f"/etc/deploykit/redis-{name(app, store)}.conf"


def unit(app: App, store: Store) -> str:
    """Its service: an instance of the unit that Debian ships for this."""
    return f"redis-server@{name(app, store)}.service"


def folder(app: App, store: Store) -> str:
    """Where its data is: a broker's is kept, a cache's lives as long as the cache."""
    return f"{app.home}/data/redis-{store.name}" if store.persistent else f"/run/redis-{name(app, store)}"


def password(store: Store) -> HostSecret:
    """The password of an instance that listens on a port."""
    prefix = "REDIS" if store.name == "redis" else f"REDIS_{store.name.upper()}"
    return HostSecret(f"{prefix}_PASSWORD", make=40)


def recipe(host: Host, facts: Facts, render: Render) -> Iterator[Resource]:
    """Each app's instances; Debian's shared one on port 6379 is switched off."""
    every = [(app, store) for app in host.apps for store in app.stores if store.kind == "redis"]
    if not every:
        return
    yield Package("redis-server")
    yield SharedService("redis-server.service", running=False, enabled=False)
    memory = sizes(facts, host.apps).stores
    for app, store in every:
        yield from _instance(app, store, memory[app.name, store.name], render)


def _instance(app: App, store: Store, memory: int, render: Render) -> Iterator[Resource]:
    service = unit(app, store)
    restart = (REREAD, Action(f"restart {service}", (("systemctl", "restart", service),), needs=f"service {service}"))
    values = {"app": app, "service": store, "config": config(app, store), "folder": folder(app, store)}
    if store.persistent:
        yield DataDirectory(folder(app, store), app.user, app.user, 0o700, app=app.name)
    what = "cache" if store.name == "redis" else store.name
    more = {"what": what, "socket": socket(app, store), "memory": memory, "password": _PASSWORD}
    text = render("redis/redis.conf.j2", **values, **more)
    before, found, after = text.partition(_PASSWORD)
    content = Joined((before, password(store), after)) if found else text
    yield File(config(app, store), content, group=app.user, mode=0o640, actions=restart, app=app.name)
    drop_in = f"/etc/systemd/system/{service}.d"
    yield Directory(drop_in, app=app.name)
    yield File(f"{drop_in}/deploykit.conf", render("redis/service.conf.j2", **values), actions=restart, app=app.name)
    yield Service(service, app=app.name)
