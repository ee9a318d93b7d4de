"""What every host has: certificates, deploykit's folders, and for each app a user and the folders only it may enter."""

from __future__ import annotations

from collections.abc import Iterator

from deploykit.agent.resource import Failed, Render, Resource
from deploykit.agent.resources import DataDirectory, Directory, File, Package, User
from deploykit.agent.values import App, Facts, Host
from deploykit.recipes import postgres
from deploykit.recipes.systems import supported

#: nginx's user, on every Debian and Ubuntu (package base-passwd).
WWW = "www-data"

__all__ = ["WWW", "recipe", "supported"]


def recipe(host: Host, facts: Facts, render: Render) -> Iterator[Resource]:
    """The base of any host, and each app's user and folders."""
    if reason := supported(facts):
        what, _, todo = reason.partition(". ")
        raise Failed(what, todo=todo)
    yield from postgres.early(host, facts)  # before any package: all packages are installed at once

    yield Package("ca-certificates")
    yield Package("tzdata")  # minimal images lack it, and Django's TIME_ZONE needs it (zoneinfo has no other source)

    yield Directory("/etc/deploykit")
    yield Directory("/var/lib/deploykit")  # open to the login user, who must see whether the agent is there
    yield Directory("/var/lib/deploykit/secrets", mode=0o700)
    yield Directory("/var/backups/deploykit", mode=0o700)

    for app in host.apps:
        yield from _app(app, render)


def _app(app: App, render: Render) -> Iterator[Resource]:
    user = app.user
    comment = f"deploykit app {app.name}"
    yield User(user, f"{app.home}/home", "/bin/bash", comment=comment, app=app.name)

    # 0711: who knows a path may pass through, nobody else may list. What is below decides who reads.
    yield DataDirectory(app.home, mode=0o711, app=app.name)
    yield Directory(f"{app.home}/releases", mode=0o711, app=app.name)
    yield Directory(f"{app.home}/venvs", mode=0o711, app=app.name)

    yield DataDirectory(f"{app.home}/home", user, user, 0o700, app=app.name)
    yield DataDirectory(f"{app.home}/data", user, user, 0o750, app=app.name)
    if app.media is not None:
        # the set-group-id bit hands www-data on to every folder and file the app makes in it
        yield DataDirectory(f"{app.home}/media", user, WWW, 0o2750, app=app.name)

    # The sockets' folder is made now, and at every boot since /run is empty then.
    sockets = f"/run/{app.name}"
    yield File(
        f"/etc/tmpfiles.d/deploykit-{app.name}.conf", render("base/tmpfiles.conf.j2", app=app, www=WWW), app=app.name
    )
    yield Directory(sockets, user, WWW, 0o2750, app=app.name)

    yield Directory(f"/var/backups/deploykit/{app.name}", mode=0o700, app=app.name)
