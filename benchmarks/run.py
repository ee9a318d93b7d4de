"""Measures deploykit on throw-away hosts of this machine, prints a table and writes RESULTS.md beside this file.

    sudo .venv/bin/python benchmarks/run.py            # everything, about 12 minutes on 2 cores
    sudo .venv/bin/python benchmarks/run.py nothing    # these cases only: nothing, change, first, memory

Times are those of the whole process, from fork to exit, as a person waits for it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import far
from project import REPOSITORY, Count, Project, calm, host, listen

from deploykit import sandbox
from deploykit.sandbox import Sandbox

HERE = Path(__file__).resolve().parent
TRIP = 0.05  # seconds there and back

_ONE = """\
[hosts.{host}]
{where}
[apps.memories]
source = "memories"
domains = ["memories.example"]
health = "/healthz"

[apps.memories.env]
GREETING = "{greeting}"
"""
_APP = """
[apps.links{number}]
source = "links"
domains = ["links{number}.example"]
redis = true
health = "/healthz"
"""


@dataclass
class Row:
    """One line of the table: figures of several runs, and what they should be."""

    case: str
    unit: str = "s"
    runs: list[float] = field(default_factory=list)
    target: str = ""
    holds: bool | None = None
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.runs)

    def limit(self, most: float) -> Row:
        """Sets the target, and whether the median meets it."""
        self.target = f"<= {most:g} {self.unit}".rstrip()
        self.holds = self.median <= most
        return self

    def cells(self) -> list[str]:
        """As text."""
        places = 1 if self.unit == "MiB" else 2
        numbers = [f"{value:.{places}f}" for value in (self.median, min(self.runs), max(self.runs))]
        verdict = "" if self.holds is None else "yes" if self.holds else "**no**"
        return [self.case, *numbers, self.unit, str(len(self.runs)), self.target, verdict, self.note]


HEAD = ["case", "median", "min", "max", "unit", "runs", "target", "met", "note"]


class Bench:
    """The rows measured so far, and how busy the machine was meanwhile."""

    def __init__(self, folder: Path, runs: int, firsts: int, patience: float, prefix: str, remark: str) -> None:
        self.folder, self.runs, self.firsts, self.patience, self.prefix = folder, runs, firsts, patience, prefix
        self.remark = remark
        self.rows: list[Row] = []
        self.loads: list[float] = []
        self.shares: list[float] = []
        self._projects = 0

    def project(self) -> Project:
        """A new one."""
        self._projects += 1
        return Project(self.folder / f"{self._projects}")

    def ready(self) -> None:
        """Before each run: waits for a calm machine, and notes how calm it is."""
        self.shares.append(calm(self.patience))
        self.loads.append(os.getloadavg()[0])

    def say(self, text: str) -> None:
        """Progress."""
        print(f"[{datetime.now():%H:%M:%S}] {text}", flush=True)

    # -- the cases -----------------------------------------------------------------------------------------------

    def nothing(self) -> None:
        """Cases 1, 2 and 4: a deployed host; nothing to do, near and far; then one value of the environment."""
        with self.deployed(1) as (box, project), self.deployed(10) as (many, several):
            self.say(f"nothing to do, {self.runs} runs each, interleaved")
            with far.away(box.address, 22, TRIP) as one_port, far.away(many.address, 22, TRIP) as ten_port:
                distant = self.distant(box, project, 1, one_port), self.distant(many, several, 10, ten_port)
                rows = {
                    "nothing to do, 1 app": (Row("nothing to do, 1 app"), project, box),
                    "nothing to do, 10 apps": (Row("nothing to do, 10 apps"), several, many),
                    "far 1": (Row("nothing to do, 1 app, 50 ms away"), distant[0], box),
                    "far 10": (Row("nothing to do, 10 apps, 50 ms away"), distant[1], many),
                }
                for row, where, machine in rows.values():
                    where.deploy()  # the first one from a project asks the host what it is
                    count = Count(machine.name)
                    _, said = where.deploy()
                    connections, execs = count.now()
                    row.note = f"{connections} connection, {execs} exec"
                    if "nothing to do" not in said:
                        sys.exit(f"{row.case}: there was something to do:\n{said}")
                for _ in range(self.runs):
                    for row, where, _machine in rows.values():
                        self.ready()
                        row.runs.append(where.deploy()[0])
            for name, most in (("nothing to do, 1 app", 0.8), ("nothing to do, 10 apps", 1.0)):
                self.rows.append(rows[name][0].limit(most))
            for name, near in (("far 1", "nothing to do, 1 app"), ("far 10", "nothing to do, 10 apps")):
                row = rows[name][0]
                row.limit(round(rows[near][0].median + 0.6, 2))
                row.note += f"; {row.median - rows[near][0].median:+.2f} s"
                self.rows.append(row)
            self.change(box, project)

    def change(self, box: Sandbox, project: Project) -> None:
        """One line of deploykit.toml."""
        row = Row("one value of an app's environment changed")
        for number in range(self.runs):
            self.write(project, box.name, 1, greeting=f"hello {number}")
            self.ready()
            row.runs.append(project.deploy()[0])
        self.rows.append(row.limit(2.5))

    def first(self) -> None:
        """Case 3: bare hosts in turn, one by the script and one by deploykit."""
        script, ours = Row("bare host, 1 app, benchmarks/limit.sh"), Row("bare host, 1 app, fab deploy")
        cargo = _cargo()
        for number in range(self.firsts):
            for row in (script, ours):
                with host(f"{self.prefix}-first") as box:
                    project = self.project()
                    project.example("memories")
                    self.write(project, box.name, 1)
                    self.ready()
                    if row is ours:
                        row.runs.append(project.deploy()[0])
                    else:
                        row.runs.append(_by_script(box, cargo))
                    self.say(f"{row.case}: {row.runs[-1]:.1f} s ({number + 1} of {self.firsts})")
        ratio = Row("fab deploy / limit.sh", unit="x", runs=[ours.median / script.median])
        self.rows += [script, ours, ratio.limit(1.25)]

    def memory(self) -> None:
        """Case 5: the agent's peak, at its largest request: 10 apps, from a bare host and with nothing to do."""
        busy, idle = (
            Row("agent's peak memory, first deploy of 10 apps", "MiB"),
            Row("agent's peak memory, 10 apps", "MiB"),
        )
        with host(f"{self.prefix}-mem") as box:
            project = self.project()
            project.example("links")
            self.write(project, box.name, 10)
            for row in (busy, idle):
                with _watched(box.name) as found:
                    project.deploy()
                row.runs.append(found["peak"] / 1024)
            left = sandbox.run(box.name, "sh", "-c", "ps -eo args | grep '[/]var/lib/deploykit' || true").stdout
            busy.note = f"processes of deploykit left on the host: {len(left.splitlines())}"
            idle.note = "nothing to do"
        self.rows += [busy.limit(60), idle.limit(60)]

    # -- their parts ---------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def deployed(self, apps: int) -> Iterator[tuple[Sandbox, Project]]:
        """A host with its apps already there."""
        with host(f"{self.prefix}-{apps}") as box:
            self.say(f"deploying {apps} app{'s' * (apps > 1)} to {box.name}")
            listen(box.name)
            project = self.project()
            project.example("memories" if apps == 1 else "links")
            self.write(project, box.name, apps)
            seconds, _ = project.deploy()
            self.say(f"deployed in {seconds:.1f} s")
            yield box, project

    def distant(self, box: Sandbox, near: Project, apps: int, port: int) -> Project:
        """The same project, whose host is reached through a port of this machine."""
        project = self.project()
        project.example("memories" if apps == 1 else "links")
        project.know(box, port)
        self.write(project, "away", apps, where=f'address = "127.0.0.1"\nuser = "root"\nport = {port}\n')
        return project

    @staticmethod
    def write(project: Project, name: str, apps: int, where: str = "", greeting: str = "hello") -> None:
        """deploykit.toml for one app or many."""
        if apps == 1:
            project.write(_ONE.format(host=name, where=where, greeting=greeting))
        else:
            tables = "".join(_APP.format(number=number) for number in range(apps))
            project.write(f"[hosts.{name}]\n{where}{tables}")

    # -- the outcome ---------------------------------------------------------------------------------------------

    def report(self) -> str:
        """The table and its circumstances, as Markdown."""
        lines = [
            "# Measured",
            "",
            "Written by `benchmarks/run.py`. Times are of the whole `fab deploy` process, from fork to exit.",
            "",
            *(f"- {line}" for line in self.circumstances()),
            "",
            "| " + " | ".join(HEAD) + " |",
            "|" + " --- |" * len(HEAD),
            *("| " + " | ".join(row.cells()) + " |" for row in self.rows),
            "",
            *NOTES,
        ]
        return "\n".join(lines) + "\n"

    def circumstances(self) -> list[str]:
        """Machine, system, versions, date, load."""
        processors = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(
            (line.partition(":")[2].strip() for line in processors if line.startswith("model name")),
            platform.machine(),
        )
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
        programs = ", ".join(f"{each} {version(each)}" for each in ("deploykit", "fabric", "paramiko", "pydantic"))
        return [
            f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
            f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB; {system}, Linux {platform.release()}",
            f"Python {platform.python_version()}, {programs}; hosts: Debian 12 (bookworm) sandboxes on this machine",
            f"load average before the runs: median {statistics.median(self.loads):.2f}, "
            f"at most {max(self.loads):.2f}; other work on the cores just before each run: median "
            f"{statistics.median(self.shares):.0%}, at most {max(self.shares):.0%}",
            *([self.remark] if self.remark else []),
        ]


