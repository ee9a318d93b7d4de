"""What the host says of itself: a few files, no process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from deploykit.agent.values import Facts


def read() -> Facts:
    """The facts of this host. Source of the names: os-release(5), proc(5)."""
    release: dict[str, str] = {}
    for line in _text("/etc/os-release").splitlines():
        name, found, value = line.partition("=")
        if found:
            release[name] = value.strip("\"'")
    memory = 0
    for line in _text("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            memory = int(line.split()[1]) // 1024
    return Facts(
        system=release.get("ID", ""),
        version=release.get("VERSION_ID", ""),
        codename=release.get("VERSION_CODENAME", ""),
        architecture=os.uname().machine,
        memory=_limited(memory),
        processors=len(os.sched_getaffinity(0)),
        ipv6=Path("/proc/net/if_inet6").exists(),
        python=".".join(map(str, sys.version_info[:3])),
    )


def _limited(memory: int) -> int:
    """A container's own limit (cgroup v2) where it is lower than the machine's memory. Rounded: it must hold still."""
    limit = _text("/sys/fs/cgroup/memory.max").strip()
    if limit.isdigit():
        memory = min(memory, int(limit) // 2**20)
    return memory // 16 * 16


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
