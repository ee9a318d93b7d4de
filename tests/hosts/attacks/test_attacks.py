"""What a hostile app tries: each attempt is refused, costs bank nothing, and keeps neither its owner from deploying
nor bank.

Other attacks have a file of their own where they need another host: test_hostile_data.py (databases, commands),
test_sockets.py (request lines, thousands of half-sent requests), test_hostile_app.py (requirements, links in media).
"""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..site import Host, Project, Ran, eventually
from .attempts import TABLE, Attempt, outcomes
from .bank import BANK, EVIL, PASSWORD, PORT, bank_and_evil, own, slot

Outcomes = dict[str, tuple[int, str]]


@pytest.fixture(scope="module")
def site(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with bank_and_evil("attack", tmp_path_factory.mktemp("attack")) as project:
        yield project


@pytest.fixture(scope="module")
def host(site: Project) -> Host:
    return site.host


# -- a command is enough ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def filled(host: Host) -> dict[str, str]:
    """Each attempt's command, with what it needs to know of this host."""
    live = slot(host, "bank")
    assert len({attempt.name for attempt in TABLE}) == len(TABLE)
    words = {
        "SLOT": live,
        "VENV": host.sh("echo /srv/bank/venvs/*"),
        "PID": host.programs()[f"bank-{live}"],
        "PORT": str(PORT),
    }
    return {each.name: re.sub("|".join(words), lambda found: words[found[0]], each.command) for each in TABLE}


@pytest.fixture(scope="module")
def tried(host: Host, filled: dict[str, str]) -> Outcomes:
    return outcomes(host, "evil", filled)


@pytest.fixture(scope="module")
def able(host: Host, filled: dict[str, str]) -> Outcomes:
    """The same attempts, by those who may."""
    found: Outcomes = {}
    for user in sorted({attempt.able for attempt in TABLE}):
        found |= outcomes(host, user, {each.name: filled[each.name] for each in TABLE if each.able == user})
    return found


@pytest.mark.parametrize("attempt", TABLE, ids=lambda each: each.name.replace(" ", "-"))
def test_refused(attempt: Attempt, tried: Outcomes, able: Outcomes) -> None:
    status, said = able[attempt.name]
    assert status == 0, f"{attempt.able} cannot do it either, so this proves nothing: {said}"
    status, said = tried[attempt.name]
    assert status not in (0, 124), f"{attempt.command}: {said}"


def banks_next(site: Project, mark: str, *command: str) -> Ran:
    """bank's next release goes live, whatever becomes of evil's."""
    place = site.folder / "bank/tiny/urls.py"
    place.write_text(re.sub(r"<title>bank</title>[\w-]*", f"<title>bank</title>{mark} ", place.read_text()))
    ran = site.fab(*command)
    shown = site.host.curl(BANK, "/", "--user", f"anna:{PASSWORD}").text
    assert f"<title>bank</title>{mark} " in shown and "Traceback" not in ran.text, (shown, ran.text)
    return ran


# -- what it writes where it may --------------------------------------------------------------------

#: Every folder that evil may write, wherever it is. What it may enter and not list, as its home, `find` does not see.
_WRITABLE = """
(find / -xdev -type d -writable -not -path '/proc/*'; find /run /srv/evil/* -xdev -type d -writable
for each in data media home persist live; do find /srv/evil/$each/ -type d -writable; done) 2>/dev/null | sort -u
"""

#: File names that are lines for a program of root's, links to another app's socket, and folders in the place of
#: sockets, in every folder that an app may write.
_PLANT = r"""
import os, sys, time
folders = [each for each in sys.stdin.read().splitlines() if not each.startswith(("/tmp/deploykit", "/dev/shm/"))]
deadline = time.monotonic() + float(sys.argv[1])
while True:
    for folder in folders:
        for slot in "ab":
            for name in (f"{slot}.x\nz %S 0777 root root\n#.sock", f"{slot}.sock\n[program:x]\ncommand=true\n.sock"):
                try:
                    open(os.path.join(folder, name), "a").close()
                except OSError:
                    pass
        for name in ("live.sock", "a.sock", "b.sock", "evil.sock", "redis.sock.new"):
            try:
                os.symlink("/run/deploykit/bank/live.sock", os.path.join(folder, name))
            except OSError:
                pass
        for name in ("live.zzz.sock", "a.zzz.sock", "b.zzz.sock", "live.sock.d", "a.web.pid"):
            try:
                os.makedirs(os.path.join(folder, name, "x"))
            except OSError:
                pass
    open("/srv/evil/data/planted", "w").close()
    if time.monotonic() > deadline:
        break
    time.sleep(0.02)
"""


@contextlib.contextmanager
def planting(host: Host) -> Iterator[None]:
    """Meanwhile evil plants such names, again and again."""
    folders = host.run("sh", "-c", _WRITABLE, user="evil", check=False).stdout
    assert {"/run/evil", "/srv/evil/data/", "/srv/evil/media/", "/tmp"} <= set(folders.splitlines()), folders
    host.run("sh", "-c", 'cat >/srv/evil/data/folders <<"END"\n' + folders + "END", user="evil")
    script = f"exec python3 -c '{_PLANT}' 120 </srv/evil/data/folders"
    host.run("rm", "-f", "/srv/evil/data/planted")
    words = 'setsid runuser -u evil -- sh -c "$1" >/dev/null 2>&1 & echo $!'
    pid = host.said("sh", "-c", words, "sh", script)
    try:
        assert eventually(lambda: host.run("test", "-e", "/srv/evil/data/planted", check=False).returncode == 0, 20)
        yield
    finally:
        host.run("sh", "-c", f"pkill -KILL -s {pid}", check=False)


def modes(host: Host) -> str:
    """Who may do what with the folders that root's programs read, and what systemd-tmpfiles is told."""
    places = "/ /etc /etc/* /var /var/lib /var/lib/* /var/log /srv /srv/* /run/deploykit /usr/local /usr/local/*"
    return host.sh(
        f"stat --format='%n %U %G %a' {places} | sort; cat /etc/tmpfiles.d/deploykit-* | sed 's/[ab].sock$//'"
    )


def test_names_reach_no_program_of_roots(site: Project, host: Host) -> None:
    before = modes(host)
    with planting(host):
        for command in (("restart", "--app", "evil"), ("deploy",)):
            ran = site.fab(*command)
            assert ran.status == 0, ran.text
        banks_next(site, "planted", "deploy")
    assert modes(host) == before
    host.reboot()
    assert modes(host) == before
    assert eventually(lambda: own(host, "bank"), 30)


def test_no_link_of_evil_leads_to_bank(site: Project, host: Host) -> None:
    """The links are in every folder that it may write, since the test before."""
    assert host.run("test", "-L", "/run/evil/live.sock", check=False).returncode == 0 or (
        host.run("test", "-L", "/srv/evil/data/live.sock", check=False).returncode == 0
    )
    ran = site.fab("restart", "--app", "evil")
    assert ran.status == 0, ran.text
    assert eventually(lambda: own(host, "evil"), 10)
    assert own(host, "bank")


def test_evil_renames_what_it_may(site: Project, host: Host) -> None:
    """Its own folders give way to links to bank's."""
    script = """
        for place in /run/evil /srv/evil/data /srv/evil/media /srv/evil/home /run/deploykit/evil /srv/evil/live; do
            mv -T $place $place.kept && ln -s $(echo $place | sed s/evil/bank/) $place
            rm -rf $place/* && ln -s /run/deploykit/bank/live.sock $place/live.sock
        done
        true
    """
    host.run("sh", "-c", f"({script}) 2>/dev/null", user="evil", check=False)
    banks_next(site, "renamed", "deploy")
    assert own(host, "evil") and host.said("cat", "/srv/bank/data/own") == "x"


# -- through nginx ----------------------------------------------------------------------------------


def asked(host: Host, request: str) -> tuple[int, str]:
    """The status of the answer and its text; 0 when the connection is closed without one."""
    with socket.create_connection((host.address, 80), timeout=20) as client:
        client.sendall(request.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    return (int(answer.split()[1]) if answer else 0), answer.decode("utf-8", "replace")


@pytest.mark.parametrize(
    ("line", "name"), [(f"http://{EVIL}/", BANK), (f"http://{EVIL}:80/", f"{BANK}:80"), ("/", BANK), ("//", BANK)]
)
def test_banks_password_is_asked_whatever_the_request_says(host: Host, line: str, name: str) -> None:
    status, text = asked(host, f"GET {line} HTTP/1.1\nHost: {name}\nConnection: close")
    assert status in (400, 401, 421) and "<title>bank</title>" not in text, text


def test_with_the_password_it_answers(host: Host) -> None:
    assert host.curl(BANK).status == 401
    assert own(host, "bank")


# -- what is shared ---------------------------------------------------------------------------------

#: As many as it gets, and again and again: those that are refused try once more.
_CONNECTIONS = """
for i in $(seq 320); do (for n in 1 2 3 4; do psql -Xqd evil -c 'SELECT pg_sleep(30)'; sleep 2; done) & done; wait
"""


def test_connections_to_postgresql_leave_room_for_bank(host: Host) -> None:
    words = 'setsid runuser -u evil -- env --chdir=/ sh -c "$1" >/dev/null 2>&1 & echo $!'
    pid = host.said("sh", "-c", words, "sh", _CONNECTIONS)
    one_more = ("psql", "-Xqd", "evil", "-c", "SELECT 1")
    assert eventually(lambda: host.run(*one_more, user="evil", check=False).returncode != 0, 40), "it has no limit"
    for _ in range(10):
        assert own(host, "bank")
    host.run("pkill", "-KILL", "-s", pid, check=False)


# -- the way in, and out ----------------------------------------------------------------------------


def test_evil_opens_no_ssh_for_itself(host: Host, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    into = "umask 077; mkdir -p /srv/evil/home/.ssh; cat >/srv/evil/home/.ssh/authorized_keys"
    host.run("sh", "-c", f'{into} <<"END"\n{key.with_suffix(".pub").read_text()}END', user="evil")
    options = ["-F", "/dev/null", "-i", str(key), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"]
    options += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    done = subprocess.run(
        ["ssh", *options, f"evil@{host.address}", "id"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 255 and "Permission denied" in done.stderr, done


def test_evil_keeps_nobody_from_deploying(site: Project, host: Host) -> None:
    """A file in the place of its Redis' folder fails its own deploy only."""
    host.sh("systemctl stop redis-server@evil.service")
    host.run("sh", "-c", "cd /srv/evil/data && { rm -rf redis; mv -T redis kept; }; touch redis", user="evil")
    for number, command in enumerate((("deploy",), ("deploy", "--app", "bank"))):
        assert "itself failed" not in banks_next(site, f"blocked-{number}", *command).text


def test_evil_is_removed_whatever_it_left(site: Project, host: Host) -> None:
    with planting(host):
        text = site.toml.read_text()
        site.write(text[: text.index("[apps.evil]")])
        ran = site.fab("deploy")
        assert ran.status == 0, ran.text
        ran = site.fab("remove-app", "evil", "--delete-data", "--yes")
        assert ran.status == 0, ran.text
    assert host.run("id", "evil", check=False).returncode == 1
    assert host.run("test", "-e", "/srv/evil", check=False).returncode == 1
    host.refuses(EVIL)
    assert own(host, "bank")
    site.settled()
