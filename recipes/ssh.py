"""SSH: for people, not for apps. An app writes in its own home, and with it `~/.ssh/authorized_keys`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from deploykit.agent.dataclass import dataclass
from deploykit.agent.resource import Action, NotYet, Render, Resource, State
from deploykit.agent.resources import Directory, File, disk
from deploykit.agent.values import Facts, Host

#: Every app's user is in this group; see `recipes/base.py`.
APPS = "deploykit-apps"

_CONFIG = "/etc/ssh/sshd_config"
_FOLDER = f"{_CONFIG}.d"
_INCLUDE = f"Include {_FOLDER}/*.conf"

#: `try-`: an image may start sshd for each connection; the next one reads the new files.
RELOAD = Action(
    "reload sshd",
    (("systemctl", "try-reload-or-restart", "ssh.service"),),
    check=("/bin/sh", "-c", "test ! -x /usr/sbin/sshd || /usr/sbin/sshd -t"),
)


def recipe(host: Host, facts: Facts, render: Render) -> Iterator[Resource]:
    """sshd refuses the users of apps."""
    if not host.apps:
        return
    yield Directory(_FOLDER)
    yield File(f"{_FOLDER}/deploykit.conf", render("ssh/sshd.conf.j2", group=APPS), actions=(RELOAD,))
    yield Included(path=_CONFIG, actions=(RELOAD,))


@dataclass(frozen=True, kw_only=True)
class Included(Resource):
    """sshd reads the folder of further files. Debian's and Ubuntu's configuration says so; one made by hand may not."""

    removable: ClassVar[bool] = False  # others may count on the line by now

    path: str

    @property
    def key(self) -> str:
        return f"sshd {_INCLUDE}"

    def wanted(self) -> State:
        return {"included": True}

    def observe(self) -> State | None:
        try:
            text = Path(self.path).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            raise NotYet("there is no OpenSSH server") from None
        before = re.split(r"(?im)^\s*Match\s", text, maxsplit=1)[0]
        pattern = rf"(?im)^\s*Include\s+(?:.*\s)?{re.escape(_FOLDER)}/\*(?:\.conf)?\s*$"
        return {"included": re.search(pattern, before) is not None}

    def change(self, observed: State | None) -> None:
        # First of all: for most keywords sshd takes the first value that it reads, and none of a Match block's.
        place = Path(self.path)
        status = place.stat()
        content = f"{_INCLUDE}\n".encode() + place.read_bytes()
        disk.write(self.path, content, status.st_uid, status.st_gid, status.st_mode & 0o7777)
