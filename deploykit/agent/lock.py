"""One run at a time on a host, and whoever comes second is told by whom and since when it is taken.

`flock`, so that a killed run leaves no stale lock: the kernel lets go of it.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from dataclasses import asdict
from pathlib import Path

from deploykit.agent import paths, process
from deploykit.agent.dataclass import dataclass
from deploykit.agent.resource import Failed
from deploykit.model import layout


@dataclass(frozen=True)
class Holder:
    """Who has the lock. `since` in seconds since the epoch, `digest` names what is being applied."""

    who: str
    run: str
    digest: str
    operation: str
    since: float
    pid: int

    @property
    def age(self) -> float:
        """Seconds it has been held."""
        return max(0.0, time.time() - self.since)


class Held(Exception):
    """Somebody else has the lock. `holder` is None in the instant in which it changes hands."""

    def __init__(self, holder: Holder | None) -> None:
        super().__init__("the host is locked")
        self.holder = holder


class Lock:
    """The host's lock, taken. Inherited over a fork: it is free when the last process that has it ends. A context.

    `before`: who had it last, as far as that is known.
    """

    def __init__(self, handle: int, before: Holder | None = None) -> None:
        self._handle = handle
        self.before = before

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def write(self, holder: Holder) -> None:
        """Says who holds it."""
        data = json.dumps(asdict(holder)).encode()
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, data, 0)

    def close(self) -> None:
        """This process has it no more; another one that inherited it keeps it. May be called again."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)


def take(holder: Holder) -> Lock:
    """Takes the lock at once or raises Held."""
    paths.STATE.mkdir(mode=0o755, parents=True, exist_ok=True)
    handle = os.open(paths.LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        text = os.pread(handle, 65536, 0)
        os.close(handle)
        raise Held(_parse(text)) from None
    lock = Lock(handle, _parse(os.pread(handle, 65536, 0)))
    lock.write(holder)
    return lock


def settle(patience: float = 300.0) -> None:
    """Waits until all programs of earlier runs have ended, and lets those of this one be waited for. Raises Failed.

    A killed run leaves its `apt-get`, `uv` or `migrate` behind, and a second one beside it would do harm. They inherit
    a locked file, and the kernel frees it when the last of them has ended. An app's programs have a file of that app's,
    which is waited for when it is that app's turn: what an app leaves behind holds up no other. `patience` in seconds.
    """
    files: dict[str, int] = {"": _locked(paths.PROGRAMS, patience)}
    opening = threading.Lock()

    def kept(user: str) -> tuple[int, ...]:
        name = user if user and os.path.lexists(layout.home(user)) else ""
        with opening:
            if name not in files:
                files[name] = _locked(_programs(name), patience)
            return (files[name],)

    process.keep(kept)


def _programs(app: str) -> Path:
    return paths.PROGRAMS.with_name(f"{paths.PROGRAMS.name}.{app}")


def _locked(path: Path, patience: float) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except OSError:
            if time.monotonic() > deadline:
                os.close(handle)
                what = "what an earlier run started still goes on"
                raise Failed(what, _users(path), "wait for it or end it, then deploy again") from None
            time.sleep(0.05)


def settled() -> None:
    """The run has ended in order. What it leaves running (a build's server for the next build) is nobody's orphan."""
    process.keep(None)
    for path in (paths.PROGRAMS, *paths.STATE.glob(f"{paths.PROGRAMS.name}.*")):
        path.unlink(missing_ok=True)


def _users(path: Path) -> str:
    """The programs that have the file open, a line each."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            places = {os.readlink(f"/proc/{entry}/fd/{each}") for each in os.listdir(f"/proc/{entry}/fd")}
            if int(entry) != os.getpid() and str(path) in places:
                with open(f"/proc/{entry}/comm", encoding="utf-8", errors="replace") as name:
                    found.append(f"{entry} {name.read().strip()}")
        except (OSError, ValueError):
            continue  # no process, or one that has ended meanwhile
    return "\n".join(found)


def _parse(text: bytes) -> Holder | None:
    try:
        return Holder(**json.loads(text))
    except (ValueError, TypeError):
        return None
