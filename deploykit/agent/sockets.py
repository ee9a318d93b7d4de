"""Who listens at a web process's socket, and whether anybody is still connected to it."""

from __future__ import annotations

import os
from pathlib import Path


def connections(path: str) -> int:
    """How many clients are connected to the listening socket at `path`, those not yet accepted included.

    In /proc/net/unix both the accepted and the waiting server ends carry the listener's path; the listener itself has
    the flag __SO_ACCEPTCON, 0x10000 (proc(5)).
    """
    count = 0
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[7] == path and not int(fields[3], 16) & 0x10000:
            count += 1
    return count


def of_release(pid: int, release: str) -> bool:
    """Whether a process was started for a release: its environment says so, or else its working folder.

    Where the package setproctitle is installed, gunicorn and Celery use it, and the title takes the place of what the
    kernel knows of a process's environment.
    """
    told = environment(pid).get("DEPLOYKIT_RELEASE")
    if told is not None:
        return told == release
    try:
        return f"/releases/{release}/" in f"{os.readlink(f'/proc/{pid}/cwd')}/"
    except OSError:
        return False


def environment(pid: int) -> dict[str, str]:
    """The environment a process was started with."""
    try:
        data = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (each.decode("utf-8", "replace").partition("=") for each in data.split(b"\0") if each)
    return {name: value for name, _, value in pairs}
