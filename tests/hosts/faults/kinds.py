"""What goes wrong: one function for each kind of fault.

Each returns a `Fault`: Python that runs on the host at the moment (with what watch.py defines), what happens here, and
what a person does about it before the next `fab deploy`.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deploykit import sandbox
from deploykit.sandbox import store

from ..site import Host, Project, eventually
from .ledger import APP

#: A clock that is wrong by as many seconds as this file says, for the agent alone: no container has a clock of its own.
CLOCK = "/run/clock-of-the-agent"
_FILLER = "/var/tmp/filler"
_DROPPED = "faults"


def _nothing(project: Project, fab: subprocess.Popen[str]) -> None:
    pass


@dataclass(frozen=True)
class Fault:
    """`costs`: whether visitors may notice. `early`: it strikes before the command begins, not at a moment."""

    there: str = ""
    here: Callable[[Project, subprocess.Popen[str]], None] = _nothing
    mend: str = ""
    costs: bool = False
    early: bool = False


def controller_killed(dice: random.Random) -> Fault:
    return Fault(here=lambda project, fab: fab.kill())


def agent_killed(dice: random.Random) -> Fault:
    return Fault("kill(agent())")


def sshd_killed(dice: random.Random) -> Fault:
    """The session's process of sshd, not the one that listens, and not our own."""
    return Fault(r"""
own, pid = set(), os.getpid()
while pid > 1:
    own.add(pid)
    pid = int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
for pid in said("pgrep sshd").split():
    if int(pid) not in own and b"listener" not in open(f"/proc/{pid}/cmdline", "rb").read():
        kill(pid)
""")


def connection_dropped(dice: random.Random) -> Fault:
    """Its packets vanish, as when a laptop is closed; its owner ends fab later."""
    patience = dice.uniform(0.5, 4)

    def drop(project: Project, fab: subprocess.Popen[str]) -> None:
        words = subprocess.run(["ss", "-tnpH", "dst", project.host.address], capture_output=True, text=True, check=True)
        ports = re.findall(rf":(\d+) +\S+:22 .*pid={fab.pid},", words.stdout)
        for port in ports:
            in_network(
                project.host,
                f"table inet {_DROPPED} {{\n"
                f"chain in {{ type filter hook input priority 0; tcp dport 22 tcp sport {port} drop; }}\n"
                f"chain out {{ type filter hook output priority 0; tcp sport 22 tcp dport {port} drop; }}\n}}\n",
            )
        with contextlib.suppress(subprocess.TimeoutExpired):
            fab.wait(patience)
        fab.kill()

    return Fault(here=drop)


def power_off(dice: random.Random) -> Fault:
    def off(project: Project, fab: subprocess.Popen[str]) -> None:
        record = store.read(project.host.name)
        assert record is not None
        os.kill(record.pid, signal.SIGKILL)
        assert eventually(lambda: not record.running(), 30)
        sandbox.start(project.host.name)

    return Fault(here=off, costs=True)


def disk_full(dice: random.Random) -> Fault:
    """So much is left that programs that run can go on, and not enough for a release."""
    left = dice.choice([500, 900, 1300]) * 1024
    fill = f"""
disk = os.statvfs("/")
with open("{_FILLER}", "wb") as filler:
    os.posix_fallocate(filler.fileno(), 0, max(1, disk.f_bavail * disk.f_frsize - {left}))
"""
    return Fault(fill, mend=f"rm -f {_FILLER}", early=dice.random() < 0.3)


def apt_locked(dice: random.Random) -> Fault:
    seconds = dice.uniform(1, 8)
    hold = "import fcntl, time; f = open('/var/lib/dpkg/lock-frontend', 'w'); fcntl.lockf(f, fcntl.LOCK_EX)"
    return Fault(
        f'subprocess.Popen(["python3", "-c", "{hold}; time.sleep({seconds:.1f})"], start_new_session=True,'
        " stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)",
        early=True,
    )


def same_deploy(dice: random.Random) -> Fault:
    def again(project: Project, fab: subprocess.Popen[str]) -> None:
        project.fab("deploy")

    return Fault(here=again)


