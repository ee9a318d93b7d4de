"""Compares a host after a fault with the same host before any: files, processes, releases, rows, and the plan."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field

from ..site import Host, Project, eventually
from .ledger import APP, DOMAIN
from .load import Load

#: All that is on a host and means something: a line a file, a line a program that runs.
LISTING = r"""
import hashlib, os, pwd, grp, re, stat, subprocess, sys
app = sys.argv[1]
own = ("/etc/hostname", "/etc/hosts", "/etc/machine-id", "/etc/resolv.conf", "/etc/systemd/network/",
       "/etc/ssh/ssh_host", "/etc/passwd-", "/etc/group-", "/etc/shadow", "/etc/gshadow", "/etc/subuid-",
       "/etc/subgid-", "/etc/.pwd.lock")
tops = ("/etc", "/srv", "/opt", "/usr/local", "/run/deploykit", "/var/backups/deploykit", "/var/log/deploykit")
for top in tops:
    for folder, folders, files in os.walk(top):
        folders.sort()
        for name in sorted([*files, *folders]):
            path = os.path.join(folder, name)
            if path.startswith(own) or "__pycache__" in path or "/home/.cache" in path:
                continue
            found = os.lstat(path)
            kind = stat.filemode(found.st_mode)
            text = ""
            if stat.S_ISLNK(found.st_mode):
                text = os.readlink(path)
            elif stat.S_ISREG(found.st_mode) and not top.startswith("/var"):
                data = open(path, "rb").read()
                data = re.sub(rb"SECRET_KEY=\S+", b"SECRET_KEY", data)
                data = re.sub(rb'"made": ?[0-9.]+', b"made", data)
                data = re.sub(rb'(, ?\d+), ?\d{18,}\]', rb"\1]", data)  # the times of a release's files
                text = "" if path.endswith(".pid") else hashlib.sha256(data).hexdigest()[:16]
            path = re.sub(r"\d{8}T\d{6}Z", "TIME", path)
            print(kind, pwd.getpwuid(found.st_uid).pw_name, grp.getgrgid(found.st_gid).gr_name, path, text)
programs = subprocess.run(["ps", "-eo", "user:20,args"], capture_output=True, text=True).stdout.splitlines()[1:]
shown = set()
for line in programs:
    user, _, args = line.partition(" ")
    args = args.strip()
    if user == "postgres" and not args.startswith("/usr/lib/postgresql"):
        args = re.sub(r"\d+", "N", args)
        if app in args or "autovacuum worker" in args:
            continue  # a connection of an app's worker, or an hourly job
    if not re.search(r"sshd|systemd-|\(sd-pam\)|agetty|ps -eo|python3 -c|^\[", args):
        shown.add(f"{user} {args}")
print("\n".join(sorted(shown)))
for unit in ("--state=running", "--failed"):
    command = ["systemctl", "list-units", "--plain", "--no-legend", "--type=service", unit]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    print(unit, " ".join(sorted(w for w in (line.split()[0] for line in lines)
                                if not w.startswith(("user", "systemd-", "session", "man-db", "apt-", "dpkg-")))))
print("pending", os.listdir("/var/lib/deploykit/pending") if os.path.isdir("/var/lib/deploykit/pending") else [])
"""

#: The ledger's own state, in one answer.
_STATE = r"""
import hashlib, json, os, re, subprocess, sys
app = sys.argv[1]
live = f"/srv/{app}/live/code"
code = {}
for folder, folders, files in os.walk(live):
    for name in files:
        path = os.path.join(folder, name)
        if "__pycache__" not in path:
            code[os.path.relpath(path, live)] = hashlib.sha256(open(path, "rb").read()).hexdigest()
