"""Workers, a scheduler, WebSockets and schedules beside the web, through deploys that go well and that do not."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import socket
import struct
from collections.abc import Iterator

import pytest

from . import busy
from .conftest import WARM
from .site import Host, Project, eventually, standing

TINY = "tiny.example"
URLS = "tiny/tiny/urls.py"


@pytest.fixture(scope="module")
def site(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with standing("proc", WARM) as host:
        project = Project(tmp_path_factory.mktemp("processes"), host)
        busy.write(project.folder / "tiny")
        project.write(busy.toml(host.table))
        project.first = project.fab("deploy")
        yield project


@pytest.fixture(scope="module")
def host(site: Project) -> Host:
    assert site.first is not None
    assert site.first.status == 0, site.first.text
    return site.host


def slot(host: Host) -> str:
    return host.said("readlink", "/run/deploykit/tiny/live.sock").removesuffix(".sock")


def release(host: Host) -> str:
    return host.said("readlink", "/srv/tiny/live").rpartition("/")[2]


def echoed(host: Host, path: str, text: str) -> str:
    """What comes back through nginx by WebSocket, spoken by hand (RFC 6455)."""
    with socket.create_connection((host.address, 80), timeout=10) as peer:
        key = base64.b64encode(os.urandom(16)).decode()
        peer.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {TINY}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        answer = peer.makefile("rb")
        status = answer.readline().decode()
        if " 101 " not in status:
            return status
        while answer.readline() != b"\r\n":
            pass
        data, mask = text.encode(), os.urandom(4)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
        peer.sendall(struct.pack("!BB", 0x81, 0x80 | len(data)) + mask + masked)
        _, length = struct.unpack("!BB", answer.read(2))
        return answer.read(length).decode()


def environ(host: Host, pid: str) -> dict[str, str]:
    entries = host.machine.run("cat", f"/proc/{pid}/environ").stdout.decode().split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def test_everything_runs_and_a_second_deploy_does_nothing(site: Project, host: Host) -> None:
    now = slot(host)
    names = {"beat-1", "live-1", "other-1", "third-1", "worker-1", "worker-2"}
    assert set(host.programs()) == {f"tiny-{now}", *(f"tiny-{now}.{name}" for name in names)}
    # The process itself, not a shell around it, or a stop signal would not reach it.
    pid = host.programs()[f"tiny-{now}.worker-1"]
    assert "manage.py work" in host.said("ps", "-o", "args=", "-p", pid)
    assert host.said("ps", "-o", "user=", "-p", pid) == "tiny"
    site.settled()


def test_with_all_of_it_nothing_to_do_is_one_exec(site: Project, host: Host) -> None:
    host.sh("printf 'LogLevel VERBOSE\\n' > /etc/ssh/sshd_config.d/verbose.conf && systemctl reload ssh")
    assert eventually(lambda: host.run("true", check=False).returncode == 0, 10)
    host.sh("logger -t marker begin")
    assert site.deploy().last == "nothing to do"
    host.sh("logger -t marker end; journalctl --sync")
    lines = host.sh("journalctl -o cat --no-pager -t marker -t sshd -t sshd-session").splitlines()
    between = lines[lines.index("begin") : lines.index("end")]
    # The last of them is the one that brings the word "end".
    assert sum(line.startswith("Starting session: ") for line in between) - 1 == 1, between


def test_websockets_go_through_nginx_and_the_rest_to_the_app(host: Host) -> None:
    assert echoed(host, "/ws/chat", "grüß dich") == "echo: grüß dich"
    assert echoed(host, "/other/chat", "hello") == "echo: hello"
    assert echoed(host, "/third/chat", "hello") == "echo: hello"
    assert host.curl(TINY, "/ws/plain").text == "asgi /ws/plain"
    assert "version 1" in host.curl(TINY).text


def test_all_have_the_same_environment(host: Host) -> None:
    """Web, worker, scheduler, ASGI server, schedule, and what in-app runs: one environment, difficult values intact."""
    own = {"DEPLOYKIT_PROCESS", "SUPERVISOR_ENABLED", "SUPERVISOR_PROCESS_NAME", "SUPERVISOR_GROUP_NAME",
           "SUPERVISOR_SERVER_URL", "PWD", "OLDPWD", "_", "SHLVL", "INVOCATION_ID", "JOURNAL_STREAM",
           "SYSTEMD_EXEC_PID", "SHELL", "SERVER_SOFTWARE", "LC_ALL", "MEMORY_PRESSURE_WATCH",
           "MEMORY_PRESSURE_WRITE", "MAIL", "SSH_CLIENT", "SSH_CONNECTION", "TERM", "XDG_RUNTIME_DIR",
           "XDG_SESSION_CLASS", "XDG_SESSION_ID", "XDG_SESSION_TYPE", "DBUS_SESSION_BUS_ADDRESS", "MOTD_SHOWN",
           "SSH_TTY", "LISTEN_FDS", "LISTEN_FDNAMES",
           "LISTEN_PID"}  # fmt: skip
    found = {name: environ(host, pid) for name, pid in host.programs().items()}
    assert eventually(lambda: host.run("test", "-s", "/srv/tiny/data/tick.env", check=False).returncode == 0, 10)
    by_hand = host.said("/usr/local/lib/deploykit/in-app", "tiny", "python", "-c",
                        "import json, os; print(json.dumps(dict(os.environ)))")  # fmt: skip
    found["by hand"] = json.loads(by_hand)
    found["timed"] = json.loads(host.said(
        "systemd-run", "--quiet", "--wait", "--pipe", "--uid=tiny", "/usr/local/lib/deploykit/in-app", "tiny",
        "python", "-c", "import json, os; print(json.dumps(dict(os.environ)))",
    ))  # fmt: skip
    plain = {name: {k: v for k, v in each.items() if k not in own} for name, each in found.items()}
    first = plain["by hand"]
    assert first["DIFFICULT"] == busy.DIFFICULT
    assert first["HOME"] == "/srv/tiny/home" and first["PATH"].startswith("/srv/tiny/venvs/")
    for name, each in plain.items():
        assert each == first, name
    ticked = host.said("cat", "/srv/tiny/data/tick.env")
    assert busy.DIFFICULT in ticked and f"DEPLOYKIT_RELEASE={release(host)}" in ticked


def test_a_schedule_runs_without_overlap_and_says_how(site: Project, host: Host) -> None:
    unit = "deploykit-tiny.tick.service"
    assert host.said("systemctl", "show", "--property=Persistent", "--value", "deploykit-tiny.tick.timer") == "yes"
    assert eventually(lambda: host.said("journalctl", "-q", "-o", "cat", "-u", unit).count("ticked") >= 2, 20)
    begins = host.said("journalctl", "-q", "-o", "short-unix", "-u", unit, "--grep", "ticked").splitlines()
    times = [float(line.split()[0]) for line in begins]
    assert all(later - earlier >= 2.9 for earlier, later in itertools.pairwise(times)), times
    assert eventually(lambda: "failed: exit-code 1" in site.fab("status").stdout, 20)
    said = site.fab("status").stdout
    assert re.search(r"^tiny +tick +", said, re.MULTILINE) and re.search(r"^tiny +worker-2 +up ", said, re.MULTILINE)
    assert "no such luck" in host.said("journalctl", "-q", "-o", "cat", "-u", "deploykit-tiny.fails.service")


def beats(host: Host) -> list[list[str]]:
    return [line.split() for line in host.said("cat", "/srv/tiny/data/beats").splitlines()]


def never_twice(host: Host) -> None:
    """Between a scheduler's first word and its last, no other one says anything."""
    running = ""
    for word, pid, *_ in beats(host):
        if word == "begin":
            assert not running, f"{pid} began while {running} ran"
            running = pid
        assert pid == running, f"{pid} speaks while {running} runs"
        if word == "end":
            running = ""


