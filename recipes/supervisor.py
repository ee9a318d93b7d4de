"""supervisor: keeps the apps' processes. Its control socket is root's alone, as Debian sets it up."""

from __future__ import annotations

from collections.abc import Iterator

from deploykit.agent.resource import Render, Resource
from deploykit.agent.resources import REREAD, Directory, File, Package, SharedService
from deploykit.agent.values import App, Facts, Host, Service
from deploykit.recipes import memcached, redis

_DROP_IN = "/etc/systemd/system/supervisor.service.d"


def recipe(host: Host, facts: Facts, render: Render) -> Iterator[Resource]:
    """supervisor, where apps run."""
    if not host.apps:
        return
    yield Package("supervisor")
    yield Directory(_DROP_IN)
    # how the service ends and begins again: it need not be restarted for that to count
    yield File(f"{_DROP_IN}/deploykit.conf", render("supervisor/service.conf.j2"), actions=(REREAD,))
    for app in host.apps:
        if after := sorted(_stands_on(app)):
            text = render("supervisor/after.conf.j2", app=app, after=after)
            # of the app's own, so that it leaves with the app
            yield File(f"{_DROP_IN}/{app.name}.after.conf", text, actions=(REREAD,), app=app.name)
    yield SharedService("supervisor.service")


def _stands_on(app: App) -> set[str]:
    """The services that an app uses: they are up before the apps, and down after them."""
    found = {"postgresql.service"} if app.database.kind == "postgres" else set()
    return found | {_unit(app, store) for store in app.stores}


def _unit(app: App, store: Service) -> str:
    if store.kind == "rabbitmq":
        return "rabbitmq-server.service"
    return redis.unit(app, store) if store.kind == "redis" else memcached.unit(app, store)
