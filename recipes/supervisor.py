"""supervisor: keeps the apps' processes. Its control socket is root's alone, as Debian sets it up."""

from __future__ import annotations

from collections.abc import Iterator

from deploykit.agent.resource import Render, Resource
from deploykit.agent.resources import REREAD, Directory, File, Package, SharedService
from deploykit.agent.values import Facts, Host

_DROP_IN = "/etc/systemd/system/supervisor.service.d"


def recipe(host: Host, facts: Facts, render: Render) -> Iterator[Resource]:
    """supervisor, where apps run."""
    if not host.apps:
        return
    yield Package("supervisor")
    yield Directory(_DROP_IN)
    # how the service ends and begins again: it need not be restarted for that to count
    yield File(f"{_DROP_IN}/deploykit.conf", render("supervisor/service.conf.j2"), actions=(REREAD,))
    yield SharedService("supervisor.service")
