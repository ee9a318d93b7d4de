"""A place of its own for each machine in the outer machine's cgroup trees.

Without it the guests would share `/system.slice` and the like, and one guest's systemd would wait for
another's processes.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from .errors import SandboxError
from .store import Record

_ROOT = Path("/sys/fs/cgroup")


def _has_systemd() -> bool:
    return Path("/run/systemd/system").is_dir()  # sd_booted(3)


def _trees() -> tuple[Path, ...]:
    if (_ROOT / "cgroup.controllers").exists():
        return (_ROOT,)
    return tuple(tree for name in ("systemd", "unified", "memory") if (tree := _ROOT / name).is_dir())


def scope(record: Record) -> tuple[str, ...]:
    """Where systemd owns the trees, the words that have it make the place; else none."""
    if not _has_systemd():
        return ()
    limit = () if record.memory_mb is None else (f"--property=MemoryMax={record.memory_mb}M",)
    named = (f"--unit={_name(record)}", f"--description=deploykit sandbox {record.name}")
    return ("systemd-run", "--quiet", "--collect", "--scope", "--property=Delegate=yes", *limit, *named, "--")


def make(record: Record) -> tuple[Path, ...]:
    """Where nobody owns the trees, make the groups for a process to enter, with the memory limit set."""
    if _has_systemd():
        return ()
    groups = tuple(tree / _name(record) for tree in _trees())
    for group in groups:
        group.mkdir(exist_ok=True)
    if record.memory_mb is not None:
        _limit(record, groups)
    return groups


def remove(record: Record) -> bool:
    """Remove the emptied groups. False while a process is still in one."""
    for top in _groups(record):
        below = sorted((path for path in top.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts))
        for group in (*below, top):
            try:
                group.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                return False
    return True


def kill(record: Record) -> None:
    """SIGKILL to every process in the groups."""
    for top in _groups(record):
        for listed in top.rglob("cgroup.procs"):
            with contextlib.suppress(OSError):  # a group or a process that has just gone
                for pid in listed.read_text(encoding="ascii").split():
                    os.kill(int(pid), signal.SIGKILL)


def _groups(record: Record) -> list[Path]:
    if _has_systemd():
        wanted = [_ROOT / "system.slice" / f"{_name(record)}.scope"]
    else:
        wanted = [tree / _name(record) for tree in _trees()]
    return [group for group in wanted if group.is_dir()]


def _limit(record: Record, groups: tuple[Path, ...]) -> None:
    assert record.memory_mb is not None
    for group in groups:
        for name in ("memory.max", "memory.limit_in_bytes"):
            if (group / name).exists():
                (group / name).write_text(str(record.memory_mb * 1024 * 1024), encoding="ascii")
                return
    raise SandboxError(
        "this machine cannot limit a sandbox's memory (no cgroup memory controller)",
        f"sandbox {record.name}",
        "Leave memory_mb out.",
    )


def _name(record: Record) -> str:
    return f"deploykit-sandbox-{record.octet}"
