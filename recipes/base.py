"""What every host has: certificates, deploykit's folders, and for each app a user and the folders only it may enter."""

from __future__ import annotations

from collections.abc import Iterator

from deploykit.agent.resource import Failed, Note, Render, Resource
from deploykit.agent.resources import DataDirectory, Directory, File, Group, Package, User
from deploykit.agent.values import App, Facts, Host
from deploykit.agent.virtualenv import BUILDER, CACHE, SHARED
from deploykit.model import layout
from deploykit.recipes import build, postgres, rabbitmq, ssh
from deploykit.recipes.sockets import Moved
from deploykit.recipes.systems import supported, system

#: nginx's user, on every Debian and Ubuntu (package base-passwd).
WWW = "www-data"

__all__ = ["WWW", "recipe", "supported"]


def recipe(host: Host, facts: Facts, render: Render) -> Iterator[Resource]:
    """The base of any host, and each app's user and folders."""
    if reason := supported(facts):
        what, _, todo = reason.partition(". ")
        raise Failed(what, todo=todo)
    yield from postgres.early(host, facts)  # before any package: all packages are installed at once
    yield from rabbitmq.early(host, facts, render)

    yield Directory("/etc/deploykit")
    if host.apps:
        yield Directory(str(layout.all_sockets()))
    yield Directory("/var/lib/deploykit")  # open to the login user, who must see whether the agent is there
    yield Directory("/var/lib/deploykit/secrets", mode=0o700)
    yield Directory("/var/backups/deploykit", mode=0o700)

    if host.apps:
        yield Group(ssh.APPS)
        # Who unpacks the packages that apps share, and never runs one: see deploykit/agent/virtualenv.py.
        yield User(BUILDER, str(CACHE.parent), comment="deploykit's builder of virtualenvs")
        yield Directory(str(CACHE.parent), mode=0o711)
        yield Directory(str(CACHE), BUILDER, BUILDER, 0o700)
        yield Directory(str(SHARED), mode=0o711)
    for app in host.apps:
        yield from _app(app, render)

    # After accounts and folders: apt takes long, and what needs no more than these is begun meanwhile (agent/early.py).
    yield Package("ca-certificates")
    for package in system(facts).zones:  # minimal images lack them, and Django's TIME_ZONE has no other source
        yield Package(package)
    for name in sorted({name for app in host.apps for name in app.apt}):
        yield Package(name)


def notes(host: Host, facts: Facts) -> Iterator[Note]:
    """Ports that visitors need and that the host's own firewall keeps shut: firewalls are left to their owner."""
    if facts.ufw is None:
        return
    needed = {80 for app in host.apps if app.nginx} | {443 for app in host.apps if app.nginx and app.tls}
    needed |= {app.port for app in host.apps if not app.nginx}
    shut = sorted(port for port in needed if not _covered(port, facts.ufw))
    if shut:
        words = f"port {shut[0]}" if len(shut) == 1 else f"ports {', '.join(map(str, shut))}"
        opens = "; ".join(f"ufw allow {port}/tcp" for port in shut)
        yield Note(f"ufw is active on the host and lets nobody in at {words}; as root there: {opens}", warning=True)


def _covered(port: int, rules: str) -> bool:
    """Whether ufw has a rule for a port: "80", a range "8000:8010", or "any"."""
    for rule in filter(None, rules.split(",")):
        low, _, high = rule.partition(":")
        if rule == "any" or int(low) <= port <= int(high or low):
            return True
    return False


def _app(app: App, render: Render) -> Iterator[Resource]:
    user = app.user
    comment = f"deploykit app {app.name}"
    yield User(user, f"{app.home}/home", groups=(ssh.APPS,), comment=comment, app=app.name)

    # 0711: who knows a path may pass through, nobody else may list. What is below decides who reads.
    yield DataDirectory(app.home, mode=0o711, app=app.name)
    yield Directory(f"{app.home}/releases", mode=0o711, app=app.name)
    yield Directory(f"{app.home}/venvs", mode=0o711, app=app.name)

    yield DataDirectory(f"{app.home}/home", user, user, 0o700, app=app.name)
    yield DataDirectory(f"{app.home}/data", user, user, 0o750, app=app.name)
    if app.media is not None:
        # the set-group-id bit hands www-data on to every folder and file the app makes in it
        yield DataDirectory(f"{app.home}/media", user, WWW, 0o2750, app=app.name)

    yield from build.persistent(app, WWW)

    # These folders are made now, and at every boot since /run is empty then. nginx looks for the sockets in root's.
    yield File(
        f"/etc/tmpfiles.d/deploykit-{app.name}.conf",
        render("base/tmpfiles.conf.j2", app=app, www=WWW, sockets=layout.sockets(app.name)),
        app=app.name,
    )
    yield Directory(f"/run/{app.name}", user, WWW, 0o2750, app=app.name)
    yield Directory(str(layout.sockets(app.name)), "root", WWW, 0o750, app=app.name)
    yield Moved(names=("", *(process.name for process in app.processes if process.web)), app=app.name)

    yield Directory(f"/var/backups/deploykit/{app.name}", mode=0o700, app=app.name)
