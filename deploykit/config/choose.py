"""Which hosts a command is for: the text of `--host`."""

from __future__ import annotations

import re
from dataclasses import replace

from deploykit.config.check import nearest, shown
from deploykit.config.project import HostEntry, Project
from deploykit.errors import DeploykitError

_TARGET = re.compile(
    r"(?:(?P<user>[A-Za-z_][A-Za-z0-9_.-]{0,63})@)?"
    r"(?:\[(?P<six>[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?)\]|(?P<name>[A-Za-z0-9_][A-Za-z0-9_.-]{0,252})|(?P<bare>[0-9A-Fa-f]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*))"
    r"(?::(?P<port>\d{1,5}))?"
)


def choose(project: Project, text: str = "") -> list[HostEntry]:
    """The hosts that `text` names: names of [hosts.*] or ssh targets (alias, address, user@host:port), commas between.

    "" means the only host of the file. An ssh target that is the address of a host in the file is that host.
    Raises DeploykitError when nothing or something impossible is named.
    """
    if not text.strip():
        if len(project.hosts) == 1:
            return [project.hosts[0]]
        if not project.hosts:
            todo = "name one: --host user@address\nor add a table [hosts.NAME] to the file"
            raise DeploykitError("no host is in the file", str(project.file), todo)
        names = ", ".join(host.name for host in project.hosts)
        todo = f"choose with --host, several with commas between: {names}"
        raise DeploykitError(f"there are {len(project.hosts)} hosts in the file", str(project.file), todo)
    found: dict[str, HostEntry] = {}
    for part in text.split(","):
        if part.strip():
            entry = _one(project, part.strip())
            found.setdefault(entry.name, entry)
    if not found:
        raise DeploykitError(f"{shown(text)} names no host", "--host", "name one, such as web1 or root@203.0.113.7")
    return list(found.values())


def _one(project: Project, text: str) -> HostEntry:
    known = {host.name: host for host in project.hosts}
    if text in known:
        return known[text]
    target = _TARGET.fullmatch(text)
    port = int(target["port"] or 0) if target else 0
    if target is None or port > 65535:
        todo = "a name of [hosts.*], an alias of ~/.ssh/config, or user@address:port"
        raise DeploykitError(
            f"{shown(text)} is no host", "--host", f"{todo}\nin the file: {', '.join(known) or 'none'}"
        )
    user, address = target["user"] or "", target["six"] or target["name"] or target["bare"]
    same = [host for host in project.hosts if address in (host.name, host.address)]
    if len(same) == 1 and (not port or not same[0].port or port == same[0].port):
        return replace(same[0], user=user or same[0].user, port=port or same[0].port)
    return HostEntry(text, address, user, port, listed=False, meant=nearest(text, known))
