"""What it costs when the kernel, out of memory, kills a daemon: for how long it is away, and what visitors notice."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from ..site import Host, eventually
from .campaign import Campaign
from .ledger import APP, DOMAIN
from .load import Load

#: What is killed, and the shell's way to its process.
DAEMONS = {
    "nginx": "systemctl show --property=MainPID --value nginx.service",
    "supervisord": "systemctl show --property=MainPID --value supervisor.service",
    "PostgreSQL": "systemctl show --property=MainPID --value 'postgresql@*-main.service'",
    "Redis": f"systemctl show --property=MainPID --value redis-server@{APP}.service",
    "sshd": "systemctl show --property=MainPID --value ssh.service",
    "the web server's first process": f"pgrep -o -u {APP} -f gunicorn",
    "a worker of the web server": f"pgrep -n -u {APP} -f gunicorn",
    "a worker of the queue": f"pgrep -u {APP} -f 'manage.py work'",
    "a scheduler": f"pgrep -u {APP} -f 'manage.py beat'",
}

#: Kills a process and waits until there is another one. Prints the seconds, or none after half a minute.
_KILL = r"""
import json, os, subprocess, sys, time
words = sys.argv[1]
found = lambda: subprocess.run(["sh", "-c", words], capture_output=True, text=True).stdout.strip()
old = found()
assert old not in ("", "0"), f"there is none: {words}"
os.kill(int(old), 9)
began = time.monotonic()
while (new := found()) in ("", "0", old) and time.monotonic() - began < 30:
    time.sleep(0.01)
print(json.dumps(None if new in ("", "0", old) else time.monotonic() - began))
"""


@dataclass(frozen=True)
class Cost:
    """`seconds` until there is another one, None if it does not come by itself; what visitors noticed meanwhile."""

    daemon: str
    seconds: float | None
    lost: int
    asked: int
    away: float
    answers: bool

    def __str__(self) -> str:
        back = "not back by itself" if self.seconds is None else f"back in {self.seconds:.2f} s"
        return f"| {self.daemon} | {back} | {self.lost} of {self.asked} requests | {self.away:.2f} s |"


def cost(campaign: Campaign, daemon: str) -> Cost:
    """Kills it under load. What does not come back is started again afterwards."""
    host = campaign.host
    with Load(host.address, campaign.numbers) as load:
        time.sleep(1)
        seconds = json.loads(host.said("python3", "-c", _KILL, DAEMONS[daemon]))
        answers = eventually(lambda: _answers(host), 10)
        time.sleep(1)
    campaign.judge.accepted |= set(load.accepted)
    if not answers or seconds is None:
        campaign.project.deploy()
    asked = len(load.good) + len(load.lost)
    return Cost(daemon, seconds, len(load.lost), asked, load.outage(), bool(answers))


def _answers(host: Host) -> bool:
    return host.curl(DOMAIN).status == 200
