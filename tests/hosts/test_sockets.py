"""Between visitors and an app: no other app answers in its place, and it goes on when supervisor is killed."""

from __future__ import annotations

import contextlib
import re
import resource
import socket
from collections.abc import Iterator

import pytest

from . import tiny
from .conftest import WARM
from .site import Host, Project, eventually, standing

BANK, EVIL = "bank.example", "evil.example"
#: What a shell would run.
FOLDER = "my $(touch /tmp/opened) site"
#: As many visitors as a host with Debian's settings has connections for, four times.
MANY = 3000


@pytest.fixture(scope="module")
def site(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with standing("sock", WARM) as host:
        project = Project(tmp_path_factory.mktemp("sockets"), host)
        folders = {"bank": project.folder / "bank", "evil": project.folder / "evil" / FOLDER}
        text = host.table
        for app, folder in folders.items():
            tiny.write(folder)
            urls = folder / "tiny/urls.py"
            urls.write_text(urls.read_text().replace("<title>tiny</title>", f"<title>{app}</title>"))
            text += f'\n[apps.{app}]\nsource = "{app}"\ndomains = ["{app}.example"]\ndatabase = "sqlite"\n'
        project.write(text)
        project.deploy()
        yield project


@pytest.fixture(scope="module")
def host(site: Project) -> Host:
    return site.host


def own(host: Host, app: str) -> bool:
    """Whether the app's site is answered by the app itself."""
    return f"<title>{app}</title>" in host.curl(f"{app}.example").text


def test_a_folders_name_is_no_command(host: Host) -> None:
    assert own(host, "evil")
    assert host.run("test", "-e", "/tmp/opened", check=False).returncode == 1


#: Whatever an app can do to have nginx connect to the socket of another.
LEAD = """
for folder in /run/evil /run/deploykit/evil /run/deploykit; do
    for name in live.sock a.sock b.sock evil; do
        ln -sfn /run/deploykit/bank/live.sock $folder/$name
        ln -sfn /run/deploykit/bank $folder/$name
        mv -T /run/evil $folder/$name
    done
done
true
"""


def test_no_app_is_answered_by_another(site: Project, host: Host) -> None:
    host.run("sh", "-c", f"({LEAD}) 2>/dev/null; ls /run/evil", user="evil")
    assert own(host, "evil") and own(host, "bank")
    site.deploy()
    ran = site.fab("restart", "--app", "evil")
    assert ran.status == 0, ran.text
    assert own(host, "evil") and own(host, "bank")
    assert host.said("stat", "--format=%U %G %a", "/run/deploykit/evil") == "root www-data 750"


#: Lines for tmpfiles.d(5), and what no file of that name could be made over.
NAMES = r"""
import itertools, os, time
os.chdir("/run/evil")
for _ in itertools.count():
    for slot in "ab":
        for name in (f"{slot}.x\nz %S 0777 root root\n#.sock", f"{slot}.y z %S 0777.sock"):
            open(name, "w").close()
        for name in (f"{slot}.zzz.sock", f"live.{slot}.sock", f"{slot}.sock.d", "once.d"):
            os.makedirs(f"{name}/deep", exist_ok=True)
        if not os.path.lexists(f"{slot}.fifo.sock"):
            os.mkfifo(f"{slot}.fifo.sock")
    open("/srv/evil/data/began", "w").close()
    time.sleep(0.01)
"""


@contextlib.contextmanager
def naming(host: Host) -> Iterator[None]:
    """Meanwhile evil makes such names, again and again."""
    pid = host.sh(f"setsid runuser -u evil -- python3 -c '{NAMES}' >/dev/null 2>&1 & echo $!")
    try:
        assert eventually(lambda: host.run("test", "-e", "/srv/evil/data/began", check=False).returncode == 0, 20)
        yield
    finally:
        host.run("sh", "-c", f"pkill -KILL -P {pid}; kill -KILL {pid}", check=False)


def test_root_takes_no_name_of_an_apps(site: Project, host: Host) -> None:
    with naming(host):
        ran = site.fab("restart", "--app", "evil")
    assert ran.status == 0, ran.text
    (slot,) = {name.removeprefix("evil-") for name in host.programs() if name.startswith("evil-")}
    lines = host.said("cat", "/etc/tmpfiles.d/deploykit-evil-live.conf").splitlines()
    assert lines[1:] == [f"L+ /run/deploykit/evil/live.sock - - - - {slot}.sock"]
    host.reboot()
    assert host.said("stat", "--format=%a", "/var/lib") == "755"
    assert eventually(lambda: own(host, "bank") and own(host, "evil"), 20)


def asked(host: Host, request: str) -> int:
    """The status of the answer; 0 when the connection is closed without one."""
    with socket.create_connection((host.address, 80), timeout=20) as client:
        client.sendall(request.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    return int(answer.split()[1]) if answer else 0


@pytest.mark.parametrize(
    ("line", "name", "status"),
    [
        (f"http://{EVIL}/", BANK, 421),
        (f"http://{BANK}/", EVIL, 421),
        (f"http://{BANK}/", "attacker.example", 421),
        (f"http://{BANK}/", f"{BANK}.{EVIL}", 421),
        (f"http://{BANK}/", f"{BANK}@{EVIL}", 421),
        (f"http://{BANK}/", "[::1]", 421),
        (f"http://{BANK}/", "", 400),
        (f"http://{BANK}/", f"{BANK}\nHost: {EVIL}", 400),
        (f"http://{BANK.upper()}:80/", f"{BANK.upper()}.:8080", 200),
        ("/", f"{BANK.title()}:8080", 200),
        ("/", f"{BANK}.", 200),
    ],
)
def test_the_host_is_the_one_of_the_request_line(host: Host, line: str, name: str, status: int) -> None:
    assert asked(host, f"GET {line} HTTP/1.1\nHost: {name}\nConnection: close") == status


def test_without_a_host(host: Host) -> None:
    assert asked(host, f"GET http://{BANK}/ HTTP/1.0") == 421
    assert asked(host, "GET / HTTP/1.0") == 0
    assert asked(host, f"GET / HTTP/1.0\nHost: {BANK}") == 200


def test_visitors_who_send_nothing_leave_room(host: Host) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, MANY + 1000)), hard))
    with contextlib.ExitStack() as ends:
        ends.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(MANY):
            visitor = ends.enter_context(socket.create_connection((host.address, 80), timeout=20))
            visitor.sendall(f"GET / HTTP/1.1\r\nHost: {EVIL}\r\nX-Half".encode())
        assert [host.curl(BANK).status for _ in range(8)] == [200] * 8
    assert own(host, "evil")


