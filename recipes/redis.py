"""Redis: an instance of its own for each app that asks for one, on a socket that only this app can open.

The instance runs as the app's own user: whoever breaks out of Redis (its Lua sandbox has been broken before,
CVE-2022-0543, CVE-2025-49844) is no further than the app itself, and cannot reach another app's.
"""

from __future__ import annotations

from collections.abc import Iterator

from deploykit.agent.resource import Action, Render, Resource
from deploykit.agent.resources import REREAD, Directory, File, Package, Service, SharedService
from deploykit.agent.values import App, Facts, Host
from deploykit.recipes.sizing import sizes


def socket(app: App) -> str:
    """Where an app's Redis listens."""
    return f"/run/redis-{app.name}/redis.sock"


def config(app: App) -> str:
    """Its settings: not in /etc/redis, which only Debian's own user `redis` may enter."""
    return f"/etc/deploykit/redis-{app.name}.conf"


def unit(app: App) -> str:
    """Its service: an instance of the unit that Debian ships for this."""
    return f"redis-server@{app.name}.service"


def recipe(host: Host, facts: Facts, render: Render) -> Iterator[Resource]:
    """One cache per app; Debian's shared instance on port 6379 is switched off."""
    apps = [app for app in host.apps if app.redis is not None]
    if not apps:
        return
    yield Package("redis-server")
    yield SharedService("redis-server.service", running=False, enabled=False)

    memory = sizes(facts, host.apps).redis
    for app in apps:
        restart = (
            REREAD,
            Action(f"restart {unit(app)}", (("systemctl", "restart", unit(app)),), needs=f"service {unit(app)}"),
        )
        yield File(
            config(app),
            render("redis/redis.conf.j2", app=app, socket=socket(app), memory=memory[app.name]),
            group=app.user,
            mode=0o640,
            actions=restart,
            app=app.name,
        )
        drop_in = f"/etc/systemd/system/{unit(app)}.d"
        yield Directory(drop_in, app=app.name)
        yield File(
            f"{drop_in}/deploykit.conf",
            render("redis/service.conf.j2", app=app, config=config(app)),
            actions=restart,
            app=app.name,
        )
        yield Service(unit(app), app=app.name)
