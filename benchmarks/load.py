"""What visitors notice while a new release goes live, for each way of bringing it there."""

from __future__ import annotations

import http.client
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from job import Job, ask
from measure import host, measured
from tools import TOOLS, Tool

from deploykit import sandbox

RATE = 50  # requests a second
VISITORS = 16  # each one waits for its answer before it asks again
BEFORE, AFTER = 1.0, 3.0  # seconds of load around the deploy
APP = "app01"


@dataclass
class Load:
    """Visitors who read the home page, each request over a connection of its own."""

    address: str
    domain: str
    answers: list[tuple[float, float, bool]] = field(default_factory=list)  # asked at, seconds, good

    def __enter__(self) -> Load:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._number = 0
        self._began = time.monotonic()
        self._threads = [threading.Thread(target=self._visit) for _ in range(VISITORS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _visit(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                due = self._began + self._number / RATE
                self._number += 1
            if self._stop.wait(max(0.0, due - time.monotonic())):
                return
            asked = time.monotonic()
            try:
                status, text = ask(self.address, self.domain, "/")
                good = status == 200 and "<footer>" in text
            except (OSError, http.client.HTTPException):
                good = False
            self.answers.append((asked, time.monotonic() - asked, good))

    def outage(self) -> float:
        """Seconds of the longest time in which no request was answered well."""
        good = sorted(asked + took for asked, took, fine in self.answers if fine)
        return max((later - earlier for earlier, later in itertools.pairwise(good)), default=0.0)


#: On the host of a classic setup: the new source is in place, and a shell command makes gunicorn take it up.
_MASTER = f"master=$(supervisorctl pid {APP})"
WAYS = {
    "supervisorctl restart": f"supervisorctl restart {APP}",
    "gunicorn HUP": f"supervisorctl signal HUP {APP}",
    # gunicorn's own manual: a second master, and when it works, the first one is told to go
    "gunicorn USR2": (
        f"{_MASTER}; kill -USR2 $master; sleep 4; kill -WINCH $master; sleep 1; kill -QUIT $master; sleep 3"
    ),
}


def measure(
    folder: Path, keep: Callable[[dict[str, object]], None], prefix: str, runs: int, say: Callable[[str], None]
) -> None:
    """All ways, `runs` times each: deploykit's on a host of its own, the classic ones on a host that limit/ set up."""
    for name in ("deploykit", "limit"):
        with host(f"{prefix}-load-{name[:4]}") as box:
            tool = TOOLS[name](folder / f"load-{name}", Job(folder / f"load-{name}/project", 1), box)
            tool.job.commit()
            _run(tool)
            for _ in range(runs):
                for way in ["slots"] if name == "deploykit" else list(WAYS):
                    tool.job.edit(tool.job.apps[0])
                    tool.job.commit()
                    with Load(box.address, tool.job.apps[0].domain) as load:
                        time.sleep(BEFORE)
                        if name == "deploykit":
                            _run(tool)
                        else:
                            _by_hand(tool, WAYS[way])
                        time.sleep(AFTER)
                    state = _state(box.name)
                    lost = sum(not good for _, _, good in load.answers)
                    slowest = max(took for _, took, _ in load.answers)
                    say(f"{way}: {lost} of {len(load.answers)} lost, {slowest:.2f} s, {load.outage():.2f} s, {state}")
                    keep(
                        {
                            "kind": "load",
                            "way": way,
                            "requests": len(load.answers),
                            "lost": lost,
                            "slowest": round(slowest, 3),
                            "outage": round(load.outage(), 3),
                            "new": _shows(tool),
                            "state": state,
                        }
                    )
                    if name == "limit":
                        _repair(box.name)
                        tool.job.check(box.address)


def _run(tool: Tool) -> None:
    run = measured(tool.box, tool.command(), tool.job.folder, tool.environment())
    if run.status:
        raise RuntimeError(f"{tool.name} failed:\n{run.output[-3000:]}")


def _by_hand(tool: Tool, command: str) -> None:
    """The new page laid over the old one, then the way itself."""
    page = "photos/templates/photos/base.html"
    text = (tool.job.folder / APP / page).read_bytes()
    sandbox.run(tool.box.name, "sh", "-c", f"cat >/srv/{APP}/live/code/{page}", stdin=text)
    sandbox.run(tool.box.name, "sh", "-c", command, check=False)


def _shows(tool: Tool) -> bool:
    """Whether people see the new release now."""
    try:
        return tool.job.apps[0].words in ask(tool.box.address, tool.job.apps[0].domain, "/")[1]
    except (OSError, http.client.HTTPException):
        return False


def _state(name: str) -> str:
    """What supervisor says of the app, and how many processes of gunicorn it knows nothing of."""
    script = f"""
        set -- $(supervisorctl status | grep ^{APP})
        echo "$2"
        pid=$(supervisorctl pid "$1")
        [ "$pid" != 0 ] || pid=none
        ps -u {APP} -o pid=,ppid=,args= | awk -v pid="$pid" '/gunicorn/ && $1 != pid && $2 != pid' | wc -l
    """
    state, strangers = sandbox.run(name, "sh", "-c", script, check=False).stdout.decode().split()
    return state if strangers == "0" else f"{state}, {strangers} processes it does not know"


def _repair(name: str) -> None:
    """Exactly one gunicorn again, by supervisor."""
    script = f"supervisorctl stop {APP}; pkill -KILL -u {APP}; sleep 1; supervisorctl start {APP}"
    sandbox.run(name, "sh", "-c", script, check=False)