def test_workers_and_the_scheduler_outlive_supervisor(host: Host) -> None:
    """The next deploy has what outlived it to replace."""
    programs, before = set(host.programs()), beats(host)
    host.sh("kill -KILL $(systemctl show --property=MainPID --value supervisor.service)")
    assert eventually(lambda: set(host.programs()) == programs, 30)
    after = beats(host)
    assert len(after) > len(before) and {each[1] for each in after} == {each[1] for each in before}
    never_twice(host)


def test_a_deploy_loses_no_task_and_no_beat_comes_twice(site: Project, host: Host) -> None:
    before, old = release(host), slot(host)
    site.edit(URLS, "version 1", "version 2")
    # One long task that begins before the switch and outlives it, and 200 short ones.
    host.sh("echo 12 > /srv/tiny/data/queue/long.new && chown tiny: /srv/tiny/data/queue/long.new && "
            "mv /srv/tiny/data/queue/long.new /srv/tiny/data/queue/0long.task")  # fmt: skip
    assert eventually(lambda: "task" not in host.said("ls", "/srv/tiny/data/queue"), 5)
    host.sh(
        "cd /srv/tiny/data/queue && "
        "for i in $(seq 200); do echo 0.1 > $i.new; chown tiny: $i.new; mv $i.new $i.task; done"
    )
    with host.visited(TINY) as lost:
        site.deploy()
    assert lost == []
    host.sh("cd /srv/tiny/data/queue && echo 0 > last.new && chown tiny: last.new && mv last.new last.task")
    assert "version 2" in host.curl(TINY).text and slot(host) != old
    after = release(host)
    assert eventually(lambda: host.said("ls", "/srv/tiny/data/queue") == "", 60)
    done = host.said("sh", "-c", "cd /srv/tiny/data/done && grep -c . *").split()
    assert len(done) == 202 and {line.rpartition(":")[2] for line in done} == {"1"}, done
    assert host.said("cut", "-d", " ", "-f1", "/srv/tiny/data/done/0long") == before  # it finished what it held
    assert after in host.said("cat", "/srv/tiny/data/done/last")
    never_twice(host)
    assert {each[2] for each in beats(host)} == {before, after}
    assert echoed(host, "/ws/x", "again") == "echo: again"
    site.settled()