def other_deploy(dice: random.Random) -> Fault:
    """Of another person's copy of the project, which says something else."""

    def elsewhere(project: Project, fab: subprocess.Popen[str]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            copy = Project(Path(shutil.copytree(project.folder, Path(folder) / "other")), project.host)
            copy.write(re.sub(r'STEP = "\d+"', 'STEP = "777"', copy.toml.read_text()))
            copy.fab("deploy")

    return Fault(here=elsewhere)


def postgres_stopped(dice: random.Random) -> Fault:
    """`fab deploy` starts it again."""
    return Fault('sh("systemctl stop postgresql@*-main.service")', costs=True)


def postgres_restarted(dice: random.Random) -> Fault:
    return Fault('sh("systemctl restart postgresql@*-main.service")', costs=True)


def postgres_killed(dice: random.Random) -> Fault:
    return Fault('kill(main_of("postgresql@*-main.service"))', costs=True)


def supervisor_killed(dice: random.Random) -> Fault:
    return Fault('kill(main_of("supervisor.service"))')


def nginx_killed(dice: random.Random) -> Fault:
    return Fault('kill(main_of("nginx.service"))', costs=True)


def nginx_broken(dice: random.Random) -> Fault:
    """By hand: a reload says no, and the next deploy puts the file right."""
    place = f"/etc/nginx/sites-available/{APP}.conf"
    return Fault(f"""open("{place}", "a").write("no_such_directive on;\\n")\nsh("nginx -s reload")""")


def server_out_of_memory(dice: random.Random) -> Fault:
    """The kernel kills a worker of gunicorn's, and the request that it answers."""
    return Fault(f'kill(said("pgrep -u {APP} -f gunicorn | tail -n 1"))', costs=True)


def worker_out_of_memory(dice: random.Random) -> Fault:
    return Fault(f"kill(said(\"pgrep -u {APP} -f 'manage.py (work|beat)' | tail -n 1\"))")


def clock_put_back(dice: random.Random) -> Fault:
    return Fault(f'open("{CLOCK}", "w").write("-3600")', mend=f"rm -f {CLOCK}")


def clock_put_forward(dice: random.Random) -> Fault:
    return Fault(f'open("{CLOCK}", "w").write("86400")', mend=f"rm -f {CLOCK}")


#: In the order in which seeds take them: the first twenty seeds have each kind, and agent and controller twice.
KINDS = (
    controller_killed,
    supervisor_killed,
    postgres_killed,
    disk_full,
    power_off,
    clock_put_back,
    other_deploy,
    nginx_broken,
    agent_killed,
    connection_dropped,
    sshd_killed,
    postgres_stopped,
    apt_locked,
    agent_killed,
    same_deploy,
    worker_out_of_memory,
    clock_put_forward,
    nginx_killed,
    server_out_of_memory,
    postgres_restarted,
)

#: In the place of python3 for the agent: the same, but for its clock. What else is run so is run as it is.
_PYTHON = f"""\
#!/bin/sh
[ "$1" = -IS ] && [ -d "$2" ] || exec /usr/bin/python3 "$@"
exec /usr/bin/python3 -IS -c '
import runpy, sys, time
now, now_ns = time.time, time.time_ns


def wrong():
    try:
        with open("{CLOCK}") as file:
            return int(file.read() or 0)
    except OSError:
        return 0


time.time = lambda: now() + wrong()
time.time_ns = lambda: now_ns() + wrong() * 10**9
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
' "$2"
"""


def give_a_clock(host: Host) -> None:
    """From now on the agent's clock can be wrong."""
    host.machine.run(
        "sh", "-c", "cat >/usr/local/bin/python3; chmod 755 /usr/local/bin/python3", stdin=_PYTHON.encode()
    )


def undo_drop(host: Host) -> None:
    """The network is whole again."""
    in_network(host, f"table inet {_DROPPED} {{ }}\ndelete table inet {_DROPPED}\n")


def in_network(host: Host, rules: str) -> None:
    """Rules of nftables in the host's own network, by this machine's `nft`."""
    record = store.read(host.name)
    assert record is not None
    pid = _init(record.pid)
    subprocess.run(["nsenter", f"--net=/proc/{pid}/ns/net", "nft", "-f", "-"], input=rules, text=True, check=True)


def _init(pid: int) -> int:
    """The host's first process, which is a descendant of the sandbox's own."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for child in map(int, children):
        if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
            return child
        if found := _init(child):
            return found
    return 0
