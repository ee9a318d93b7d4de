"""What is measured: `fab deploy` as a person runs it, in a project and a home folder of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from deploykit import sandbox
from deploykit.sandbox import Sandbox

REPOSITORY = Path(__file__).resolve().parent.parent
FAB = str(Path(sys.executable).with_name("fab"))
_CALM = 0.25  # of all cores, busy with anything else


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


class Project:
    """A folder with a deploykit.toml, committed to git as users have it, and a home that knows nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "project"
        self.home = folder / "home"
        self.folder.mkdir(parents=True)
        (self.home / ".ssh").mkdir(mode=0o700, parents=True)
        (self.folder / "fabfile.py").write_text("from deploykit.tasks import *\n")

    def example(self, name: str) -> None:
        """A copy of one of the repository's examples."""
        rubbish = shutil.ignore_patterns("__pycache__", "*.pyc", "db.sqlite3*", "media", "staticfiles", ".venv")
        shutil.copytree(REPOSITORY / "examples" / name, self.folder / name, ignore=rubbish)

    def write(self, text: str) -> None:
        """deploykit.toml, and everything committed."""
        (self.folder / "deploykit.toml").write_text(text)
        if not (self.folder / ".git").exists():
            self._git("init", "-q")
        self._git("add", "-A")
        self._git(
            "-c", "user.name=bench", "-c", "user.email=bench@localhost", "commit", "-q", "--allow-empty", "-m", "x"
        )

    def _git(self, *arguments: str) -> None:
        subprocess.run(["git", "-C", str(self.folder), *arguments], check=True, env=self._environment())

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "USER", "LOGNAME") if name in os.environ}
        return {**kept, "HOME": str(self.home)}

    def know(self, box: Sandbox, port: int) -> None:
        """The sandbox's key as that of a port on loopback, and the identity, as ssh itself keeps them."""
        folder = self.home / ".ssh"
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {box.host_key}\n")
        (folder / "config").write_text(f"Host 127.0.0.1\n  IdentityFile {box.identity}\n  IdentitiesOnly yes\n")

    def deploy(self, *arguments: str) -> tuple[float, str]:
        """`fab deploy` from its start to its exit: (seconds, what it printed). Ends the benchmark when it fails."""
        argv = [FAB, "deploy", *arguments]
        environment = self._environment()
        began = time.perf_counter()
        done = subprocess.run(argv, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - began
        if done.returncode:
            sys.exit(f"fab deploy ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return seconds, done.stdout


@contextlib.contextmanager
def host(name: str) -> Iterator[Sandbox]:
    """A bare host that is thrown away at the end."""
    sandbox.down(name)
    try:
        yield sandbox.up(name)
    finally:
        sandbox.down(name)


def listen(name: str) -> None:
    """Lets the host's sshd note every session it starts."""
    script = "echo LogLevel VERBOSE >/etc/ssh/sshd_config.d/bench.conf && systemctl reload ssh && sleep 0.3"
    sandbox.run(name, "sh", "-c", script)


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