def test_a_restart_of_a_process_that_answers_requests_drops_none(site: Project, host: Host) -> None:
    """Alone it would be away for a moment: the whole app comes up beside it, of the same release."""
    before, programs, same = slot(host), host.programs(), release(host)
    with host.visited(TINY, "/ws/plain", "/other/plain", "/third/plain", "/") as lost:
        ran = site.fab("restart", "--process", "live")
    assert ran.status == 0, ran.text
    assert lost == []
    assert slot(host) != before and release(host) == same
    assert not set(host.programs().values()) & set(programs.values()), "new processes"
    assert echoed(host, "/ws/x", "anew") == "echo: anew"
    never_twice(host)


def test_a_worker_that_dies_fails_the_deploy(site: Project, host: Host) -> None:
    before, programs = release(host), host.programs()
    site.edit("tiny/notes/management/commands/work.py", "import os, signal", "import no_such_thing, os, signal")
    site.edit(URLS, "version 2", "version 3")
    ran = site.fab("deploy")
    assert ran.status == 1 and "the process worker-" in ran.text, ran.text
    assert "No module named 'no_such_thing'" in ran.text and "the live release is untouched" in ran.text
    assert release(host) == before and "version 2" in host.curl(TINY).text
    assert {k: v for k, v in host.programs().items() if "beat" not in k} == {
        k: v for k, v in programs.items() if "beat" not in k
    }
    assert set(host.programs()) == set(programs)
    never_twice(host)
    site.edit("tiny/notes/management/commands/work.py", "import no_such_thing, os, signal", "import os, signal")


def test_a_scheduler_that_dies_comes_back_as_it_was(site: Project, host: Host) -> None:
    site.edit("tiny/notes/management/commands/beat.py", "import os, signal", "import no_such_thing, os, signal")
    ran = site.fab("deploy")
    assert ran.status == 1 and "the process beat-1" in ran.text and "no_such_thing" in ran.text, ran.text
    count = len(beats(host))
    assert eventually(lambda: len(beats(host)) > count + 2, 10)
    assert beats(host)[-1][2] == release(host)
    never_twice(host)
    site.edit("tiny/notes/management/commands/beat.py", "import no_such_thing, os, signal", "import os, signal")


