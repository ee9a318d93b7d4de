"""A command inside an app: as the app's user, with the environment of its live release, in the folder of manage.py."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import shlex
from collections.abc import Sequence

from deploykit import sudo, terminal
from deploykit.channel import lines
from deploykit.config.project import HostEntry
from deploykit.errors import DeploykitError
from deploykit.operations import Show, target
from deploykit.transport import Ssh

#: The host's own way into an app (templates/app/in-app.sh.j2): APP COMMAND [ARGUMENT...].
IN_APP = "/usr/local/lib/deploykit/in-app"
_NOT_DEPLOYED, _OUTDATED = 97, 96
_LONGEST = 1 << 16  # bytes of a line of what a login script prints

#: SSH can ask for a signal (RFC 4254, 6.9), but OpenSSH's server does nothing for root, nor across users.
_INTERRUPT = """
import glob, os, signal, sys
mark = sys.stdin.readline().strip().encode()
for place in glob.glob("/proc/[0-9]*"):
    try:
        if open(place + "/cmdline", "rb").read().endswith(b"\\0" + mark + b"\\0"):
            os.killpg(os.getpgid(int(place[6:])), signal.SIGINT)
    except OSError:
        pass
"""


def run(entry: HostEntry, app: str, words: Sequence[str], show: Show) -> int:
    """Runs a command of an app with our own standard streams; its exit status.

    With a terminal on our side it has one there; without, standard input is passed through to its end.
    Raises DeploykitError when the app is not deployed there, or nobody can become its user.
    """
    ssh = Ssh(target(entry), show.host_key)
    ssh.open()
    with contextlib.closing(ssh):
        pty = terminal.present()
        become, first = _ready(ssh, entry.name, app, show, pty)
        # The shell stays: of a program that a signal ended it says 128 + the signal's number, as ours would.
        command = f"{become}{shlex.join([IN_APP, app, *words])}; exit $?"
        mark = f"deploykit-{secrets.token_hex(8)}"
        return ssh.join(
            shlex.join(["exec", "/bin/sh", "-c", command, mark]),
            pty=pty,
            first=first,
            interrupt=lambda: _interrupt(ssh, become, first, mark),
        )


def _interrupt(ssh: Ssh, become: str, first: bytes, mark: str) -> None:
    """Ctrl-C for a command without a terminal: it is the group of the shell that bears the mark."""
    with contextlib.suppress(DeploykitError, ConnectionError):
        exchange = ssh.exec(f"exec {become}{shlex.join(['python3', '-IS', '-c', _INTERRUPT])}")
        exchange.write(first + mark.encode() + b"\n")
        exchange.close_write()
        exchange.finish()


def _ready(ssh: Ssh, name: str, app: str, show: Show, pty: bool) -> tuple[str, bytes]:
    """(what stands before the command, what sudo must be told first): looked at before, so that errors are ours."""
    where = f"host {name}"
    there = f"test -e /etc/deploykit/{app}.env || exit {_NOT_DEPLOYED}; test -x {IN_APP} || exit {_OUTDATED}"
    status, said = _asked(ssh, f"{there}; {sudo.prefix(ssh.user, password=False)}true")
    if status == _NOT_DEPLOYED:
        raise DeploykitError(f"{app} is not deployed there", where, f"fab deploy --host {name}")
    if status == _OUTDATED:
        todo = f"bring it up to date with: fab deploy --host {name}"
        raise DeploykitError("it was deployed by a deploykit that had no such command yet", where, todo)
    if ssh.user != "root" and sudo.wants_password(said):
        if pty:
            return "sudo ", b""  # which asks by itself, on the terminal it has
        password = show.password(f"sudo password of {ssh.user} on {name}").encode() + b"\n"
        # Tried first: sudo that does not accept it would take the next lines of standard input for further tries.
        become = sudo.prefix(ssh.user, password=True)
        status, said = _asked(ssh, f"{become}true", password)
        if status == 0:
            return become, password
    if refusal := sudo.refusal(ssh.user, status, said, where):
        raise refusal
    if status:
        raise DeploykitError("it does not run commands", where, said)
    return sudo.prefix(ssh.user, password=False), b""


def _asked(ssh: Ssh, script: str, data: bytes = b"") -> tuple[int, str]:
    exchange = ssh.exec(shlex.join(["exec", "/bin/sh", "-c", script]))
    if data:
        exchange.write(data)
    exchange.close_write()
    try:
        noise = [line.decode("utf-8", "replace") for line in itertools.islice(lines(exchange, _LONGEST), 100)]
    except (ConnectionError, OverflowError) as error:
        raise DeploykitError(str(error), f"host {ssh.target.name}", "try again; does ssh work?") from None
    status, said = exchange.finish()
    return status, said.strip() or "".join(noise).strip()
