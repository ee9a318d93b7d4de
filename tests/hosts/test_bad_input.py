"""What goes wrong is said in words: what, where, and what to do; and a secret is said nowhere."""

from __future__ import annotations

import contextlib
import errno
import os
import pty
import re
import select
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.sandbox import BASE

from . import tiny
from .conftest import WARM, Machine, Make
from .site import Host, Project, Ran, standing

#: The machine's key opens root; these users of theirs have them, too.
APP = '[apps.tiny]\nsource = "tiny"\ndomains = ["tiny.example"]\ndatabase = "none"\n'


class Typed(Project):
    """A project whose user has keys and known hosts of their own, as on a real machine."""

    @property
    def ssh(self) -> Path:
        place = self.home / ".ssh"
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        return place

    def typing(self, *arguments: str, answers: dict[str, str]) -> Ran:
        """`fab ...` on a terminal, where each question that comes is answered once."""
        argv, env = self.command(*arguments)
        began = time.monotonic()
        left = dict(answers)
        child, master = pty.fork()
        if child == 0:
            os.chdir(self.folder)
            os.execve(argv[0], argv, {**env, "TERM": "dumb"})
        said = b""
        while time.monotonic() - began < 120:
            ready, _, _ = select.select([master], [], [], 1)
            if not ready:
                continue
            try:
                data = os.read(master, 65536)
            except OSError as error:
                assert error.errno == errno.EIO
                break
            said += data
            for question in [each for each in left if each in said.decode(errors="replace")]:
                time.sleep(0.1)  # the echo is switched off after the question was written
                os.write(master, left.pop(question).encode() + b"\n")
        os.close(master)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert not left, f"{left} was not asked: {said!r}"
        return Ran(status, said.decode(errors="replace"), "", time.monotonic() - began)


def project(folder: Path, host: Host | None, hosts: str, apps: str = "") -> Typed:
    """A project's folder; the first app's table is on line 4 where `hosts` has three lines."""
    folder.mkdir(exist_ok=True)
    made = Typed(folder, host)  # type: ignore[arg-type]
    made.write(f"{hosts}\n{apps}")
    return made


def complaint(ran: Ran, *words: str) -> None:
    """It failed, and its error says what (`words`), where (the first line begins with the place) and what to do."""
    assert ran.status == 1, ran.text
    assert "Traceback" not in ran.text
    lines = ran.stderr.strip().splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("error: "))
    assert re.match(r"error: \S.*: \S", lines[first]), f"no place: {lines[first]}"
    assert any(line.startswith("  ") and len(line.split()) > 2 for line in lines[first + 1 :]), f"no advice: {lines}"
    for word in words:
        assert word in ran.stderr, f"{word!r} is not in: {ran.stderr}"


# -- before any connection ------------------------------------------------------------------------