def kill_supervisor(host: Host) -> None:
    """As by a kernel that is out of memory; returns when the next one has all programs."""
    before = host.said("systemctl", "show", "--property=MainPID", "--value", "supervisor.service")
    host.sh(f"kill -KILL {before}")
    assert eventually(lambda: len(host.programs()) == 2, 30), host.said("systemctl", "status", "supervisor")
    assert host.said("systemctl", "show", "--property=MainPID", "--value", "supervisor.service") != before


def servers(host: Host) -> dict[str, list[str]]:
    """Each app's first processes: those whose parent is of another user."""
    lines = [line.split() for line in host.said("ps", "-eo", "user:16,pid,ppid").splitlines()]
    users = {pid: user for user, pid, _ in lines}
    return {
        app: [pid for user, pid, parent in lines if user == app and users.get(parent) != app]
        for app in ("bank", "evil")
    }  # fmt: skip


def alone(site: Project) -> None:
    """Exactly one slot of each app is there, with one server."""
    one_each = eventually(lambda: [len(pids) for pids in servers(site.host).values()] == [1, 1], 20)
    assert one_each, servers(site.host)
    confs = site.host.said("ls", "/etc/supervisor/conf.d").split()
    assert sorted(re.sub(r"-[ab]\.conf", "", each) for each in confs) == ["bank", "evil"]
    site.settled()


def test_supervisor_killed_costs_nothing(site: Project, host: Host) -> None:
    before = servers(host)
    with host.visited(BANK, "/", "/?b", "/?c", "/?d") as lost:
        kill_supervisor(host)
        kill_supervisor(host)
    assert lost == []
    assert servers(host) == before
    alone(site)


def test_after_that_all_goes_on(site: Project, host: Host) -> None:
    """What outlived its supervisor says what it has to say, and makes way for what comes after it."""
    before = servers(host)
    with host.visited(BANK, "/", "/?b") as lost:
        ran = site.fab("restart", "--app", "bank")
        assert ran.status == 0, ran.text
    assert lost == []
    assert servers(host)["evil"] == before["evil"] and servers(host)["bank"] != before["bank"]
    alone(site)
    kill_supervisor(host)
    site.edit("bank/tiny/urls.py", "version 1", "version 2")
    with host.visited(BANK, "/", "/?b") as lost:
        site.deploy()
    assert lost == []
    assert "version 2" in host.curl(BANK).text
    (slot,) = (name for name in host.programs() if name.startswith("bank-"))
    kill_supervisor(host)
    host.sh(f"supervisorctl stop {slot}")
    assert servers(host)["bank"] == [] and "Shutting down: Master" in host.said(
        "tail", f"/var/log/deploykit/{slot}.log"
    )
    host.sh(f"supervisorctl start {slot}")
    assert eventually(lambda: own(host, "bank"), 20)
    host.sh("systemctl restart supervisor")
    assert eventually(lambda: own(host, "bank") and own(host, "evil") and len(host.programs()) == 2, 30)
    alone(site)
    host.reboot()
    assert eventually(lambda: own(host, "bank") and own(host, "evil") and len(host.programs()) == 2, 30)
    alone(site)


def test_a_server_that_died_is_back(site: Project, host: Host) -> None:
    kill_supervisor(host)
    (pid,) = servers(host)["bank"]
    host.sh(f"kill -KILL {pid}")
    assert eventually(lambda: own(host, "bank") and servers(host)["bank"] not in ([pid], []), 20)
    alone(site)


def test_nginx_killed_is_back(host: Host) -> None:
    before = host.said("cat", "/run/nginx.pid")
    host.sh(f"kill -KILL {before}")
    assert eventually(lambda: host.run("cat", "/run/nginx.pid", check=False).stdout.strip() not in ("", before), 20)
    assert eventually(lambda: own(host, "bank"), 20)


def test_an_app_leaves_whatever_it_left(site: Project, host: Host) -> None:
    with naming(host):
        pass
    text = site.toml.read_text()
    site.write(text[: text.index("[apps.evil]")])
    site.deploy()
    assert own(host, "bank")
    assert host.sh("ls -d /run/evil /run/deploykit/evil 2>/dev/null || true") == ""
    host.refuses(EVIL)
