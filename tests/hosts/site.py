"""A project of a user's, deployed by `fab` as a user runs it, and the eyes that judge the host: curl, psql, ssh.

Nothing here asks deploykit how things are, except where a test is about what deploykit says.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploykit.sandbox import Image

from . import conftest, machines, tiny
from .machines import REPOSITORY, Machine, Nspawn

MEMORIES = "memories.example"
LINKS = "links.example"
READER = "reader.example"
TITLES = {MEMORIES: "<title>Memories</title>", LINKS: "<title>Links</title>", READER: "<title>Reader</title>"}

#: Three apps that are enough for most tests; those of deploykit.toml in the repository have workers, too.
THREE = """\
HOST

[apps.memories]
source = "examples/memories"
domains = ["memories.example"]
redirects = ["www.memories.example"]
health = "/healthz"

[apps.memories.web]
max_body = "50m"

[apps.links]
source = "examples/links"
domains = ["links.example"]
redis = true
health = "/healthz"

[apps.reader]
source = "examples/reader"
domains = ["reader.example"]
database = "sqlite"
static = false # WhiteNoise serves them
health = "/healthz"
"""


@contextlib.contextmanager
def standing(suffix: str, image: Image) -> Iterator[Host]:
    """A host of the chosen kind that is thrown away at the end."""
    with machines.standing(conftest.chosen, conftest.unique(suffix), image) as machine:
        yield Host(machine)


@contextlib.contextmanager
def deployed(folder: Path, suffix: str, tables: str, *names: str) -> Iterator[Project]:
    """A host with apps of these names, each the tiny project, deployed as `tables` (their part of the file) says."""
    with standing(suffix, machines.WARM) as host:
        project = Project(folder, host)
        for name in names:
            tiny.write(project.folder / name)
        project.write(host.table + tables)
        project.first = project.fab("deploy")
        assert project.first.status == 0, project.first.text
        yield project


@dataclass(frozen=True)
class Answer:
    """What curl got: `code` is curl's own exit status (52: closed without a word), header names are lower-case."""

    code: int
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")


class Host:
    """A machine, looked at from outside and by the system's own ssh."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.name = machine.name
        self.address = machine.address
        self.table = machine.table

    def run(self, *argv: str, check: bool = True, user: str = "") -> subprocess.CompletedProcess[str]:
        """One program as root, or as `user` by runuser; words arrive as they are."""
        words = ("env", "--chdir=/", "runuser", "-u", user, "--", *argv) if user else argv
        done = self.machine.run(*words, check=check, seconds=120)
        return subprocess.CompletedProcess(words, done.returncode, *(
            each.decode("utf-8", "replace") for each in (done.stdout, done.stderr)
        ))  # fmt: skip

    def said(self, *argv: str, user: str = "") -> str:
        """What a program printed, without the last line break."""
        return self.run(*argv, user=user).stdout.strip()

    def sh(self, script: str) -> str:
        """What a shell script printed; it ends at the first failure."""
        return self.said("sh", "-ec", script)

    def psql(self, database: str, statement: str) -> str:
        return self.said("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", statement, user="postgres")

    @functools.cached_property
    def major(self) -> str:
        """The PostgreSQL that is installed."""
        return self.said("ls", "/etc/postgresql")

    @property
    def cluster(self) -> str:
        """PostgreSQL's service."""
        return f"postgresql@{self.major}-main.service"

    def pids(self) -> dict[str, str]:
        """The main process of each service and of each app's gunicorn."""
        caches = self.sh("systemctl list-units --plain --no-legend --type=service 'redis-server@*' | cut -d' ' -f1")
        units = ["nginx.service", "supervisor.service", self.cluster, *caches.split()]
        pids = self.said("systemctl", "show", "--property=MainPID", "--value", *units).split()
        return {**dict(zip(units, pids, strict=True)), **self.programs()}

    def programs(self) -> dict[str, str]:
        """supervisor's programs that run, and their pids."""
        lines = self.run("supervisorctl", "status", check=False).stdout
        return dict(re.findall(r"^(\S+) +RUNNING +pid (\d+)", lines, re.MULTILINE))

    def curl(self, domain: str, path: str = "/", *options: str, bare: bool = False, scheme: str = "http") -> Answer:
        """Asks the host's port 80 by a domain; `bare` sends no such name, but the address."""
        name = self.address if bare else domain
        marker = b"\n--status--"
        done = subprocess.run(
            [
                *("curl", "--silent", "--max-time", "30", "--noproxy", "*", "--dump-header", "/dev/stderr"),
                *("--write-out", f"{marker.decode()}%{{http_code}}", "--resolve", f"{domain}:80:{self.address}"),
                *(*options, f"{scheme}://{name}{path}"),
            ],
            capture_output=True,
            check=False,
        )
        body, _, status = done.stdout.rpartition(marker)
        lines = done.stderr.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:]) if value}
        return Answer(done.returncode, int(status or 0), headers, body)

    def up(self, *domains: str, seconds: float = 0) -> None:
        """Every site answers with its own page, at once or within `seconds`."""
        for domain in domains or TITLES:
            answer = eventually(lambda d=domain: self._own(d), seconds)  # type: ignore[misc]
            assert answer, f"{domain}: {self.curl(domain)}"

    def _own(self, domain: str) -> bool:
        answer = self.curl(domain)
        return answer.status == 200 and TITLES.get(domain, "") in answer.text

    def refuses(self, domain: str) -> None:
        """The connection is closed without a word: curl's 52."""
        answer = self.curl(domain)
        assert (answer.code, answer.status, answer.body) == (52, 0, b""), answer

    @contextlib.contextmanager
    def visited(self, domain: str, *paths: str) -> Iterator[list[str]]:
        """Meanwhile somebody asks for each of the paths again and again; what was not answered well."""
        lost: list[str] = []
        asked = dict.fromkeys(paths or ("/",), 0)
        ending = threading.Event()

        def visit(path: str) -> None:
            while not ending.is_set():
                answer = self.curl(domain, path)
                asked[path] += 1
                if answer.status != 200:
                    lost.append(f"{path}: {answer.code} {answer.status}")
                time.sleep(0.02)

        visitors = [threading.Thread(target=visit, args=(path,)) for path in asked]
        for visitor in visitors:
            visitor.start()
        try:
            yield lost
        finally:
            ending.set()
            for visitor in visitors:
                visitor.join()
        assert all(times > 5 for times in asked.values()), asked

    def reboot(self) -> None:
        self.machine.reboot()


