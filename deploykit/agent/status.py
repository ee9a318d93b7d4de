"""How the apps of a host are, at a glance: read only, no lock."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

from deploykit.agent import facts, launched, paths, schedule, supervisord
from deploykit.agent.deployment import live, record, running
from deploykit.agent.resource import NotYet
from deploykit.agent.wire import Event


def read() -> Event:
    """Memory and disk in MiB, times in seconds since the epoch, `uptime` in seconds."""
    disk = shutil.disk_usage("/")
    return {
        "event": "status",
        "host": {
            "system": f"{facts.read().system} {facts.read().version}",
            "memory": facts.read().memory,
            "available": _available(),
            "disk": disk.total // 2**20,
            "free": disk.free // 2**20,
            "load": os.getloadavg()[0],
            "processors": facts.read().processors,
        },
        "apps": [_app(path.stem) for path in sorted(paths.APPS.glob("*.json"))],
        "journal": _last_run(),
    }


def _app(app: str) -> dict[str, Any]:
    slot = live(app)
    release = running(app, slot) if slot else ""
    process: dict[str, Any] = {}
    beside: dict[str, dict[str, Any]] = {}
    if slot:
        try:
            process = supervisord.processes().get(f"{app}-{slot}", {})
            names = [name for name in supervisord.of(app, slot) if name != f"{app}-{slot}"]
            beside = {name.partition(".")[2]: supervisord.processes()[name] for name in names}
        except NotYet:
            process = {"statename": "supervisor does not run"}
    releases = record(app)["releases"]
    pid = int(process.get("pid", 0))
    for name, one in (("web", process), *beside.items()):
        if one.get("pid"):  # the one that answers, where supervisor knows only what stands for it
            one["pid"] = launched.main(app, slot or "", name) or one["pid"]
    family = [each for one in (process, *beside.values()) if one.get("pid") for each in _family(int(one["pid"]))]
    return {
        "app": app,
        "slot": slot or "",
        "release": release,
        "label": next((each["label"] for each in releases if each["release"] == release), ""),
        "at": next((each["at"] for each in releases if each["release"] == release), 0),
        "process": process.get("statename", "not running"),
        "uptime": int(time.time() - process["start"]) if pid else 0,
        "processes": len(family),
        "programs": [_program(name, each) for name, each in beside.items()],
        "schedule": schedule.read(app),
        "memory": sum(_resident(each) for each in family) // 1024,
        "releases": [{"release": e["release"], "label": e["label"], "at": e["at"]} for e in releases],
        "size": _size(Path("/srv") / app),
    }


def _program(name: str, process: dict[str, Any]) -> dict[str, Any]:
    """One further process. `state` is supervisor's word; BACKOFF is a crash, tried again."""
    pid = int(process["pid"])
    return {
        "name": name,
        "state": process["statename"],
        "uptime": int(time.time() - process["start"]) if pid else 0,
        "memory": sum(map(_resident, _family(pid))) // 1024 if pid else 0,
        "said": process.get("spawnerr", ""),
    }


def _family(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parent = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # ended meanwhile
            children.setdefault(parent, []).append(int(entry))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def _resident(pid: int) -> int:
    """Proportional set size in KiB: shared pages are counted once over all workers."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def _available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return 0


def _size(folder: Path) -> int:
    """Disk the app's folder takes, MiB; a file with several links counts once."""
    seen = set()
    total = 0
    folders = [str(folder)]
    while folders:  # os.walk does one call a level before Python 3.12, and an app may have made a thousand
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                    continue
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if status.st_ino not in seen:
                        seen.add(status.st_ino)
                        total += status.st_blocks * 512
    return total // 2**20


def _last_run() -> dict[str, Any]:
    import json

    try:
        line = paths.JOURNAL.read_bytes().rstrip().rpartition(b"\n")[2]
        entry: dict[str, Any] = json.loads(line)
    except (OSError, ValueError):
        return {}
    return entry