lines = subprocess.run(["ps", "-U", app, "-o", "pid=,ppid=,stat=,args="], capture_output=True, text=True).stdout
found = [line.split(None, 3) for line in lines.splitlines()]
found = [each for each in found if "Z" not in each[2]]
pids = {each[0] for each in found}
first = [each[3] for each in found if each[1] not in pids]
query = ["runuser", "-u", "postgres", "--", "psql", "-XAtq", "-d", app, "-c"]
rows = subprocess.run([*query, "SELECT text, worked FROM notes_note"], capture_output=True, text=True, cwd="/").stdout
lists = {}
for place in (f"/srv/{app}/releases", f"/srv/{app}/venvs", f"/var/backups/deploykit/{app}", f"/srv/{app}/media",
              "/etc/supervisor/conf.d", "/var/lib/deploykit", "/var/lib/deploykit/pending",
              "/var/lib/deploykit/incoming", "/var/lib/deploykit/agent"):
    lists[place] = sorted(os.listdir(place)) if os.path.isdir(place) else []
beats, begun = [], {}  # a number of a process is given again after a reboot
for line in open(f"/srv/{app}/data/beats"):
    word, pid = line.split()[:2]
    begun[pid] = begun.get(pid, 0) + (word == "begin")
    beats.append(f"{pid} the {begun[pid]}.")
answer = {"code": code, "first": first, "rows": [r.split("|") for r in rows.splitlines()], "lists": lists,
          "beats": beats}
