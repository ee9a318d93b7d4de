"""Ends all that a user runs, and all by which it would run again: for an app that is removed, whatever it does."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from deploykit.agent import trees
from deploykit.agent.process import run
from deploykit.agent.resource import Failed

#: Ends every process of a user in one step of the kernel (kill(2), pid -1), so that one that forks as fast as it can
#: has nothing left that could. The caller has the user's number as its effective one alone: so it may end them, and
#: they may not end it, since for that its real and its saved one count: a number that no account is given,
#: https://systemd.io/UIDS-GIDS
_END = """
import os, signal, sys
os.setgroups([])
os.setresuid(65533, int(sys.argv[1]), 65533)
os.kill(-1, signal.SIGKILL)
"""

_PATIENCE = 20.0  # seconds; a process in an uninterruptible wait for a disk takes that long to end

#: Folders where any user may leave something.
_SHARED = (
    *("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run/lock"),
    *("/var/spool/cron/atjobs", "/var/spool/cron/atspool", "/var/crash"),
)


def end(user: str) -> None:
    """Ends every process of `user`, its timed commands included. No-op for a user who is not there. Raises Failed."""
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        return
    if account.pw_uid == 0:
        raise Failed("the processes of root are not ended")
    _no_more_starts(user, account.pw_uid)
    deadline = time.monotonic() + _PATIENCE
    while True:
        # At least once: one whose first thread has ended looks like one that has ended.
        run(["/usr/bin/python3", "-IS", "-c", _END, str(account.pw_uid)], check=False)
        if not (left := list(_processes(account.pw_uid))):
            return
        if time.monotonic() > deadline:
            names = "\n".join(f"{pid} {name}" for pid, name in left[:10])
            todo = "look at them on the host (`ps -u`), end them, then run the same command again"
            raise Failed(f"processes of {user} do not end", names, todo)
        time.sleep(0.05)


def forget(user: str) -> None:
    """Removes what a user has left in the folders that all users share, and in the kernel's shared memory.

    The next user to be made may get the same number, and would own it.
    """
    try:
        uid = pwd.getpwnam(user).pw_uid
    except KeyError:
        return
    for top in map(Path, _SHARED):
        for name in os.listdir(top) if top.is_dir() else ():
            with contextlib.suppress(OSError):
                if os.lstat(top / name).st_uid == uid:
                    trees.remove(top / name, check=False)
    for kind, option in (("shm", "-m"), ("msg", "-q"), ("sem", "-s")):
        for number in _ipc(kind, uid):
            run(["ipcrm", option, number], check=False)


def _no_more_starts(user: str, uid: int) -> None:
    """Its own crontab, and a systemd of its own."""
    if shutil.which("crontab") and os.path.lexists(f"/var/spool/cron/crontabs/{user}"):
        run(["crontab", "-r", "-u", user], check=False)
    Path(f"/var/lib/systemd/linger/{user}").unlink(missing_ok=True)
    if os.path.exists(f"/run/user/{uid}"):
        run(["systemctl", "stop", f"user@{uid}.service"], check=False, timeout=60)


def _processes(uid: int) -> Iterator[tuple[int, str]]:
    """(pid, name) of the processes that have `uid` as one of their user numbers, without those that have ended."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            # The owner of /proc/PID is root's for one that may not be traced: the file in it says the truth.
            with open(f"/proc/{entry}/status", encoding="utf-8", errors="replace") as file:
                fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        except OSError:
            continue  # it has ended meanwhile
        numbers = fields.get("Uid", "").split()
        if str(uid) in numbers and not fields.get("State", "").startswith(("Z", "X")):
            yield int(entry), fields.get("Name", "")


def _ipc(kind: str, uid: int) -> Iterator[str]:
    """The numbers of a user's System V shared memory, queues or semaphores: proc(5), /proc/sysvipc."""
    try:
        with open(f"/proc/sysvipc/{kind}", encoding="ascii") as file:
            head, *lines = [line.split() for line in file]
    except (OSError, ValueError):
        return
    number, owner = 1, head.index("uid")
    yield from (fields[number] for fields in lines if fields[owner] == str(uid))
