"""Memcached: instances of an app's own, run by its user, on a socket that only this app can open."""

from __future__ import annotations

from collections.abc import Iterator

from deploykit.agent.resource import Action, Render, Resource
from deploykit.agent.resources import REREAD, File, Package, Service, SharedService
from deploykit.agent.values import App, Facts, Host
from deploykit.agent.values import Service as Store
from deploykit.recipes.sizing import sizes


def name(app: App, store: Store) -> str:
    """What the host calls an instance. No app's name has a dot in it, so no two are called the same."""
    return f"memcached-{app.name}.{store.name}"


def socket(app: App, store: Store) -> str:
    """Where an instance without a port listens. One with a port has no socket: Memcached can have but one of them."""
    return f"/run/{name(app, store)}/memcached.sock"


def unit(app: App, store: Store) -> str:
    """Its service, all of it ours: Debian's package has one server for the machine, and no template."""
    return f"{name(app, store)}.service"


def recipe(host: Host, facts: Facts, render: Render) -> Iterator[Resource]:
    """Each app's instances; Debian's shared one on port 11211 is switched off."""
    every = _every(host)
    if not every:
        return
    yield Package("memcached")
    yield SharedService("memcached.service", running=False, enabled=False)
    memory = sizes(facts, host.apps).stores
    for app, store in every:
        service = unit(app, store)
        restart = Action(f"restart {service}", (("systemctl", "restart", service),), needs=f"service {service}")
        text = render(
            "memcached/memcached.service.j2",
            app=app,
            service=store,
            name=name(app, store),
            socket=socket(app, store),
            memory=memory[app.name, store.name],
        )
        yield File(f"/etc/systemd/system/{service}", text, actions=(REREAD, restart), app=app.name)
        yield Service(service, app=app.name)


def _every(host: Host) -> list[tuple[App, Store]]:
    return [(app, store) for app in host.apps for store in app.stores if store.kind == "memcached"]
