"""One run of a tool, measured from outside: time, processors, connections, commands, bytes."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploykit import sandbox
from deploykit.sandbox import Sandbox

_CALM = 0.25  # of all cores, busy with anything else
_PR_SET_CHILD_SUBREAPER = 36
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Run:
    """What one run took. Seconds; bytes are those of IP packets to and from the host's port 22."""

    wall: float
    cpu: float
    connections: int
    execs: int
    sent: int
    received: int
    status: int
    output: str


def measured(box: Sandbox, argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> Run:
    """Runs a command that works on `box`, and counts."""
    count = Count(box.name)
    with _wire(box.address) as bytes_now:
        wall, cpu, status, output = _spent(argv, cwd, env)
        sent, received = bytes_now()
    connections, execs = count.now()
    return Run(wall, cpu, connections, execs, sent, received, status, output)


def _spent(argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> tuple[float, float, int, str]:
    """(wall seconds, processor seconds of its whole tree, status, output).

    What the tool leaves behind in the background (the master of ssh's ControlPersist) becomes ours, is counted, and is
    ended: the next run begins like a person's, some hours later. Output goes to a file, since such a process would keep
    a pipe open.
    """
    before, mine = resource.getrusage(resource.RUSAGE_CHILDREN), _children()
    with tempfile.TemporaryFile() as file, _adopting():
        began = time.perf_counter()
        process = subprocess.Popen(
            argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
        )
        status = process.wait()
        wall = time.perf_counter() - began
        left = _children() - mine
        running = sum(_cpu(pid) for pid in left)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        for pid in left:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGTERM)
                os.waitpid(pid, 0)
        file.seek(0)
        output = file.read().decode("utf-8", "replace")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime + running
    return wall, cpu, status, output


@contextlib.contextmanager
def _adopting() -> Iterator[None]:
    """Orphans of this process's descendants become its children meanwhile (prctl(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    try:
        yield
    finally:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat that follow the name: state, parent, ..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _children() -> set[int]:
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                if int(_stat(int(name))[1]) == os.getpid():
                    found.add(int(name))
    return found


def _cpu(pid: int) -> float:
    with contextlib.suppress(OSError):
        return (int(_stat(pid)[11]) + int(_stat(pid)[12])) / _TICK
    return 0.0


_RULES = """
table inet {table} {{
    counter sent {{ }}
    counter received {{ }}
    chain out {{ type filter hook output priority 0; ip daddr {address} tcp dport 22 counter name sent; }}
    chain in {{ type filter hook input priority 0; ip saddr {address} tcp sport 22 counter name received; }}
}}
"""


@contextlib.contextmanager
def _wire(address: str) -> Iterator[Counter]:
    """Call what it yields for (bytes sent to the host's sshd, bytes received) since the beginning.

    This machine's nftables counts: alike for every tool, with and without the proxy.
    """
    table = f"deploykit_bench_{os.getpid()}"
    _nft("-f", "-", stdin=_RULES.format(table=table, address=address))
    try:
        yield Counter(table)
    finally:
        _nft("delete", "table", "inet", table)


class Counter:
    """The two counters of a table."""

    def __init__(self, table: str) -> None:
        self._table = table

    def __call__(self) -> tuple[int, int]:
        found = json.loads(_nft("-j", "list", "counters", "table", "inet", self._table))["nftables"]
        named = {each["counter"]["name"]: int(each["counter"]["bytes"]) for each in found if "counter" in each}
        return named["sent"], named["received"]


def _nft(*arguments: str, stdin: str = "") -> str:
    return subprocess.run(["nft", *arguments], input=stdin, check=True, capture_output=True, text=True).stdout


def busy(seconds: float = 0.4) -> float:
    """The share of this machine's cores that are at work just now."""

    def ticks() -> tuple[int, int]:
        values = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return sum(values), values[3] + values[4]

    total, idle = ticks()
    time.sleep(seconds)
    later, rest = ticks()
    return 1 - (rest - idle) / max(later - total, 1)


def calm(patience: float) -> float:
    """Waits until the machine has little else to do, at most `patience` seconds, and says how busy it was at last."""
    end = time.monotonic() + patience
    while (share := busy()) > _CALM and time.monotonic() < end:
        pass
    return share


@contextlib.contextmanager
def host(name: str) -> Iterator[Sandbox]:
    """A bare host that is thrown away at the end, whose sshd notes every session."""
    sandbox.down(name)
    try:
        box = sandbox.up(name)
        script = "echo LogLevel VERBOSE >/etc/ssh/sshd_config.d/bench.conf && systemctl reload ssh && sleep 0.3"
        sandbox.run(name, "sh", "-c", script)
        yield box
    finally:
        with contextlib.suppress(sandbox.SandboxError, subprocess.TimeoutExpired):
            # nothing on it is needed any more, so nobody waits for its services to end
            sandbox.run(name, "systemctl", "poweroff", "--force", "--force", check=False, seconds=20)
        sandbox.down(name)


_NOTED = """
sleep 0.3
echo "own ${SSH_CLIENT#* }" | cut -d' ' -f1,2
journalctl -q --no-pager -t sshd --show-cursor -o cat ${1:+--after-cursor "$1"}
"""


class Count:
    """Connections and commands that the host's own sshd noted since the count began."""

    def __init__(self, name: str) -> None:
        self._name = name
        first = self._read("")
        self._own = {self._port(first)}
        self._cursor = re.findall(r"-- cursor: (\S+)", first)[-1]

    def _read(self, cursor: str) -> str:
        return sandbox.run(self._name, "sh", "-c", _NOTED, "sh", cursor).stdout.decode("utf-8", "replace")

    @staticmethod
    def _port(text: str) -> str:
        return text.split("\n", 1)[0].split()[1]

    def now(self) -> tuple[int, int]:
        """(connections, commands), those of this count itself left out."""
        text = self._read(self._cursor)
        own = self._own | {self._port(text)}
        accepted = re.findall(r"^Accepted .* port (\d+) ssh2", text, re.MULTILINE)
        sessions = re.findall(r"^Starting session: .* port (\d+) id", text, re.MULTILINE)
        return sum(port not in own for port in accepted), sum(port not in own for port in sessions)
