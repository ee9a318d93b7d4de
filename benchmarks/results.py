"""Raw measurements: lines of JSON in results.jsonl, one for each run, and one for each session that made them."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Iterable
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from job import REPOSITORY
from tools import PEERS

Line = dict[str, Any]


class Results:
    """The file, and the session that now adds to it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._session = ""

    def begin(self, remark: str) -> None:
        """Notes where and with what is measured from now on."""
        self._session = f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}"
        self._append({"kind": "session", "remark": remark, **_circumstances()})

    def keep(self, line: Line) -> None:
        """One measurement, written at once: a session that ends early has lost nothing."""
        self._append(line)

    def _append(self, line: Line) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps({"session": self._session, **line}) + "\n")

    def read(self) -> list[Line]:
        """Every line, oldest first."""
        if not self._path.exists():
            return []
        return [json.loads(line) for line in self._path.read_text().splitlines() if line.strip()]


def newest(lines: Iterable[Line], *names: str) -> dict[tuple[Any, ...], list[Line]]:
    """The lines by the values of `names`; of each group only those of the newest session that measured it."""
    groups: dict[tuple[Any, ...], list[Line]] = {}
    for line in lines:
        group = groups.setdefault(tuple(line[name] for name in names), [])
        if group and group[-1]["session"] != line["session"]:
            group.clear()
        group.append(line)
    return groups


def median(lines: Iterable[Line], name: str) -> float:
    """Of one figure of several runs."""
    return float(statistics.median(line[name] for line in lines))


def _circumstances() -> Line:
    processors = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in processors if line.startswith("model name")), platform.machine()
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    ours = {name: version(name) for name in ("deploykit", "fabric", "paramiko", "pydantic")}
    return {
        "machine": f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB; {system}, Linux {platform.release()}",
        "commit": _said("git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"),
        "python": platform.python_version(),
        "ssh": _said("ssh", "-V").partition(",")[0],
        "versions": {**ours, **_peers()},
    }


def _peers() -> dict[str, str]:
    python = PEERS / "bin/python"
    if not python.exists():
        return {}
    names = ("ansible", "ansible-core", "mitogen", "pyinfra")
    script = f"from importlib.metadata import version\nfor name in {names!r}: print(name, version(name))"
    return dict(line.split() for line in _said(str(python), "-c", script).splitlines())


def _said(*argv: str) -> str:
    return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout.strip()
