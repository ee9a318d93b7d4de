"""Where sandboxes are remembered: one small JSON file each, readable without root."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from deploykit.agent.dataclass import dataclass

from .errors import SandboxError

STATE = Path("/var/lib/deploykit-sandbox")
HOSTS = STATE / "hosts"
_TRASH = STATE / "trash"
IDENTITY = STATE / "id_ed25519"
_LOCKS = STATE / "locks"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,20}")


@dataclass(frozen=True)
class Sandbox:
    """One throw-away machine, as it was when asked.

    `host_key` is known because it was made before the first boot; `pid` is the process that owns the
    machine (0 when it never ran); `image` names what it was made from.
    """

    name: str
    address: str
    port: int
    user: str
    identity: Path
    host_key: str
    pid: int
    running: bool
    image: str


@dataclass(frozen=True)
class Record:
    """What the JSON file holds: a sandbox and what is needed to boot it again."""

    name: str
    address: str
    host_key: str
    suite: str
    packages: tuple[str, ...]
    image: str
    lowers: tuple[str, ...]
    memory_mb: int | None
    disk_mb: int | None
    pid: int = 0
    started: int = 0  # the process's start time in clock ticks since boot: a pid alone may be reused

    @property
    def folder(self) -> Path:
        return folder(self.name)

    @property
    def octet(self) -> int:
        return int(self.address.rpartition(".")[2])

    def running(self) -> bool:
        return self.pid > 0 and start_time(self.pid) == self.started

    def shown(self) -> Sandbox:
        return Sandbox(
            self.name, self.address, 22, "root", IDENTITY, self.host_key, self.pid, self.running(), self.image
        )


def is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def check_name(name: str) -> None:
    if not is_name(name):
        raise SandboxError(
            f"{name!r} cannot be a sandbox's name",
            "sandbox",
            "Use 1 to 21 of a-z, 0-9 and -, beginning with a letter.",
        )


def folder(name: str) -> Path:
    return HOSTS / name


def read(name: str) -> Record | None:
    """The record, or None when there is no such sandbox, or its file cannot be understood."""
    if not is_name(name):
        return None
    try:
        text = (folder(name) / "host.json").read_text(encoding="utf-8")
        fields = {field.name for field in dataclasses.fields(Record)}
        values = {key: value for key, value in json.loads(text).items() if key in fields}
        values["packages"] = tuple(values["packages"])
        values["lowers"] = tuple(values["lowers"])
        return Record(**values)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # half-made by a process that was killed: `up` and `down` both start from nothing


def write(record: Record) -> None:
    record.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    target = record.folder / "host.json"
    part = target.with_suffix(".part")
    part.write_text(json.dumps(dataclasses.asdict(record), indent=1), encoding="utf-8")
    part.chmod(0o644)
    part.replace(target)


def throw_away(name: str) -> None:
    """From now on there is no such sandbox. Its files take up room until `empty_trash`."""
    _TRASH.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        folder(name).rename(_TRASH / f"{name}.{time.time_ns():x}")


def empty_trash() -> None:
    """Deletes what was thrown away, also by a process that was killed before it came to this."""
    with shared_lock("trash"):  # two that delete the same would stumble over each other
        for each in _TRASH.iterdir():
            # not shutil.rmtree: it does one call a level, and an app can nest folders deeper than Python calls
            subprocess.run(["rm", "-rf", "--", each], stdin=subprocess.DEVNULL, capture_output=True, check=True)


def records() -> list[Record]:
    try:
        names = sorted(entry.name for entry in HOSTS.iterdir())
    except OSError:
        return []
    return [record for record in map(read, names) if record is not None]


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold one sandbox's lock between processes; it ends with the process that held it, however that ends."""
    path = _LOCKS / f"host-{name}"  # a sandbox may be called "network"
    with _lock(path):
        try:
            yield
        finally:
            if not folder(name).exists():
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def shared_lock(what: str) -> Iterator[None]:
    """Hold the lock of something that all sandboxes share. Taken after a sandbox's own, never before."""
    with _lock(_LOCKS / what):
        yield


def _lock(path: Path) -> contextlib.AbstractContextManager[None]:
    _LOCKS.mkdir(mode=0o755, parents=True, exist_ok=True)
    return locked_file(path)


@contextlib.contextmanager
def locked_file(path: Path) -> Iterator[None]:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if _same_file(path, handle):  # not when who held it has removed it
                yield
                return
        finally:
            os.close(handle)


def _same_file(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def start_time(pid: int) -> int:
    """When process `pid` started, in ticks since boot (proc(5), field 22); 0 for a dead one or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    fields = text.rpartition(")")[2].split()  # the name in parentheses may hold anything
    return 0 if fields[0] in "ZX" else int(fields[19])


def find(name: str) -> Sandbox | None:
    """The sandbox of this name, running or not; None when there is none. Needs no root, never raises."""
    record = read(name)
    return None if record is None else record.shown()


def every() -> list[Sandbox]:
    """All sandboxes, by name."""
    return [record.shown() for record in records()]