@contextlib.contextmanager
def listener() -> Iterator[socket.socket]:
    """A port on which nobody must call."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize(
    ("apps", "words"),
    [
        (
            '[apps.one]\nsource = "tiny"\ndomains = ["a.example"]\n'
            '[apps.two]\nsource = "tiny"\ndomains = ["b.example", "A.example"]\n',
            ("deploykit.toml:9: [apps.two] domains", "a.example", "one"),
        ),
        ('[apps."../x"]\nsource = "tiny"\ndomains = ["a.example"]\n', ("deploykit.toml:4", "../x", "allowed: ")),
        ('[apps."a;b"]\nsource = "tiny"\ndomains = ["a.example"]\n', ("deploykit.toml:4", "a;b", "allowed: ")),
        ('[apps.Blog]\nsource = "tiny"\ndomains = ["a.example"]\n', ("deploykit.toml:4", "Blog", "did you mean: ")),
        (f"[apps.{'a' * 200}]\nsource = 'tiny'\ndomains = ['a.example']\n", ("deploykit.toml:4", "allowed: ")),
        ('[apps.postgres]\nsource = "tiny"\ndomains = ["a.example"]\n', ("deploykit.toml:4", "choose another")),
        ('[apps.tiny\nsource = "tiny"\n', ("deploykit.toml:4", "this is not TOML", "Expected ']'")),
        ('[apps.tiny]\nsource = "nowhere"\ndomains = ["a.example"]\n', ("[apps.tiny]", "nowhere", "`source`")),
        ('[apps.tiny]\nsuorce = "tiny"\ndomains = ["a.example"]\n', ("suorce", "did you mean: source")),
        ('[apps.tiny]\nsource = "tiny"\ndomains = ["a.example"]\n[apps.tiny.env]\nA = {env = "NOT_SET_HERE"}\n',
         ("NOT_SET_HERE", "[apps.tiny.env]")),
    ],
    ids=["domain twice", "up", "semicolon", "capital", "long", "system user", "syntax", "source", "key", "variable"],
)  # fmt: skip
def test_a_mistake_in_the_file_is_told_before_any_connection(tmp_path: Path, apps: str, words: tuple[str, ...]) -> None:
    with listener() as server:
        address = f'[hosts.web1]\naddress = "127.0.0.1"\nport = {server.getsockname()[1]}'
        made = project(tmp_path / "p", None, address, apps)
        tiny.write(made.folder / "tiny")
        for command in ("deploy", "plan"):
            ran = made.fab(command)
            assert ran.status == 1 and ran.stdout == "" and "Traceback" not in ran.stderr, ran.text
            assert ran.stderr.startswith("error: "), ran.stderr
            for word in words:
                assert word in ran.stderr, ran.stderr


def test_a_repository_without_manage_py(tmp_path: Path) -> None:
    with listener() as server:
        port = server.getsockname()[1]
        made = project(tmp_path / "p", None, f'[hosts.web1]\naddress = "127.0.0.1"\nport = {port}', APP)
        tiny.write(made.folder / "tiny")
        (made.folder / "tiny/manage.py").unlink()
        ran = made.fab("deploy")
        assert ran.status == 1 and "Traceback" not in ran.text
        for word in ("[apps.tiny]", "there is no manage.py among its", "point `source` at a Django project"):
            assert word in ran.stderr, ran.stderr


def test_no_file_at_all(tmp_path: Path) -> None:
    made = Typed(tmp_path, None)  # type: ignore[arg-type]
    complaint(made.fab("deploy"), "there is no deploykit.toml here", str(tmp_path), "write one with: ")


def test_a_host_that_is_not_in_the_file(tmp_path: Path) -> None:
    made = Typed(tmp_path, None)  # type: ignore[arg-type]
    made.write('[hosts.web1]\naddress = "127.0.0.1"\n[hosts.web2]\naddress = "127.0.0.2"\n')
    complaint(made.fab("deploy"), "there are 2 hosts in the file", "--host", "web1, web2")
    complaint(made.fab("deploy", "--host", "we;b"), "is no host")
    complaint(made.fab("deploy", "--host", "web1", "--app", "blgo"), 'there is no app "blgo"')


# -- the way to the host --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def box(prepared: None) -> Iterator[Machine]:
    """A host for everything that is refused before it is changed, and for what its users may do."""
    with standing("bad", WARM) as host:
        yield host.machine


@pytest.fixture
def known(box: Machine, tmp_path: Path) -> Typed:
    """A project with that host by its address, its key known, and a key that opens it."""
    made = project(tmp_path / "p", Host(box), f'[hosts.web1]\naddress = "{box.address}"\nuser = "root"')
    box.admit(made.home)
    return made


def test_the_way_there(known: Typed) -> None:
    """What the tests below break does work when it is not broken."""
    assert known.fab("status").status == 0


def test_an_unreachable_host(known: Typed) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    known.write(f'[hosts.web1]\naddress = "127.0.0.1"\nport = {closed}\nuser = "root"\n')
    ran = known.fab("deploy")
    complaint(ran, "host web1: ", f"root@127.0.0.1:{closed} cannot be reached", "refused", "firewall")
    known.write('[hosts.web1]\naddress = "no-such-host.invalid"\n')
    complaint(known.fab("deploy"), "host web1: there is no machine named no-such-host.invalid", "correct `address`")


def test_a_host_that_does_not_speak_ssh(known: Typed) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            other, _ = server.accept()
            other.sendall(b"220 mail.example ESMTP\r\n" * 50)
            other.close()

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        known.write(f'[hosts.web1]\naddress = "127.0.0.1"\nport = {server.getsockname()[1]}\nuser = "root"\n')
        complaint(known.fab("deploy"), "host web1: ", "does not speak SSH")


def test_a_key_that_does_not_open(known: Typed, box: Machine) -> None:
    place = known.ssh / "id_ed25519"
    place.unlink()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place)], check=True)
    complaint(
        known.fab("deploy"), f"host web1: root@{box.address}:22 accepts none of your keys", f"ssh root@{box.address}"
    )
    place.unlink()
    complaint(known.fab("deploy"), "host web1: ", f"ssh root@{box.address}")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "locked", "-f", str(place)], check=True)
    complaint(known.fab("deploy"), "host web1: ", "ssh-add")


def test_a_host_key_that_has_changed(known: Typed, box: Machine, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True)
    before = f"{box.address} {(tmp_path / 'other.pub').read_text()}"
    (known.ssh / "known_hosts").write_text(before)
    ran = known.fab("deploy")
    complaint(ran, "host web1: ", "shows another host key than the one known", f"ssh-keygen -R '{box.address}'")
    assert (known.ssh / "known_hosts").read_text() == before


def fingerprint(box: Machine) -> str:
    line = subprocess.run(
        ["ssh-keygen", "-l", "-f", "-"], input=box.host_key, capture_output=True, text=True, check=True
    ).stdout
    return line.split()[1]


def test_an_unknown_host_key_is_never_accepted_in_silence(known: Typed, box: Machine) -> None:
    (known.ssh / "known_hosts").unlink()
    ran = known.fab("deploy")
    complaint(ran, f"the host key of {box.address} is not known", fingerprint(box), f"ssh {box.address}")
    assert not (known.ssh / "known_hosts").exists()
    refused = known.typing("status", answers={"[yes/no]": "no"})
    assert refused.status == 1 and fingerprint(box) in refused.stdout and not (known.ssh / "known_hosts").exists()
    accepted = known.typing("status", answers={"[yes/no]": "yes"})
    assert accepted.status == 0, accepted.text
    assert (known.ssh / "known_hosts").read_text() == f"{box.address} {' '.join(box.host_key.split()[:2])}\n"
    assert known.fab("status").status == 0, "it is asked once"


# -- who may become root --------------------------------------------------------------------------


def as_user(known: Typed, box: Machine, user: str) -> None:
    known.write(f'[hosts.web1]\naddress = "{box.address}"\nuser = "{user}"\n')


def test_a_sudoer_who_needs_no_password(known: Typed, box: Machine) -> None:
    as_user(known, box, "deploy")
    ran = known.deploy()
    assert known.fab("plan").status == 0, ran.text
    assert "deploy@" not in known.fab("status").stderr


def test_a_sudoer_is_asked_for_the_password_once(known: Typed, box: Machine) -> None:
    as_user(known, box, "asker")
    complaint(known.fab("plan"), "a password is needed (sudo password of asker on web1)", "without a password")
    ran = known.typing("plan", answers={"sudo password of asker on web1": "asker"})
    assert ran.status in (0, 2) and ran.stdout.count("sudo password") == 1, ran.text
    assert "asker\r\n" not in ran.stdout.replace("on web1: ", ""), "it is not echoed"
    wrong = known.typing("plan", answers={"sudo password of asker on web1": "guess"})
    assert wrong.status == 1 and "sudo does not accept the password" in wrong.stdout, wrong.text
    assert "host web1" in wrong.stdout and "run again" in wrong.stdout and "guess" not in wrong.stdout


def test_the_agent_is_installed_by_a_sudoer_with_a_password(known: Typed, box: Machine) -> None:
    box.run("rm", "-rf", "/var/lib/deploykit/agent")
    as_user(known, box, "asker")
    ran = known.typing("status", answers={"sudo password of asker on web1": "asker"})
    assert ran.status == 0 and ran.stdout.count("sudo password") == 1, ran.text


def test_a_user_who_may_not(known: Typed, box: Machine) -> None:
    box.run("chpasswd", stdin=b"limited:limited\n")
    as_user(known, box, "limited")
    ran = known.typing("deploy", answers={"sudo password of limited on web1": "limited"})
    assert ran.status == 1 and "error: host web1: limited may not become root there" in ran.stdout, ran.text
    assert "log in as root or as a sudoer" in ran.stdout
    box.run("mv", "/usr/bin/sudo", "/usr/bin/sudo.away")
    try:
        complaint(known.fab("deploy"), "host web1: limited is not root and there is no sudo", "log in as root")
    finally:
        box.run("mv", "/usr/bin/sudo.away", "/usr/bin/sudo")


# -- the host itself ------------------------------------------------------------------------------


def test_a_system_that_is_not_supported(known: Typed, box: Machine) -> None:
    before = box.run("cat", "/etc/os-release").stdout
    box.run("sh", "-c", "printf 'ID=fedora\\nVERSION_ID=\"41\"\\n' > /etc/os-release.new && "
                "mv /etc/os-release.new /etc/os-release")  # fmt: skip
    try:
        for command in ("plan", "deploy"):
            complaint(known.fab(command), "host web1: the host runs Fedora 41, which is not supported", "Debian 12")
    finally:
        box.run("tee", "/etc/os-release", stdin=before)
    assert known.fab("plan").status in (0, 2), "what a host says of itself is not remembered for ever"


def test_two_hosts_of_which_one_fails(known: Typed, box: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    known.write(
        f'[hosts.good]\naddress = "{box.address}"\nuser = "root"\n'
        f'[hosts.bad]\naddress = "127.0.0.1"\nport = {closed}\nuser = "root"\n'
    )
    ran = known.fab("deploy", "--host", "good,bad")
    complaint(ran, f"host bad: root@127.0.0.1:{closed} cannot be reached")
    assert "host good" not in ran.stderr
    assert known.fab("plan", "--host", "good").status == 0, "the good one was deployed to"
    assert known.fab("plan", "--host", "good,bad").status == 1


def test_a_host_without_python(machine: Make, tmp_path: Path) -> None:
    found = machine("bare", image=BASE)
    found.run("sh", "-c", "apt-get -qq purge -y '^python3.*' libpython3-stdlib >/dev/null 2>&1; "
                "rm -f /usr/bin/python3*; ! command -v python3")  # fmt: skip
    made = project(tmp_path / "p", Host(found), found.table)
    made.host.sh("mv /etc/apt /etc/apt.away; mkdir /etc/apt; rm -rf /var/lib/apt/lists/*")
    complaint(made.fab("plan"), f"host {found.name}: there is no python3 and it could not be installed", "python3")
    made.host.sh("rm -r /etc/apt; mv /etc/apt.away /etc/apt")
    ran = made.fab("plan")
    assert ran.status in (0, 2), ran.text
    assert made.host.said("python3", "-c", "print(1)") == "1"


@pytest.mark.only("nspawn", "a container shares the disk of the machine it runs on")
def test_a_full_disk(machine: Make, tmp_path: Path) -> None:
    found = machine("full", image=WARM, disk_mb=600)
    made = project(tmp_path / "p", Host(found), found.table, APP.replace("none", "sqlite"))
    tiny.write(made.folder / "tiny")
    host = made.host
    host.sh("free=$(df --output=avail -m / | tail -1); fallocate -l $((free - 40))M /filler")
    complaint(made.fab("deploy"), "the disk is full: ", "MiB are free", "free at least 100 MiB")
    assert host.sh("ls /srv; ls /etc/deploykit 2>/dev/null || true") == "", "nothing was begun"

    # Now it is enough to begin with, and not to end with.
    host.sh("rm /filler; free=$(df --output=avail -m / | tail -1); fallocate -l $((free - 130))M /filler")
    ran = made.fab("deploy")
    complaint(ran)
    assert re.search(r"[Nn]o space left|disk is (too )?full", ran.stderr), ran.text
    host.sh("rm /filler")
    made.deploy()
    assert "version 1" in host.curl("tiny.example").text
    made.settled()
