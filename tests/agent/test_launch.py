"""The launcher of an app's programs, with real processes: what it hands over, and what it does without supervisor."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.agent import launched
from deploykit.model import layout

from .test_process import until

LAUNCHER = Path(__file__).parents[2] / "templates/app/launch"
USER = pwd.getpwuid(os.getuid()).pw_name
GROUP = grp.getgrgid(os.getgid()).gr_name

#: A web server of a kind: each connection hears its process's number and what it inherited.
SERVER = """
import os, socket, sys
server = socket.socket(fileno=3)
print("up", flush=True)
while True:
    client, _ = server.accept()
    print("visited", flush=True)
    client.sendall(f"{os.getpid()} {os.environ['LISTEN_FDS']} {os.environ['LISTEN_PID']}".encode())
    client.close()
"""

Started = subprocess.Popen[bytes]


class Supervisor:
    """What supervisor does with its programs: a pipe for what they print, and a group of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs: list[Started] = []

    def start(self, *command: str, name: str = "a.web", wait: str = "5", **options: str) -> Started:
        given = {"user": USER, "group": GROUP, "folder": str(self.folder), "name": name, "stop": "TERM", "wait": wait}
        words = [f"{key}={value}" for key, value in {**given, **options}.items()]
        argv = [sys.executable, "-IS", str(LAUNCHER), *words, "--", *command]
        self.programs.append(subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True))
        return self.programs[-1]

    def server(self, **options: str) -> Started:
        return self.start(sys.executable, "-c", SERVER, socket="a.sock", **options)

    def dies(self) -> None:
        """As by `kill -9`: what the programs print is read no more."""
        for program in self.programs:
            assert program.stdout is not None
            program.stdout.close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(layout, "ROOT", tmp_path)
    return layout.sockets("tiny")


@pytest.fixture
def supervisor(folder: Path) -> Iterator[Supervisor]:
    found = Supervisor(folder)
    yield found
    for program in found.programs:
        for pid in (program.pid, launched.main("tiny", "a")):
            with contextlib.suppress(ProcessLookupError):
                if pid:
                    os.killpg(pid, signal.SIGKILL)
        program.wait()


def ask(folder: Path) -> list[str]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(folder / "a.sock"))
        return client.recv(100).decode().split()


def line(program: Started) -> bytes:
    assert program.stdout is not None
    return program.stdout.readline()


def test_a_server_inherits_its_socket(folder: Path, supervisor: Supervisor) -> None:
    program = supervisor.server()
    assert line(program) == b"up\n"
    assert ask(folder) == [str(program.pid), "1", str(program.pid)]
    assert stat.filemode((folder / "a.sock").stat().st_mode) == "srw-rw----"
    assert stat.filemode(folder.stat().st_mode) == "drwxr-x---"
    assert launched.main("tiny", "a") == program.pid


def test_what_is_asked_before_it_is_up_waits(folder: Path, supervisor: Supervisor) -> None:
    script = f'until [ -e "{folder}/go" ]; do sleep 0.02; done; exec "{sys.executable}" -c "$0"'
    program = supervisor.start("/bin/sh", "-c", script, SERVER, socket="a.sock")
    until(lambda: program.pid == launched.main("tiny", "a") and command(program.pid).startswith(b"/bin/sh"))
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(folder / "a.sock"))
        (folder / "go").touch()
        assert client.recv(100).split()[0] == b"%d" % program.pid


def command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_port_is_the_second(folder: Path, supervisor: Supervisor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        number = probe.getsockname()[1]
    script = "import socket; print(socket.socket(fileno=4).getsockname()[1], flush=True)"
    program = supervisor.start(sys.executable, "-c", script, socket="a.sock", port=str(number))
    assert line(program) == b"%d\n" % number


def test_a_survivor_is_not_started_twice(folder: Path, supervisor: Supervisor) -> None:
    first = supervisor.server()
    assert line(first) == b"up\n"
    supervisor.dies()
    ask(folder)  # it prints, and lives
    second = supervisor.server()
    assert line(second) == b"visited\n"  # what was printed meanwhile
    assert ask(folder)[0] == str(first.pid)
    assert line(second) == b"visited\n"
    second.terminate()
    assert second.wait(10) == 0
    assert first.wait(10) == -signal.SIGTERM
    assert launched.main("tiny", "a") == 0


def test_what_stands_for_a_survivor_ends_with_it(folder: Path, supervisor: Supervisor) -> None:
    first = supervisor.server()
    line(first)
    supervisor.dies()
    second = supervisor.server()
    ask(folder)
    assert line(second) == b"visited\n"
    first.kill()
    assert second.wait(10) == 0
    third = supervisor.server()
    assert line(third) == b"up\n"
    assert ask(folder)[0] == str(third.pid)


def test_what_stands_for_a_survivor_goes_with_its_supervisor(folder: Path, supervisor: Supervisor) -> None:
    first = supervisor.server()
    line(first)
    supervisor.dies()
    second = supervisor.server()
    ask(folder)
    line(second)
    supervisor.dies()
    assert second.wait(10) == 0
    third = supervisor.server()
    assert ask(folder)[0] == str(first.pid)
    assert line(third) == b"visited\n"


def test_a_survivor_that_does_not_end_is_killed_in_time(folder: Path, supervisor: Supervisor) -> None:
    script = "trap '' TERM; echo up; while :; do sleep 0.1; done"
    first = supervisor.start("/bin/sh", "-c", script)
    line(first)
    supervisor.dies()
    second = supervisor.start("/bin/sh", "-c", "echo wrong", wait="1")
    until(lambda: b"launch" in command(second.pid) and handles(second.pid))
    second.terminate()
    assert second.wait(10) == 0
    assert first.wait(10) == -signal.SIGKILL


def handles(pid: int) -> bool:
    """Whether a process handles SIGTERM by itself (proc(5))."""
    words = Path(f"/proc/{pid}/status").read_text().split("SigCgt:")[1].split()[0]
    return bool(int(words, 16) & 1 << signal.SIGTERM - 1)


def test_another_process_of_that_number_is_no_survivor(folder: Path, supervisor: Supervisor) -> None:
    folder.mkdir(parents=True)
    (folder / "a.web.pid").write_text(f"{os.getpid()} 1\n")
    program = supervisor.server()
    assert line(program) == b"up\n"
    assert ask(folder)[0] == str(program.pid)


def test_one_that_may_run_once_waits(folder: Path, supervisor: Supervisor) -> None:
    first = supervisor.start("/bin/sh", "-c", "echo first; exec sleep 60", name="a.beat-1", once="once.beat")
    assert line(first) == b"first\n"
    second = supervisor.start("/bin/sh", "-c", "echo second", name="b.beat-1", once="once.beat")
    until(lambda: (folder / "b.beat-1.pid").exists())
    assert second.poll() is None
    first.kill()
    assert line(second) == b"second\n"


def test_the_agent_ends_what_supervisor_cannot(folder: Path, supervisor: Supervisor) -> None:
    program = supervisor.server()
    line(program)
    worker = supervisor.start("/bin/sh", "-c", "echo up; exec sleep 60", name="b.worker-1")
    line(worker)
    launched.end("tiny", "a")
    assert program.wait(10) == -signal.SIGTERM
    assert worker.poll() is None and not (folder / "a.web.pid").exists()