def test_checks_are_asked_before_and_after_the_switch(site: Project, host: Host) -> None:
    """A page that is 500 behind a health check that is 200; a stylesheet that only nginx could serve."""
    before = release(host)
    site.write(site.toml.read_text() + '\n[[apps.tiny.checks]]\npath = "/page"\ntext = "hello"\nasset = true\n')
    ran = site.fab("deploy")
    assert ran.status == 1 and "fails check 4: GET /page with Host tiny.example answered 404" in ran.text, ran.text
    assert release(host) == before
    page = """path("", home),
    path("page", lambda request: HttpResponse("hello <link rel=stylesheet href=/static/none.css>"))"""
    site.edit(URLS, 'path("", home)', page)
    ran = site.fab("deploy")
    assert ran.status == 1 and "/static/none.css, which /page links, answered 404" in ran.text, ran.text
    assert "the release before is live again" in ran.text
    assert release(host) == before and "version 2" in host.curl(TINY).text and host.curl(TINY, "/page").status == 404
    site.edit(URLS, " <link rel=stylesheet href=/static/none.css>", "")
    site.deploy()
    assert host.curl(TINY, "/page").text == "hello " or "hello" in host.curl(TINY, "/page").text
    never_twice(host)
    site.settled()


def test_what_crashes_later_is_seen(site: Project, host: Host) -> None:
    """A worker that somebody stopped by hand is a difference, and a deploy brings it back."""
    host.sh(f"supervisorctl stop tiny-{slot(host)}.worker-1:*")
    differences = [each["differences"] for each in site.changes() if each["key"] == "app tiny"]
    assert {"name": "process worker-1", "old": "STOPPED", "new": "RUNNING"} in differences[0]
    site.deploy()
    assert f"tiny-{slot(host)}.worker-1" in host.programs()
    never_twice(host)


def test_all_is_back_after_a_reboot(site: Project, host: Host) -> None:
    programs = set(host.programs())
    before = len(beats(host))
    host.reboot()
    assert eventually(lambda: set(host.programs()) == programs, 30), host.programs()
    assert eventually(lambda: echoed(host, "/ws/x", "up") == "echo: up", 10)
    assert eventually(lambda: [each[0] for each in beats(host)[before:]].count("begin") == 1, 20)
    never_twice(host)
    site.settled()


def test_what_leaves_the_file_leaves_the_host(site: Project, host: Host) -> None:
    text = site.toml.read_text()
    begin, end = text.index("[apps.tiny.processes.beat]"), text.index("[apps.tiny.schedule.fails]")
    site.write(text[:begin] + text[end:].replace('path = "/ws/echo"\nwebsocket = true', 'path = "/"'))
    site.deploy()
    now = slot(host)
    assert set(host.programs()) == {f"tiny-{now}", f"tiny-{now}.worker-1", f"tiny-{now}.worker-2"}
    assert host.run("systemctl", "is-active", "deploykit-tiny.tick.timer", check=False).stdout.strip() == "inactive"
    notes = [f"{now}.{name}.pid" for name in ("web", "worker-1", "worker-2")]
    assert host.said("ls", "/run/deploykit/tiny").split() == [f"{now}.sock", *notes, "live.sock", "once.beat"]
    assert host.said("ls", "/run/tiny") == ""
    assert host.curl(TINY, "/ws/x").status == 404
    site.settled()


def test_an_app_that_runs_something_by_the_clock_can_leave(site: Project, host: Host) -> None:
    assert eventually(lambda: host.said("systemctl", "is-active", "deploykit-tiny.fails.timer") == "active", 5)
    ran = site.fab("remove-app", "tiny", "--delete-data", "--yes")
    assert ran.status == 0, ran.text
    assert host.run("getent", "passwd", "tiny", check=False).returncode == 2
    left = host.sh(
        "ls -d /srv/tiny /run/tiny /run/deploykit/tiny /etc/systemd/system/deploykit-tiny* /etc/deploykit/tiny* "
        "2>/dev/null || true"
    )
    assert left == ""
    assert host.programs() == {}