NOTES = """\
How it is measured:

- The hosts are sandboxes (`fab sandbox up`) on the same machine, so controller and host share its cores. Their disks
  do not wait for `fsync`: on real disks apt takes longer, for the script as for deploykit.
- "1 app" is `examples/memories` (PostgreSQL, media), "10 apps" are ten of `examples/links` (PostgreSQL, and a Redis
  each). The project is a git repository. Runs of the cases are interleaved.
- "50 ms away": through a proxy that delays each direction by 25 ms and takes one and a half trips to connect
  (`benchmarks/far.py`). It has no slow start and loses nothing.
- Connections and execs are what the host's sshd noted of one run.
- `limit.sh` does the same as the first deploy in one connection, one step after the other, as people write such
  scripts, with the fastest way to a single virtualenv. Both find the same image with the same package lists, and fetch
  packages from the same places; runs alternate.
- The agent's memory is VmHWM of its processes, read on the host every 5 ms.
""".splitlines()


def _cargo() -> bytes:
    """The script and the app's source in one archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.add(HERE / "limit.sh", "limit.sh")
        archive.add(
            REPOSITORY / "examples" / "memories",
            "memories",
            filter=lambda each: None if "__pycache__" in each.name or each.name.endswith("/media") else each,
        )
    return buffer.getvalue()


def _by_script(box: Sandbox, cargo: bytes) -> float:
    began = time.perf_counter()
    script = 'd=$(mktemp -d) && tar xz --no-same-owner -C "$d" && sh "$d/limit.sh" "$d"'
    said = sandbox.run(box.name, "sh", "-c", script, stdin=cargo).stdout
    if b"answers 200" not in said:
        sys.exit(f"limit.sh did not come to its end: {said.decode()}")
    return time.perf_counter() - began


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


@contextlib.contextmanager
def _watched(name: str) -> Iterator[dict[str, int]]:
    box = sandbox.find(name)
    assert box is not None
    folder = tempfile.mkdtemp()
    known = Path(folder) / "known_hosts"
    known.write_text(f"{box.address} {box.host_key}\n")
    options = ["-F", "/dev/null", "-i", str(box.identity), "-o", f"UserKnownHostsFile={known}", "-o", "BatchMode=yes"]
    sandbox.run(name, "sh", "-c", "cat >/root/sampler.py", stdin=_SAMPLER.encode())
    found: dict[str, int] = {}
    with subprocess.Popen(
        ["ssh", *options, f"root@{box.address}", "python3 /root/sampler.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as sampler:
        yield found
        out, _ = sampler.communicate(b"end")
    found.update(json.loads(out))


def main() -> None:
    """Runs the cases asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=["nothing", "first", "memory", []], help="default: all")
    parser.add_argument("--runs", type=int, default=15, help="runs of each short case")
    parser.add_argument("--firsts", type=int, default=3, help="runs of each first deploy")
    parser.add_argument("--patience", type=float, default=40, help="seconds to wait for a calm machine before each run")
    parser.add_argument("--prefix", default="bench", help="how the hosts' names begin")
    parser.add_argument("--remark", default="", help="a line about the circumstances, for the report")
    parser.add_argument("--output", type=Path, default=HERE / "RESULTS.md")
    arguments = parser.parse_args()
    sandbox.prepare(lambda text: print(text, flush=True))
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(
            Path(folder), arguments.runs, arguments.firsts, arguments.patience, arguments.prefix, arguments.remark
        )
        for case in arguments.cases or ("nothing", "first", "memory"):
            getattr(bench, case)()
            arguments.output.write_text(bench.report())
        print(bench.report())


if __name__ == "__main__":
    main()