print(json.dumps(answer))
"""


def listing(host: Host, app: str) -> list[str]:
    """What `LISTING` sees."""
    return host.said("python3", "-c", LISTING, app).splitlines()


def _alike(lines: list[str], releases: list[str]) -> set[str]:
    """The same for each release, slot and number of a step: what is left is what a step may not change."""
    found = set()
    for line in lines:
        for name in releases:
            line = line.replace(name, "RELEASE")
        if re.search(r"/usr/local/lib/deploykit/launch |shutting down|/proc/self/fd", line):
            continue  # who stands for a program that outlived its supervisor; an old nginx worker's last request
        line = re.sub(rf"\b{APP}([-.])[ab]\b", rf"{APP}\1SLOT", line)
        line = re.sub(rf"(/run/deploykit/{APP}/)[ab]\.|(?<= )[ab](?=\.\w*\.?sock$)", r"\1SLOT.", line)
        line = re.sub(r"(TIME-before-)\w+", r"\1N", line)
        line = re.sub(r"(migrations|media)/\d+", r"\1/N", line)
        line = re.sub(r"(\.log)\.\d$", r"\1", line)
        changes = rf"/etc/deploykit/{APP}|/etc/supervisor/conf.d/{APP}|/etc/tmpfiles.d/deploykit-{APP}|/srv/{APP}/"
        if re.search(changes, line) and " l" not in f" {line[:1]}":
            line = re.sub(r" [0-9a-f]{16}$", "", line)  # its text has the slot, the release, the step
        found.add(line)
    return found


@dataclass
class Judge:
    """Knows how the host is when nothing disturbs it, and says what differs."""

    project: Project
    calm: set[str] = field(default_factory=set)
    accepted: set[int] = field(default_factory=set)

    @property
    def host(self) -> Host:
        return self.project.host

    def see(self) -> set[str]:
        """How the host is now, whatever slot, release and step it has."""
        releases = self.host.said("ls", f"/srv/{APP}/releases").split()
        return _alike(listing(self.host, APP), releases)

    def differences(self, load: Load) -> list[str]:
        """What is not as it must be, in words; nothing after a fault that cost nothing but time."""
        self.accepted |= set(load.accepted)
        ran = self.project.fab("plan")
        found = [] if ran.status == 0 else [f"fab plan: exit {ran.status}: {ran.text[-1500:]}"]
        eventually(lambda: self._unmarked() == "0", 15)
        state = json.loads(self.host.said("python3", "-c", _STATE, APP))
        found += self._page() + self._rows(state) + self._releases(state) + _processes(state) + _scheduler(state)
        eventually(lambda: self.see() == self.calm, 5)
        now = self.see()
        found += [f"only here: {line}" for line in sorted(now - self.calm)]
        found += [f"missing: {line}" for line in sorted(self.calm - now)]
        return found

    def _unmarked(self) -> str:
        return self.host.psql(APP, "SELECT count(*) FROM notes_note WHERE worked = 0")

    def _page(self) -> list[str]:
        urls = (self.project.folder / APP / "tiny/urls.py").read_text()
        step = re.search(r'STEP = "(\d+)"', self.project.toml.read_text())
        version = re.search(r"version (\d+)", urls)
        assert step and version
        wanted = f"version {version[1]} step {step[1]} has a row True"
        found = self.host.curl(DOMAIN).text
        return [] if found == wanted else [f"the page says {found[:200]!r} and not {wanted!r}"]

    def _rows(self, state: dict[str, list[list[str]]]) -> list[str]:
        rows = {int(text): int(worked) for text, worked in state["rows"]}
        found = [f"row {number} was accepted and is not there" for number in sorted(self.accepted - set(rows))]
        found += [f"row {number} was marked {times} times" for number, times in rows.items() if times != 1]
        if len(rows) != len(state["rows"]):
            found.append("a row is there twice")
        media = set(state["lists"][f"/srv/{APP}/media"])  # type: ignore[call-overload]
        lacking = [number for number in sorted(self.accepted) if number % 5 == 0 and f"{number}.txt" not in media]
        return found + [f"the file {number} was accepted and is not there" for number in lacking]

    def _releases(self, state: dict[str, dict[str, list[str]]]) -> list[str]:
        source = self.project.folder / APP
        wanted = {
            str(path.relative_to(source)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in source.rglob("*")
            if path.is_file() and "__pycache__" not in str(path)
        }
        found = [] if state["code"] == wanted else ["the live release is not the project's source"]  # type: ignore[comparison-overlap]
        lists = state["lists"]
        most = {f"/srv/{APP}/releases": 2, f"/srv/{APP}/venvs": 1, f"/var/backups/deploykit/{APP}": 5}
        found += [f"{place} has {lists[place]}" for place, number in most.items() if len(lists[place]) > number]
        found += [
            f"{place} has {lists[place]}"
            for place in ("/var/lib/deploykit/pending", "/var/lib/deploykit/incoming")
            if lists[place]
        ]
        dumps = [name for name in lists[f"/var/backups/deploykit/{APP}"] if not name.endswith(".dump")]
        return found + [f"a dump is {name}" for name in dumps]


def _processes(state: dict[str, list[str]]) -> list[str]:
    """One slot: one web server, one worker, one scheduler, one Redis, and no process but these."""
    first = sorted(re.sub(r"^\S*/", "", re.sub(r"/\S*/", "", line)).strip() for line in state["first"])
    each = ("gunicorn", "manage.py work", "manage.py beat", "redis-server")
    kinds = {kind: [line for line in first if kind in line] for kind in each}
    found = [f"{kind}: {len(lines)} of it run: {lines}" for kind, lines in kinds.items() if len(lines) != 1]
    if len(first) > sum(map(len, kinds.values())):
        found.append(f"other processes run as {APP}: {first}")
    confs = state["lists"]["/etc/supervisor/conf.d"]  # type: ignore[call-overload]
    slots = [name for name in confs if name.startswith(f"{APP}-")]
    return found if len(slots) == 1 else [*found, f"supervisor has the slots {slots}"]


def _scheduler(state: dict[str, list[str]]) -> list[str]:
    """No two schedulers were ever there at once: what one wrote is one piece of what all wrote."""
    seen: list[str] = []
    for beat in state["beats"]:
        if not seen or seen[-1] != beat:
            if beat in seen:
                return [f"two schedulers were there at once: {seen[seen.index(beat) :]} and {beat} again"]
            seen.append(beat)
    return []