def eventually(true: Callable[[], Any], seconds: float) -> Any:
    """What `true` gives once it gives something, or its last answer after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := true()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


@dataclass(frozen=True)
class Ran:
    """How a command of `fab` ended."""

    status: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def text(self) -> str:
        return f"{self.stdout}\n{self.stderr}"

    @property
    def last(self) -> str:
        """The last line of the output proper."""
        return self.stdout.rstrip().rpartition("\n")[2]


@dataclass
class Project:
    """A folder with a deploykit.toml for one host, and the command line."""

    folder: Path
    host: Host
    first: Ran | None = field(default=None)

    def __post_init__(self) -> None:
        (self.folder / "fabfile.py").write_text("from deploykit.tasks import *\n")
        if self.host and not isinstance(self.host.machine, Nspawn):
            self.host.machine.admit(self.home)

    @property
    def home(self) -> Path:
        """The home of the user who types the commands."""
        return self.folder.parent / f"{self.folder.name}-home"

    def example(self, *names: str) -> None:
        """Copies of the repository's own examples."""
        rubbish = shutil.ignore_patterns("__pycache__", "*.pyc", "db.sqlite3*", "media", "staticfiles", ".venv")
        for name in names:
            shutil.copytree(REPOSITORY / "examples" / name, self.folder / "examples" / name, ignore=rubbish)

    def three(self, change: Callable[[str], str] = str) -> Project:
        """Three of the repository's examples, without their workers."""
        self.example("memories", "links", "reader")
        self.write(change(THREE.replace("HOST\n", self.host.table)))
        return self

    def demo(self, change: Callable[[str], str] = str) -> Project:
        """The repository's own deploykit.toml and its four apps."""
        self.example("memories", "links", "reader", "postcards")
        text = (REPOSITORY / "deploykit.toml").read_text()
        assert "[hosts.sandbox]" in text
        self.write(change(text.replace("[hosts.sandbox]\n", self.host.table)))
        return self

    @property
    def toml(self) -> Path:
        return self.folder / "deploykit.toml"

    def write(self, text: str) -> None:
        self.toml.write_text(text)

    def edit(self, path: str, old: str, new: str) -> None:
        """Replaces one place in a file of the project."""
        place = self.folder / path
        text = place.read_text()
        assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {path}"
        place.write_text(text.replace(old, new))

    def command(self, *arguments: str) -> tuple[list[str], dict[str, str]]:
        """The argument list and environment of `fab ...`: nothing of this machine's user is in it."""
        home = self.home
        home.mkdir(exist_ok=True)
        kept = {
            name: os.environ[name]
            for name in ("PATH", "LANG", "USER", "PYTHONPATH", "VAGRANT_HOME")
            if name in os.environ
        }
        env = {**kept, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
        return [sys.executable, "-m", "fabric", *arguments], env

    def fab(self, *arguments: str, stdin: str = "", seconds: float = 400) -> Ran:
        """Runs `fab ...` in the project's folder to its end, which must come within `seconds`."""
        argv, env = self.command(*arguments)
        began = time.monotonic()
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, cwd=self.folder, env=env, timeout=seconds, check=False
        )
        return Ran(done.returncode, done.stdout, done.stderr, time.monotonic() - began)

    def deploy(self, *arguments: str) -> Ran:
        """A deploy that must go well."""
        ran = self.fab("deploy", *arguments)
        assert ran.status == 0, ran.text
        return ran

    def changes(self) -> list[dict[str, Any]]:
        """The changes that `fab plan --json` tells; its exit status must fit."""
        ran = self.fab("plan", "--json")
        assert ran.status in (0, 2), ran.text
        found: list[dict[str, Any]] = json.loads(ran.stdout)[self.host.name]["changes"]
        assert (ran.status == 2) == bool(found), ran.text
        return found

    def settled(self) -> None:
        """`fab plan` has nothing to do, and says so."""
        ran = self.fab("plan")
        assert (ran.status, ran.stderr) == (0, "") and "nothing to do" in ran.stdout.splitlines(), ran.text


def named(changes: list[dict[str, Any]]) -> set[str]:
    """What a plan names: the keys, and for an app also each aspect that differs, as "app x: aspect"."""
    found = {change["key"] for change in changes}
    for change in changes:
        if change["key"].startswith("app "):
            found |= {f"{change['key']}: {each['name']}" for each in change["differences"]}
    return found
