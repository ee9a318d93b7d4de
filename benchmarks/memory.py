"""The peak memory of deploykit's agent on the host, at its largest request: ten apps to a bare host, then again."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from job import Job
from measure import host, measured
from tools import TOOLS

from deploykit import sandbox
from deploykit.sandbox import Sandbox

APPS = 10

#: Runs on the host until its standard input ends: the highest VmHWM of any process of the agent, in KiB.
_SAMPLER = """
import json, os, re, select, sys
peak = 0
while not select.select([0], [], [], 0.005)[0]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                words = open(f"/proc/{name}/cmdline", "rb").read().split(b"\\0")
                if words[0].endswith(b"python3") and words[2].startswith(b"/var/lib/deploykit/agent/"):
                    text = open(f"/proc/{name}/status").read()
                    peak = max(peak, int(re.search(r"VmHWM:\\s+(\\d+)", text)[1]))
            except (OSError, TypeError, IndexError):
                pass
print(json.dumps({"peak": peak}))
"""


def measure(folder: Path, keep: Callable[[dict[str, object]], None], prefix: str, say: Callable[[str], None]) -> None:
    """Once: the agent does the same work each time."""
    with host(f"{prefix}-mem") as box:
        tool = TOOLS["deploykit"](folder / "memory", Job(folder / "memory/project", APPS), box)
        tool.job.commit()
        for case in ("first", "nothing"):
            with _watched(box) as found:
                run = measured(box, tool.command(), tool.job.folder, tool.environment())
            if run.status:
                raise RuntimeError(f"fab deploy ended with {run.status}:\n{run.output[-3000:]}")
            left = sandbox.run(box.name, "sh", "-c", "ps -eo args | grep '[/]var/lib/deploykit/agent' || true").stdout
            say(f"memory, {case}: {found['peak'] / 1024:.1f} MiB")
            keep(
                {
                    "kind": "memory",
                    "case": case,
                    "apps": APPS,
                    "mebibytes": round(found["peak"] / 1024, 1),
                    "left": len(left.splitlines()),
                }
            )


@contextlib.contextmanager
def _watched(box: Sandbox) -> Iterator[dict[str, int]]:
    sandbox.run(box.name, "sh", "-c", "cat >/root/sampler.py", stdin=_SAMPLER.encode())
    options = ["-F", "/dev/null", "-i", str(box.identity), "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"]
    options += ["-o", "UserKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=no"]  # a sandbox of this machine
    found: dict[str, int] = {}
    with subprocess.Popen(
        ["ssh", *options, f"root@{box.address}", "python3 /root/sampler.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as sampler:
        yield found
        out, _ = sampler.communicate(b"end")
    found.update(json.loads(out))
