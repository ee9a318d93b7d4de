"""What is between a developer's machine and a host: connections that fall silent, and words that must not leave it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from . import tiny
from .conftest import WARM
from .site import Host, Project, Ran, eventually, standing

PAGE = "tiny.example"
APP = f'[apps.tiny]\nsource = "tiny"\ndomains = ["{PAGE}"]\n'


class Proxy:
    """A way to the host's sshd that lets some 4 MB/s through, until it lets nothing through any more.

    Then both ends see a connection that stands, and nothing comes by it.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._silent = threading.Event()
        self.carried = 0  # bytes to the host
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def fall_silent(self) -> None:
        self._silent.set()

    def _serve(self) -> None:
        while True:
            near, _ = self._listener.accept()
            far = socket.create_connection((self._address, 22))
            threading.Thread(target=self._carry, args=(near, far), daemon=True).start()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        with near, far, contextlib.suppress(OSError):
            while not self._silent.wait(0.01):
                for each in select.select([near, far], [], [], 0.1)[0]:
                    data = each.recv(40_000)
                    if not data:
                        return
                    self.carried += len(data) if each is near else 0
                    (far if each is near else near).sendall(data)
            threading.Event().wait()  # the connection stands


@pytest.fixture(scope="module")
def near(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A host with one app, and a project there whose connections are well."""
    with standing("wire", WARM) as host:
        project = Project(tmp_path_factory.mktemp("near"), host)
        tiny.write(project.folder / "tiny")
        project.write(f"{host.table}\n{APP}")
        project.deploy()
        yield project


@pytest.fixture(scope="module")
def host(near: Project) -> Host:
    return near.host


def far(folder: Path, host: Host) -> tuple[Project, Proxy]:
    """The same project, with much to send, by a way that may fall silent."""
    proxy = Proxy(host.address)
    folder.mkdir()
    project = Project(folder, host)
    tiny.write(folder / "tiny")
    (folder / "tiny/large").write_bytes(os.urandom(40 << 20))
    project.write(f'[hosts.far]\naddress = "127.0.0.1"\nport = {proxy.port}\nuser = "root"\n\n{APP}')
    host.machine.admit(project.home)
    kind_and_key = " ".join(host.machine.host_key.split()[:2])
    (project.home / ".ssh/known_hosts").write_text(f"[127.0.0.1]:{proxy.port} {kind_and_key}\n")
    return project, proxy


def sending(project: Project, proxy: Proxy) -> subprocess.Popen[str]:
    """`fab deploy` in the midst of sending files."""
    argv, env = project.command("deploy")
    child = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=project.folder, env=env,
    )  # fmt: skip
    assert eventually(lambda: proxy.carried > 3 << 20 or child.poll() is not None, 60)
    assert child.poll() is None, child.communicate()
    return child


def ended(child: subprocess.Popen[str]) -> Ran:
    out, error = child.communicate(timeout=150)
    return Ran(child.returncode, out, error, 0)


def incoming(host: Host) -> set[str]:
    return set(host.sh("ls /var/lib/deploykit/incoming 2>/dev/null || true").split())


def test_a_connection_that_falls_silent_holds_nothing_up(near: Project, host: Host, tmp_path: Path) -> None:
    """Three that stop in the midst of sending: the network, the controller's process, and one that is killed."""
    silent, proxy = far(tmp_path / "silent", host)
    cut = sending(silent, proxy)
    proxy.fall_silent()
    asleep = sending(*far(tmp_path / "asleep", host))
    asleep.send_signal(signal.SIGSTOP)
    dead = sending(*far(tmp_path / "dead", host))
    dead.kill()
    began = time.monotonic()
    assert len(incoming(host)) >= 2

    for version in ("2", "3"):
        near.edit("tiny/tiny/urls.py", f"version {int(version) - 1}", f"version {version}")
        ran = near.deploy()
        assert f"version {version}" in host.curl(PAGE).text and "locked" not in ran.text
    near.settled()
    if time.monotonic() - began < 45:
        assert len(incoming(host)) == 2, "those of runs that live stay, those of the dead one are gone"

    told = ended(cut)
    assert told.status == 1 and re.search(r"host far: the host has (taken nothing|not answered) for 60 s", told.stderr)
    assert "`fab deploy` again" in told.stderr and "Traceback" not in told.stderr
    assert eventually(lambda: not incoming(host), 90), "what they had sent is gone"
    assert eventually(lambda: "/var/lib/deploykit/agent" not in host.said("ps", "-eo", "args"), 10)
    asleep.send_signal(signal.SIGCONT)
    told = ended(asleep)
    assert told.status == 1 and "host far" in told.stderr and "Traceback" not in told.stderr, told.text
    assert dead.wait() == -signal.SIGKILL
    near.settled()
    assert "version 3" in host.curl(PAGE).text


# -- secrets -----------------------------------------------------------------------------------------

#: What a shell, a URL, JSON, HTML and Python each write in another way.
PAYKEY = "pay/key+'1\"<é %&\\x"
OWN = "own-key-of-this-side"
WAYS = """\
import base64, json, os, shlex, sys, urllib.parse
key = os.environ["PAYKEY"]
said = [key, repr(key), repr([key]), json.dumps(key), urllib.parse.quote(key), shlex.quote(key), os.environ["OWN"],
        base64.b64encode(("user:" + key).encode()).decode(), ascii(key), repr(key.encode())]
print("begin", *said, "end", file=sys.stderr, flush=True)
"""
RAISES = 'import os\nraise RuntimeError("cannot use key " + os.environ["PAYKEY"] + os.environ["OWN"])\n'


def traces() -> list[str]:
    """By what the secrets would be known, in any dress."""
    found = [PAYKEY, OWN, repr(PAYKEY)[1:-1], json.dumps(PAYKEY)[1:-1], quote(PAYKEY), "pay/key", "pay%2Fkey"]
    return [*found, *(base64.b64encode(b"." * n + PAYKEY.encode()).decode()[6:-6] for n in (0, 1, 2, 5))]


@pytest.fixture(scope="module")
def telling(near: Project) -> Project:
    """The app has two secrets, one of the host's and one of ours, and says them in every way when it is asked to."""
    ran = near.fab("secrets", "set", "--app", "tiny", "--name", "PAYKEY", stdin=PAYKEY)
    assert ran.status == 0, ran.text
    near.write(
        f'{near.host.table}\n{APP}\n[apps.tiny.env]\nPAYKEY = {{ secret = "PAYKEY" }}\n'
        f'OWN = {{ command = "echo {OWN}" }}\n'
    )
    (near.folder / "tiny/ways.py").write_text(WAYS)
    near.deploy()
    return near


@pytest.mark.parametrize("where", ["settings", "wsgi", "hook", "worker", "check"])
def test_a_release_that_fails_tells_no_secret(telling: Project, where: str) -> None:
    toml, ways = telling.toml.read_text(), "python ways.py"
    urls = telling.folder / "tiny/tiny/urls.py"
    place = telling.folder / f"tiny/tiny/{where}.py" if where in ("settings", "wsgi") else urls
    before = place.read_text()
    place.write_text(before + (f"# {where}\n" if place == urls else WAYS + RAISES))
    if where == "hook":
        telling.write(f'{toml}\n[apps.tiny.hooks]\nbefore_migrate = "set -x; echo $PAYKEY; {ways}; exit 3"\n')
    elif where == "worker":
        telling.write(f'{toml}\n[apps.tiny.processes.w]\ncommand = "{ways}; exit 3"\nsteady = 2\n')
    elif where == "check":
        telling.write(f'{toml}\n[[apps.tiny.checks]]\ncommand = "echo $PAYKEY; {ways}; exit 3"\n')
    try:
        ran = telling.fab("deploy", "--verbose")
    finally:
        telling.write(toml)
        place.write_text(before)
    assert ran.status == 1 and "(secret)" in ran.text, ran.text
    told_none(ran.text)


def told_none(text: str) -> None:
    for trace in traces():
        assert trace not in text, f"{trace} in {text}"


def test_nor_do_its_logs(telling: Project, host: Host) -> None:
    place = telling.folder / "tiny/tiny/wsgi.py"
    before = place.read_text()
    place.write_text(before + WAYS)
    telling.deploy()
    host.up(PAGE)
    logs = telling.fab("logs", "--app", "tiny")
    assert logs.status == 0 and "begin (secret)" in logs.stdout, logs.text
    assert PAYKEY in host.sh("cat /var/log/deploykit/tiny-*.log"), "the app did say it"
    told_none(logs.text)
    ran = telling.fab("secrets", "set", "--app", "tiny", "--name", "PAYKEY", stdin="another-value")
    assert ran.status == 0
    logs = telling.fab("logs", "--app", "tiny", "--since", "1h")
    assert "begin (secret)" in logs.stdout, logs.text
    told_none(logs.text)  # the app still runs with the one before


def test_nor_does_what_the_host_keeps_of_runs(telling: Project, host: Host) -> None:
    kept = host.sh("cat /var/lib/deploykit/runs/*.jsonl /var/lib/deploykit/journal.jsonl")
    assert kept.count("begin (secret)") > 3
    for text in (kept, telling.fab("status").text, telling.fab("plan", "--json", "--verbose").text):
        told_none(text)
